"""JRL against a loop written from its formulas, and its peculiar start."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from toy import N_FEATURES, N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models import build_model, resolve_profile
from imgrec_lib.models.base import TrainSettings
from imgrec_lib.models.jrl import JRL


def model_and_batch(seed: int = 0, n: int = 5, **parameters: Any) -> tuple[JRL, Batch]:
    data = toy_data()
    model = build_model("jrl", data, **{"factors": 4, "l2": 0.0, **parameters})
    assert isinstance(model, JRL)
    batch = model.sample(Sampler(data, seed), TrainSettings(batch_size=6, negatives=n))
    return model.double(), batch


def randomise(model: JRL) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def slow_loss(model: JRL, batch: Batch) -> float:
    """The formulas, number by number."""
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    features = model.features.numpy()

    def elu(x: np.ndarray) -> np.ndarray:
        return np.array([v if v > 0 else math.exp(v) - 1 for v in x])

    def decode(row: np.ndarray) -> np.ndarray:
        hidden = elu(w["decoder.0.weight"] @ row + w["decoder.0.bias"])
        return elu(w["decoder.2.weight"] @ hidden + w["decoder.2.bias"])

    def log_sigmoid(x: float) -> float:
        return -math.log(1 + math.exp(-x))

    total = 0.0
    for b in range(len(batch.users)):
        user, item = w["users"][int(batch.users[b])], int(batch.positives[b])
        for row in (user, w["items"][item]):
            total += model.image_weight * 0.5 * sum((decode(row) - features[item]) ** 2)
        total -= log_sigmoid(user @ w["items"][item] + w["item_bias"][item])
        for j in batch.negatives[b].tolist():
            total -= log_sigmoid(-(user @ w["items"][j] + w["item_bias"][j]))
    return total / len(batch.users)


@pytest.mark.parametrize("image_weight", [0.0, 1e-2, 1.0])
def test_loss_equals_the_formulas(image_weight: float) -> None:
    model, batch = model_and_batch(image_weight=image_weight)
    randomise(model)
    assert model.loss(batch).item() == pytest.approx(slow_loss(model, batch), rel=1e-12)


def test_first_step_moves_embeddings_only_by_reconstruction() -> None:
    model, batch = model_and_batch()
    assert not model.users.any() and not model.items.any() and not model.item_bias.any()
    model.ranking(batch).backward()
    assert model.users.grad is not None and model.items.grad is not None and model.item_bias.grad is not None
    assert not model.users.grad.any() and not model.items.grad.any()
    assert model.item_bias.grad.any()  # o has a gradient from the start
    model.zero_grad()
    model.loss(batch).backward()
    moved = model.users.grad.abs().sum(1) > 0
    assert set(moved.nonzero().flatten().tolist()) == set(batch.users.tolist())
    total = model.users.grad.clone()
    model.zero_grad()
    (model.image_weight * model.reconstruction(batch)).backward()
    assert torch.equal(total, model.users.grad)


def test_without_reconstruction_nothing_is_ever_learnt() -> None:
    data = toy_data()
    model = build_model("jrl", data, factors=4, image_weight=0.0, score_with_bias=False)
    sampler, optimiser = Sampler(data, 0), torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimiser.zero_grad()
        model.loss(model.sample(sampler, TrainSettings(batch_size=8, negatives=5))).backward()
        optimiser.step()
    assert not model.scorer().block(torch.arange(N_USERS)).any()


def test_decoder_is_shared_and_has_the_published_shape() -> None:
    model, _ = model_and_batch()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    hidden = (N_FEATURES + 4) // 2
    assert shapes == {
        "users": (N_USERS, 4),
        "items": (N_ITEMS, 4),
        "item_bias": (N_ITEMS,),
        "decoder.0.weight": (hidden, 4),
        "decoder.0.bias": (hidden,),
        "decoder.2.weight": (N_FEATURES, hidden),
        "decoder.2.bias": (N_FEATURES,),
    }


def test_negatives_are_shared_unfiltered_and_drawn_with_replacement() -> None:
    data = toy_data()
    model = build_model("jrl", data, factors=4)
    sampler = Sampler(data, 0)
    settings = TrainSettings(batch_size=16, negatives=5)
    batches = [model.sample(sampler, settings) for _ in range(800)]
    assert all(b.negatives.shape == (16, 5) and (b.negatives == b.negatives[0]).all() for b in batches)
    owned = torch.zeros(data.n_users, N_ITEMS, dtype=torch.bool)
    owned[data.interactions.users, data.interactions.items] = True
    assert all(owned[b.users, b.positives].all() for b in batches)
    drawn = torch.stack([b.negatives[0] for b in batches])
    assert any(len(row.unique()) < 5 for row in drawn)
    assert any(owned[b.users.unsqueeze(1), b.negatives].any() for b in batches)
    counts = torch.bincount(drawn.flatten(), minlength=N_ITEMS).double()
    expected = drawn.numel() / N_ITEMS
    assert ((counts - expected) ** 2 / expected).sum() < 67.98  # chi-square with 36 degrees of freedom, p = 0.001


def test_score_with_and_without_bias() -> None:
    model, _ = model_and_batch(score_with_bias=False)
    randomise(model)
    users = torch.arange(N_USERS)
    plain = model.scorer().block(users)
    torch.testing.assert_close(plain, (model.users @ model.items.T).detach())
    model.score_with_bias = True
    torch.testing.assert_close(model.scorer().block(users), plain + model.item_bias.detach())


def test_published_profiles() -> None:
    paper, code = resolve_profile("jrl", "paper"), resolve_profile("jrl", "code")
    for profile in (paper, code):
        (phase,) = profile.phases
        assert (phase.optimiser, phase.gradient_clip, phase.schedule) == ("sgd", 5.0, "linear")
        assert (phase.batch_size, phase.negatives) == (384, 5)
    assert (paper.parameters["factors"], paper.parameters["image_weight"]) == (300, 1e-4)
    assert (paper.phases[0].learning_rate, paper.phases[0].epochs) == (0.5, 20)
    assert (code.parameters["factors"], code.parameters["image_weight"]) == (100, 1.0)
    assert (code.phases[0].learning_rate, code.phases[0].epochs) == (0.05, 5)


@pytest.mark.slow
def test_learns_by_plain_gradient_descent() -> None:
    dataset, features = planted_dataset()
    data = dataset.training_data(features, in_order=True)
    model = build_model("jrl", data, factors=16, image_weight=1.0)
    sampler, optimiser = Sampler(data, 0), torch.optim.SGD(model.parameters(), lr=0.5)
    settings = TrainSettings(batch_size=64, negatives=5, positives_by="interaction")
    for _ in range(1000):
        optimiser.zero_grad()
        model.loss(model.sample(sampler, settings)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    scores = model.scorer().block(torch.arange(dataset.n_users)).numpy()
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items)
