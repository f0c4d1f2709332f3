"""GraphRec's look-ups against the dense one-hot layer that they stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from narrow import built, not_none
from toy import N_CATEGORIES, N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Batch, Sampler
from imgrec_lib.models import build_model
from imgrec_lib.models.graphrec import GraphRec
from imgrec_lib.models.parts.layers import crelu

EVERY_USER, EVERY_ITEM = torch.arange(N_USERS), torch.arange(N_ITEMS)


def data_with_cold_ends() -> TrainingData:
    """The toy data, without the interactions of user 2 and of item 3."""
    data = toy_data()
    old = data.interactions
    keep = (old.users != 2) & (old.items != 3)
    return replace(data, interactions=Interactions.from_pairs(old.users[keep], old.items[keep], N_USERS, N_ITEMS))


def random_model(data: TrainingData, **parameters: Any) -> GraphRec:
    small = {"factors": 4, "initial_scale": 0.3, "l2_users": 0.0, "l2_items": 0.0, **parameters}
    model = built(GraphRec, "graphrec", data, **small)
    with torch.no_grad():
        for side in (model.users, model.items):
            side.bias.copy_(torch.linspace(-0.5, 0.5, 4))
    return model.double()


def dense_layer(
    model: GraphRec, data: TrainingData, laplacian: bool, drop: tuple[int, int] | None = None
) -> tuple[np.ndarray, ...]:
    """h of all users and all items by a dense layer on [one-hot | adjacency row | degree | attributes], in float64.

    Args:
        drop: an edge (user, item) to be left out of the graph; norms and largest degrees stay those of the full one.
    """
    full = np.zeros((N_USERS, N_ITEMS))
    full[data.interactions.users, data.interactions.items] = 1
    entries = full.copy()
    if laplacian:
        user_norm, item_norm = np.maximum(full.sum(1), 1) ** -0.5, np.maximum(full.sum(0), 1) ** -0.5
        entries = user_norm[:, None] * full * item_norm
    graph = full.copy()
    if drop is not None:
        assert full[drop] == 1
        entries[drop] = graph[drop] = 0
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    outputs = []
    for side, rows, degree, largest in (
        ("users", entries, graph.sum(1), full.sum(1).max()),
        ("items", entries.T, graph.sum(0), full.sum(0).max()),
    ):
        inputs = [np.eye(len(rows)), rows, degree[:, None] / largest]
        kernel = [w[f"{side}.identity"], w[f"{side}.adjacency"], w[f"{side}.degree_weight"][None]]
        if side == "items" and model.features is not None:
            inputs.append(np.asarray(data.features, dtype=float))
            kernel.append(w["feature_weight"])
        if side == "items" and model.categories is not None:
            inputs.append(np.eye(N_CATEGORIES)[data.categories])
            kernel.append(w["category_table"])
        outputs.append(np.concatenate(inputs, 1) @ np.concatenate(kernel) + w[f"{side}.bias"])
    return tuple(outputs)


def dense_crelu(h: np.ndarray) -> np.ndarray:
    return np.concatenate([np.maximum(h, 0), np.maximum(-h, 0)], -1)


@pytest.mark.parametrize("laplacian", [False, True])
@pytest.mark.parametrize("attributes", [False, True])
def test_lookups_equal_the_dense_layer(laplacian: bool, attributes: bool) -> None:
    data = data_with_cold_ends()
    model = random_model(data, laplacian=laplacian, use_features=attributes, use_categories=attributes)
    users, items = dense_layer(model, data, laplacian)
    order = torch.randperm(N_USERS, generator=torch.Generator().manual_seed(0))  # bags in any order, repeats allowed
    some = torch.cat([order, order[:5]])
    np.testing.assert_allclose(model.user_layer(some).detach(), users[some], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.item_layer(EVERY_ITEM).detach(), items, rtol=1e-5, atol=1e-6)
    scores = model.scorer().block(EVERY_USER)
    np.testing.assert_allclose(scores, dense_crelu(users) @ dense_crelu(items).T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("only", [[2], [2, 2]])
def test_users_without_interactions(only: list[int]) -> None:
    data = data_with_cold_ends()
    model = random_model(data)
    side = model.users
    expected = (side.identity[2] + side.bias).expand(len(only), -1)
    torch.testing.assert_close(model.user_layer(torch.tensor(only)), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("laplacian", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_loss_equals_the_dense_graph_without_the_scored_edge(mask: bool, laplacian: bool) -> None:
    data = data_with_cold_ends()
    weights = {"l2_users": 0.3, "l2_items": 0.2}
    model = random_model(data, mask_own_edge=mask, laplacian=laplacian, **weights)
    batch = Sampler(data, 0).triples(9, 2)
    bce = user_norm = item_norm = 0.0
    for u, i, negatives in zip(batch.users.tolist(), batch.positives.tolist(), batch.negatives.tolist(), strict=True):
        h_users, h_items = dense_layer(model, data, laplacian, drop=(u, i) if mask else None)
        user = dense_crelu(h_users[u])
        user_norm += 0.5 * user @ user
        for item, sign in [(i, -1), *((j, 1) for j in negatives)]:
            z = dense_crelu(h_items[item])
            bce += np.log1p(np.exp(sign * (user @ z)))
            item_norm += 0.5 * z @ z
    expected = bce / 27 + 0.3 * user_norm / 9 + 0.2 * item_norm / 27
    assert model.loss(batch).item() == pytest.approx(expected, rel=1e-6)


def test_masking_matters_and_only_for_positives() -> None:
    data = toy_data()
    masked, plain = random_model(data, mask_own_edge=True), random_model(data, mask_own_edge=False)
    plain.load_state_dict(masked.state_dict())
    batch = Sampler(data, 0).triples(9, 1)
    assert masked.loss(batch).item() != plain.loss(batch).item()
    torch.testing.assert_close(masked.scorer().block(EVERY_USER), plain.scorer().block(EVERY_USER))


def test_masked_loss_does_not_see_the_label() -> None:
    """A user with one item and an item with one user: without their edge nothing of the tables' other side is left."""
    interactions = Interactions.from_pairs(np.array([0, 1]), np.array([0, 1]), 2, 3)
    data = TrainingData(interactions)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[2]]), None)
    for mask, leaks in ((True, False), (False, True)):
        model = built(GraphRec, "graphrec", data, factors=3, initial_scale=0.3, mask_own_edge=mask).double()
        model.loss(batch).backward()
        for side in (model.users, model.items):
            for weight in (side.adjacency, side.degree_weight):
                assert (not_none(weight.grad).abs().max() > 1e-9) == leaks


def test_crelu_doubles_the_width() -> None:
    h = torch.tensor([[1.0, -2.0, 0.0]])
    assert crelu(h).tolist() == [[1, 0, 0, 0, 2, 0]]
    model = random_model(toy_data())
    scorer = model.scorer()
    assert scorer.users.shape == (N_USERS, 8) and scorer.items.shape == (N_ITEMS, 8)
    assert (scorer.users >= 0).all() and (scorer.users[:, :4] * scorer.users[:, 4:] == 0).all()


@pytest.mark.parametrize("key", ["l2_users", "l2_items"])
def test_penalty_is_on_activations(key: str) -> None:
    data = toy_data()
    batch = Sampler(data, 0).triples(5, 1)
    off, on = random_model(data, mask_own_edge=False), random_model(data, mask_own_edge=False, **{key: 0.7})
    on.load_state_dict(off.state_dict())
    scorer = off.scorer()
    rows = (
        scorer.users[batch.users]
        if key == "l2_users"
        else scorer.items[torch.cat([batch.positives, batch.negatives[:, 0]])]
    )
    expected = 0.7 * 0.5 * rows.square().sum(1).mean()
    torch.testing.assert_close(on.loss(batch) - off.loss(batch), expected, rtol=1e-6, atol=0)


def test_attributes_are_optional() -> None:
    data = toy_data()
    bare = replace(data, features=None, categories=None, n_categories=0)
    names = {name for name, _ in build_model("graphrec", bare).named_parameters()}
    off = build_model("graphrec", data, use_features=False, use_categories=False)
    assert names == {name for name, _ in off.named_parameters()}
    everything = {name for name, _ in build_model("graphrec", data).named_parameters()}
    assert everything - names == {"feature_weight", "category_table"}


def test_initial_scale() -> None:
    model = build_model("graphrec", toy_data(), factors=64)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.numel() > 500:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("mask", [False, True])
def test_learns_planted_tastes_without_attributes(mask: bool) -> None:
    dataset, _ = planted_dataset()
    data = replace(dataset.training_data(), categories=None, n_categories=0)
    model = build_model("graphrec", data, factors=8, mask_own_edge=mask)
    sampler, optimiser = Sampler(data, 0), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        model.loss(sampler.triples(256)).backward()
        optimiser.step()
    scores = model.scorer().block(torch.arange(dataset.n_users)).numpy()
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items)
