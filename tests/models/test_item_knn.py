"""ItemKNN, with and without pictures, against slow loops from its formula and scikit-learn; baskets, tiles, sizes."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import built
from sklearn.metrics.pairwise import cosine_similarity
from toy import N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data, toy_interactions

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.features import Features
from imgrec_lib.features.controls import with_control
from imgrec_lib.models import build_model, item_knn_visual
from imgrec_lib.models.base import Baskets, Recommender, Sliceable
from imgrec_lib.models.item_knn import ItemKNN, nearest, shrunk_cosine
from imgrec_lib.models.item_knn_visual import VisualItemKNN

EVERYONE = torch.arange(N_USERS)


def users_of(data: TrainingData) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(N_ITEMS)]
    for u, i in zip(data.interactions.users.tolist(), data.interactions.items.tolist(), strict=True):
        found[i].add(u)
    return found


def together(data: TrainingData, shrink: float) -> list[list[float]]:
    """c_ij of all pairs, item by item."""
    users = users_of(data)
    return [
        [
            len(users[i] & users[j]) / (math.sqrt(len(users[i]) * len(users[j])) + shrink)
            if i != j and users[i] & users[j]
            else 0.0
            for j in range(N_ITEMS)
        ]
        for i in range(N_ITEMS)
    ]


def likeness(data: TrainingData) -> list[list[float]]:
    """v_ij of all pairs: cosines of the features, the mean of the items with a picture taken off."""
    assert data.features is not None
    rows = [row.astype(np.float64) for row in data.features]
    seen = [row for row in rows if row.any()]
    mean = sum(seen) / len(seen)

    def cosine(i: int, j: int) -> float:
        if not rows[i].any() or not rows[j].any():
            return 0.0
        a, b = rows[i] - mean, rows[j] - mean
        return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))

    return [[cosine(i, j) for j in range(N_ITEMS)] for i in range(N_ITEMS)]


def scores(model: Recommender) -> np.ndarray:
    return model.scorer().block(EVERYONE).numpy()


@pytest.mark.parametrize(("shrink", "popularity"), [(0.0, 0.0), (10.0, 0.3)])
def test_it_follows_its_formula(shrink: float, popularity: float) -> None:
    data = toy_data()
    model = build_model("item-knn", data, shrink=shrink, popularity=popularity)
    c, counts = together(data, shrink), [len(users) for users in users_of(data)]
    expected = [
        [
            sum(c[i][j] for j in data.interactions.of(u).tolist()) + popularity * math.log(1 + counts[i])
            for i in range(N_ITEMS)
        ]
        for u in range(N_USERS)
    ]
    np.testing.assert_allclose(scores(model), expected, rtol=1e-5, atol=1e-6)


def test_without_shrinking_the_weights_are_scikit_learns_cosines() -> None:
    interactions = toy_interactions(n_users=60, n_items=41, high=12, seed=3)
    bought = np.zeros((60, 41))
    bought[interactions.users, interactions.items] = 1
    expected = cosine_similarity(bought.T)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(shrunk_cosine(interactions, 0).toarray(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 4.0])
@pytest.mark.parametrize("remembered", [True, False])
def test_with_pictures_it_follows_its_formula(power: float, remembered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn_visual, "REMEMBERED", 2**27 if remembered else 0)
    data = toy_data()
    model = build_model("item-knn-visual", data, shrink=2.0, popularity=0.3, pictures=0.7, power=power)
    c, v, counts = together(data, 2.0), likeness(data), [len(users) for users in users_of(data)]
    expected = [
        [
            sum(c[i][j] + 0.7 * max(0.0, v[i][j]) ** power for j in data.interactions.of(u).tolist())
            + 0.3 * math.log(1 + counts[i])
            for i in range(N_ITEMS)
        ]
        for u in range(N_USERS)
    ]
    np.testing.assert_allclose(scores(model), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_nearest_are_kept_and_what_ties_with_the_last(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(0, 4, (7, 9)).astype(np.float32) / 4  # many ties
    from scipy import sparse

    found = nearest(sparse.csr_matrix(dense), k).toarray()
    for row, kept in zip(dense.tolist(), found.tolist(), strict=True):
        stored = sorted((value for value in row if value), reverse=True)
        least = stored[k - 1] if len(stored) > k else 0.0
        assert kept == [value if value and value >= least else 0.0 for value in row]


def test_neighbours_change_the_score_of_far_items_alone() -> None:
    data = toy_data()
    everyone, few = (built(ItemKNN, "item-knn", data, neighbours=k) for k in (0, 3))
    user = int(data.interactions.history_lengths.argmax())
    all_weights, kept = (m.purchase_similarity(user, torch.arange(N_ITEMS)).numpy() for m in (everyone, few))
    assert ((kept == all_weights) | (kept == 0)).all() and ((kept > 0).sum(0) >= 3).all()
    assert (kept > 0).sum() < (all_weights > 0).sum()
    expected = kept.sum(1) + 0.01 * np.log1p(data.interactions.popularity)
    np.testing.assert_allclose(scores(few)[user], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["item-knn", "item-knn-visual"])
@pytest.mark.parametrize("remembered", [True, False])
def test_tiles_are_columns_of_the_block(name: str, remembered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn_visual, "REMEMBERED", 2**27 if remembered else 0)
    scorer = build_model(name, toy_data()).scorer()
    assert isinstance(scorer, Sliceable)
    users = torch.tensor([4, 4, 0, 22])
    block, memory = scorer.block(users), torch.full((4, 12), torch.nan)
    for start in (0, 5, 25):
        tile = scorer.tile(users, slice(start, start + 12), memory)
        torch.testing.assert_close(tile, block[:, start : start + 12], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["item-knn", "item-knn-visual"])
def test_a_known_user_as_a_basket_gets_the_same_scores(name: str) -> None:
    data = toy_data()
    model = build_model(name, data)
    assert isinstance(model, Baskets)
    order = np.array([9, 0, 17])
    baskets = [data.interactions.of(u) for u in order]
    pairs = np.repeat([0, 2, 3], [len(b) for b in baskets]), np.concatenate(baskets)
    found = model.score_baskets(Interactions.from_pairs(*pairs, 4, N_ITEMS)).numpy()
    assert found.shape == (4, N_ITEMS) and found.dtype == np.float32
    np.testing.assert_allclose(found[[0, 2, 3]], scores(model)[order], rtol=1e-6)
    # Of an empty basket nothing is known: the order is that of popularity.
    np.testing.assert_allclose(found[1], 0.01 * np.log1p(data.interactions.popularity), rtol=1e-6)


def test_purchases_make_the_score() -> None:
    data = toy_data()
    model = built(VisualItemKNN, "item-knn-visual", data)
    offset = 0.01 * torch.as_tensor(data.interactions.popularity).float().log1p()
    for user in range(N_USERS):
        weights = model.purchase_similarity(user, torch.arange(N_ITEMS))
        assert weights.shape == (N_ITEMS, len(data.interactions.of(user)))
        torch.testing.assert_close(weights.sum(1) + offset, model.scorer().block(torch.tensor([user]))[0])


def test_shuffled_pictures_lose() -> None:
    """The control: on data where looks decide, each item with another one's picture ranks worse, and no better than
    without any."""
    dataset, values = planted_dataset()
    features = Features(values, {}, "planted")
    everyone = torch.arange(dataset.n_users)
    found = {}
    weight = {"pictures": 0.3, "power": 2.0}
    cases: tuple[tuple[str, str | None, dict[str, Any]], ...] = (
        ("item-knn-visual", None, weight),
        ("item-knn-visual", "shuffled pictures", weight),
        ("item-knn", None, {}),
    )
    for name, control, parameters in cases:
        data = dataset.training_data(with_control(features, control))
        table = build_model(name, data, popularity=0.0, **parameters).scorer().block(everyone).numpy()
        found[name, control] = exact_auc(table, dataset, dataset.test.items)
    own, shuffled, without = found.values()
    assert own > without + 0.005 and shuffled < without - 0.005


def test_memory_follows_interactions_and_not_the_square_of_the_catalogue() -> None:
    """100,000 items: their square would take 40 GB."""
    interactions = toy_interactions(n_users=300, n_items=100_000, seed=1)
    features = np.random.default_rng(0).random((100_000, 4), dtype=np.float32)
    data = TrainingData(interactions, features=features)
    tracemalloc.start()
    for name in ("item-knn", "item-knn-visual"):
        scorer = build_model(name, data).scorer()
        assert isinstance(scorer, Sliceable)
        tile = scorer.tile(torch.arange(300), slice(5000, 6000))
        assert tile.shape == (300, 1000) and tile.isfinite().all()
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_without_any_picture_it_is_item_knn() -> None:
    data = toy_data()
    assert data.features is not None
    blank = replace(data, features=np.zeros_like(data.features))
    settings: dict[str, Any] = {"shrink": 3.0, "popularity": 0.2}
    plain, visual = (build_model(name, blank, **settings) for name in ("item-knn", "item-knn-visual"))
    np.testing.assert_array_equal(scores(plain), scores(visual))
