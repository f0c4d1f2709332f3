"""FREEDOM against slow loops in float64, written from the paper: both graphs, the scores, the loss, the pruning."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance import randomised
from graphs import by_neighbours, picture_of
from narrow import built
from scipy import sparse, stats
from toy import N_ITEMS, N_USERS, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.models.base import Recommender
from imgrec_lib.models.freedom import FREEDOM, keep_edges, nearest_items
from imgrec_lib.training import fit


def model_of(data: TrainingData, **parameters: Any) -> FREEDOM:
    return randomised(built(FREEDOM, "freedom", data, **{"factors": 4, **parameters}).double())


def alike(data: TrainingData, k: int) -> np.ndarray:
    """S: each item's k nearest by cosine, itself among them, over sqrt(d_i d_j); item 0 has no features."""
    assert data.features is not None
    rows = data.features.astype(np.float64)
    edges = np.zeros((N_ITEMS, N_ITEMS))
    for i in range(1, N_ITEMS):
        cosine = [
            float(rows[i] @ rows[j]) / math.sqrt(float(rows[i] @ rows[i]) * float(rows[j] @ rows[j])) if j else -2.0
            for j in range(N_ITEMS)
        ]
        edges[i, sorted(range(N_ITEMS), key=lambda j: -cosine[j])[:k]] = 1
    degree = edges.sum(1)
    scaled = [
        [edges[i, j] / math.sqrt(degree[i] * degree[j]) if edges[i, j] else 0.0 for j in range(N_ITEMS)]
        for i in range(N_ITEMS)
    ]
    return np.array(scaled)


def propagated(
    model: Recommender, data: TrainingData, layers: int, k: int, item_layers: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users, items = by_neighbours(model, data.interactions, layers)
    h = model.get_parameter("items").detach().numpy()
    for _ in range(item_layers):
        h = alike(data, k) @ h
    return users, items, h


@pytest.mark.parametrize(("k", "item_layers"), [(1, 1), (5, 1), (5, 2), (60, 1)])
def test_scores_follow_the_formula(k: int, item_layers: int) -> None:
    data = toy_data()
    model = model_of(data, neighbours=k, item_layers=item_layers)
    users, items, h = propagated(model, data, 2, min(k, N_ITEMS - 1), item_layers)
    expected = [[float(users[u] @ (items[i] + h[i])) for i in range(N_ITEMS)] for u in range(N_USERS)]
    found = model.scorer().block(torch.arange(N_USERS)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("pruned", [False, True])
def test_the_loss_follows_the_formula(negatives: int, pruned: bool) -> None:
    data = toy_data()
    model = model_of(data, neighbours=5, feature_weight=0.7, pruning=0.5)
    interactions = data.interactions
    if pruned:
        model.start_epoch(Sampler(data, seed=4))
        rows, columns = model.pruned.matrix.to_dense().numpy()[:N_USERS, N_USERS:].nonzero()
        interactions = Interactions.from_pairs(rows, columns, N_USERS, N_ITEMS)
        assert len(interactions) == len(data.interactions) // 2
    users, items, h = propagated(model, replace(data, interactions=interactions), 2, 5)
    assert data.features is not None
    features = data.features.astype(np.float64) / data.features.max()
    (weight,) = (p.detach().numpy() for p in picture_of(model).layer.parameters())
    batch = Sampler(data, seed=2).triples(9, negatives)

    def ranked(score: list[list[float]]) -> float:
        terms = [
            math.log1p(math.exp(score[u][j] - score[u][i]))
            for u, i, others in zip(
                batch.users.tolist(), batch.positives.tolist(), batch.negatives.tolist(), strict=True
            )
            for j in others
        ]
        return sum(terms) / len(terms)

    by_id = [[float(users[u] @ (items[i] + h[i])) for i in range(N_ITEMS)] for u in range(N_USERS)]
    # Any bias is the same for all items of a user, and cancels.
    bias = np.array([3.0, -1.0, 0.5, 2.0])
    by_look = [[float(users[u] @ (weight @ features[i] + bias)) for i in range(N_ITEMS)] for u in range(N_USERS)]
    assert model.loss(batch).item() == pytest.approx(ranked(by_id) + 0.7 * ranked(by_look), rel=1e-6)


def test_evaluation_sees_the_whole_graph() -> None:
    data = toy_data()
    model = model_of(data)
    before = model.scorer().block(torch.arange(N_USERS))
    batch = Sampler(data, seed=2).triples(9, 1)
    whole = model.loss(batch).item()
    model.start_epoch(Sampler(data, seed=4))
    assert model.loss(batch).item() != pytest.approx(whole, rel=1e-3)
    assert torch.equal(model.scorer().block(torch.arange(N_USERS)), before)


def test_each_epoch_prunes_anew_and_a_sampler_of_the_same_state_prunes_alike() -> None:
    data = toy_data()
    model, sampler = model_of(data), Sampler(data, seed=4)
    graphs = []
    for _ in range(2):
        model.start_epoch(sampler)
        graphs.append(model.pruned.matrix.to_dense())
    assert not torch.equal(*graphs)
    model.start_epoch(Sampler(data, seed=4))
    assert torch.equal(model.pruned.matrix.to_dense(), graphs[0])
    none = model_of(data, pruning=0.0)
    none.start_epoch(sampler)
    assert none.pruned is none.graph


def test_a_stopped_training_prunes_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    data = toy_data()
    options: dict[str, Any] = {
        "seed": 3,
        "progress": False,
        "checkpoint": tmp_path / "training.safetensors",
        "save_every": 0.0,
    }

    def build() -> FREEDOM:
        return built(FREEDOM, "freedom", data, factors=4, epochs=4, patience=0, batch_size=16)

    class Stopped(Exception):
        pass

    calls = 0

    def validate(model: Recommender) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Stopped
        return calls / 10

    with pytest.raises(Stopped):
        fit(build(), data, validate, **options)
    resumed, undisturbed = build(), build()
    fit(resumed, data, validate, **options)
    calls = 10
    fit(undisturbed, data, validate, seed=3, progress=False)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert torch.equal(resumed.pruned.matrix.to_dense(), undisturbed.pruned.matrix.to_dense())


@pytest.mark.slow
def test_edges_are_kept_by_sequential_draws_without_replacement() -> None:
    """Four interactions of different degrees, two of them kept: the chance of each pair, by enumeration."""
    bought = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32))
    edges = list(zip(*(each.tolist() for each in bought.nonzero()), strict=True))
    degrees = np.asarray(bought.sum(1)).ravel(), np.asarray(bought.sum(0)).ravel()
    weights = [1 / math.sqrt(degrees[0][u] * degrees[1][i]) for u, i in edges]
    assert len(set(weights)) > 1
    chances: dict[frozenset[tuple[int, int]], float] = {}
    for a, b in itertools.permutations(range(4), 2):
        chance = weights[a] / sum(weights) * weights[b] / (sum(weights) - weights[a])
        chances[frozenset((edges[a], edges[b]))] = chances.get(frozenset((edges[a], edges[b])), 0.0) + chance
    buyers, bought_items = np.array(edges).T
    items = Interactions.from_pairs(buyers, bought_items, 3, 3)
    sampler, counts = Sampler(TrainingData(items), seed=0), dict.fromkeys(chances, 0)
    for _ in range(4000):
        kept = keep_edges(bought, 0.5, sampler)
        assert kept.nnz == 2 and kept.shape == (3, 3)
        counts[frozenset(zip(*(each.tolist() for each in kept.nonzero()), strict=True))] += 1
    expected = [4000 * chances[pair] for pair in chances]
    assert stats.chisquare([counts[pair] for pair in chances], expected).pvalue > 1e-3


def test_an_item_without_features_is_in_no_neighbourhood() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    found = nearest_items(features, 2).toarray()
    np.testing.assert_array_equal(found, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]])
    assert nearest_items(torch.zeros(3, 2), 2).nnz == 0
    blank = replace(toy_data(), features=np.zeros((N_ITEMS, 3), np.float32))
    assert model_of(blank).scorer().block(torch.arange(N_USERS)).isfinite().all()
