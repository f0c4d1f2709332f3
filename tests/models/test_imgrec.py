"""ImgRec-Dir and -FT against the dense layers on one-hot vectors that their look-ups stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conformance import train
from narrow import built, not_none
from torch import Tensor
from toy import N_FEATURES, N_ITEMS, N_USERS, planted_dataset, toy_data

from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.errors import InputError
from imgrec_lib.models import resolve_profile
from imgrec_lib.models.imgrec_ft import ImgRecFT
from imgrec_lib.models.parts.imgrec import ImgRec


def random_model(name: str, **parameters: Any) -> ImgRec:
    model = built(ImgRec, name, toy_data(), **{"factors": 4, "l2": 0.0, "l2_users": 0.0, **parameters}).double()
    assert isinstance(model.features, Tensor)
    model.features = model.features.double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def dense_scores(model: ImgRec) -> np.ndarray:
    """All scores by dense layers: user one-hot @ kernel + bias, [item one-hot | phi] @ kernel + bias, dot product."""
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    assert isinstance(model.features, Tensor)
    phi = model.features.numpy()
    if "layer.weight" in w:
        phi = np.maximum(phi @ w["layer.weight"].T + w["layer.bias"], 0)
    users = np.eye(N_USERS) @ w["user_table"] + w["user_bias"]
    kernel = np.concatenate([w["item_table"], w["image_weight"]])
    items = np.concatenate([np.eye(N_ITEMS), phi], 1) @ kernel + w["item_bias"]
    if model.crelu:
        users, items = (np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], 1) for z in (users, items))
    return users @ items.T


@pytest.mark.parametrize("crelu", [False, True])
@pytest.mark.parametrize("name", ["imgrec-dir", "imgrec-ft"])
def test_lookups_equal_the_dense_one_hot_layers(name: str, crelu: bool) -> None:
    model = random_model(name, crelu=crelu)
    expected = dense_scores(model)
    np.testing.assert_allclose(model.scorer().block(torch.arange(N_USERS)).numpy(), expected, rtol=1e-10)
    batch = Sampler(toy_data(), 0).triples(7, 3)
    total = 0.0
    for user, positive, negatives in zip(*(t.tolist() for t in batch[:3]), strict=True):
        total += math.log1p(math.exp(-expected[user, positive]))
        total += sum(math.log1p(math.exp(expected[user, j])) for j in negatives)
    assert model.loss(batch).item() == pytest.approx(total / (7 * 4), rel=1e-10)


@pytest.mark.parametrize("name", ["imgrec-dir", "imgrec-ft"])
def test_penalties_are_keras_sums_over_whole_kernels(name: str) -> None:
    batch = Batch(torch.tensor([0]), torch.tensor([1]), torch.tensor([[2]]), None)
    plain = random_model(name).loss(batch).item()
    w = {key: value.detach().numpy() for key, value in random_model(name).named_parameters()}
    kernels = (w["user_table"] ** 2).sum() + (w["item_table"] ** 2).sum() + (w["image_weight"] ** 2).sum()
    assert random_model(name, l2=0.1).loss(batch).item() == pytest.approx(plain + 0.1 * kernels, rel=1e-10)
    users = (w["user_table"] ** 2).sum()
    assert random_model(name, l2_users=0.2).loss(batch).item() == pytest.approx(plain + 0.2 * users, rel=1e-10)
    if name == "imgrec-ft":
        layer = (w["layer.weight"] ** 2).sum()
        assert random_model(name, l2_layer=0.3).loss(batch).item() == pytest.approx(plain + 0.3 * layer, rel=1e-10)


def test_dir_and_ft_agree_when_their_phi_is_the_same() -> None:
    """FT with the identity as its layer on features that are not negative is Dir."""
    ft = random_model("imgrec-ft", units=N_FEATURES)
    assert isinstance(ft, ImgRecFT)
    directly = random_model("imgrec-dir")
    with torch.no_grad():
        ft.layer.weight.copy_(torch.eye(N_FEATURES))
        not_none(ft.layer.bias).zero_()
        for key, value in directly.named_parameters():
            ft.get_parameter(key).copy_(value)
    assert (ft.features >= 0).all()
    users = torch.arange(N_USERS)
    torch.testing.assert_close(ft.scorer().block(users), directly.scorer().block(users))


def test_contributions_sum_to_the_score() -> None:
    model = random_model("imgrec-ft")
    users, items = torch.arange(N_USERS), torch.arange(N_ITEMS).expand(N_USERS, N_ITEMS)
    parts = model.contributions(users, items)
    torch.testing.assert_close(sum(parts.values()), model.scorer().block(users))
    assert (parts["offset"] == parts["offset"][:, :1]).all()
    with pytest.raises(InputError, match="crelu=False"):
        random_model("imgrec-ft", crelu=True).contributions(users, items)


def test_initial_weights_have_keras_limits() -> None:
    """Glorot over the whole kernel, one-hot columns included; biases zero."""
    model = built(ImgRecFT, "imgrec-ft", toy_data(), factors=400, units=9)
    for table, rows in (
        (model.user_table, N_USERS),
        (model.item_table, N_ITEMS + 9),
        (model.image_weight, N_ITEMS + 9),
    ):
        limit = math.sqrt(6 / (rows + 400))
        assert table.abs().max().item() <= limit
        assert table.abs().max().item() > 0.99 * limit
    assert not model.user_bias.any() and not model.item_bias.any() and not not_none(model.layer.bias).any()


def test_profiles_hold_the_papers_and_the_scripts_values() -> None:
    paper, code, men = (resolve_profile("imgrec-ft", name) for name in ("paper", "code", "code-men"))
    assert (paper.parameters["factors"], paper.parameters["units"], paper.parameters["l2"]) == (20, 150, 0.0)
    assert (code.parameters["factors"], code.parameters["l2"]) == (30, 0.0)
    assert (men.parameters["factors"], men.parameters["crelu"], men.phases[0].learning_rate) == (20, True, 5e-4)
    assert (code.phases[0].batch_size, men.phases[0].batch_size) == (1024, 512)
    assert (code.phases[0].epochs, men.phases[0].epochs) == (150, 120)
    assert code.phases[0].restore == men.phases[0].restore == "last" and paper.phases[0].restore == "best"
    # A step sums the losses of its positives and as many negatives.
    assert [phase.epsilon * 2 * phase.batch_size for phase in (*code.phases, *men.phases)] == pytest.approx([1e-8] * 2)


def test_ete_has_the_scripts_of_both_datasets() -> None:
    fashion, men = (resolve_profile("imgrec-ete", name) for name in ("code", "code-men"))
    assert (fashion.parameters["factors"], men.parameters["factors"]) == (30, 20)
    assert ([phase.epochs for phase in fashion.phases], [phase.epochs for phase in men.phases]) == (
        [150, 130],
        [120, 120],
    )
    for profile in (fashion, men):
        last = profile.phases[1]
        assert (last.learning_rate, last.batch_size, last.epsilon, last.restore) == (5e-5, 256, 1e-7, "last")
        assert (profile.parameters["size"], profile.parameters["pooling"]) == (244, "max")


def test_an_l2_of_a_tenth_leaves_nothing_of_the_users() -> None:
    """Profile `literal`: after a hundred steps the users' table is gone, as its card says; `paper` keeps it."""
    dataset, features = planted_dataset()
    data = dataset.training_data(features, in_order=True)
    spread = {}
    for profile in ("paper", "literal"):
        model = built(ImgRecFT, "imgrec-ft", data, profile=profile)
        start = model.user_table.norm().item()
        train(model, data, steps=100, batch_size=256)
        spread[profile] = model.user_table.norm().item() / start
    assert spread["literal"] < 0.02 < 1 < spread["paper"]
