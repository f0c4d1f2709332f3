"""iALS against slow loops from Hu, Koren and Volinsky's equations; what it minimises; baskets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from narrow import built
from toy import N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.models import build_model, ials
from imgrec_lib.models.base import Baskets
from imgrec_lib.models.ials import IALS


def objective(x: np.ndarray, y: np.ndarray, interactions: Interactions, alpha: float, l2: float) -> float:
    """The sum over all pairs that is minimised, pair by pair."""
    total = l2 * (float((x**2).sum()) + float((y**2).sum()))
    for u in range(len(x)):
        owned = set(interactions.of(u).tolist())
        for i in range(len(y)):
            wanted, confidence = (1.0, 1.0 + alpha) if i in owned else (0.0, 1.0)
            total += confidence * (wanted - float(x[u] @ y[i])) ** 2
    return total


def best_users(y: np.ndarray, interactions: Interactions, alpha: float, l2: float) -> np.ndarray:
    """Equation 4, user by user, with the diagonal matrix of confidences written out."""
    found = []
    for u in range(interactions.n_users):
        preference = np.zeros(len(y))
        preference[interactions.of(u)] = 1
        confidence = np.diag(1 + alpha * preference)
        found.append(np.linalg.solve(y.T @ confidence @ y + l2 * np.eye(y.shape[1]), y.T @ confidence @ preference))
    return np.array(found)


def factors(data: TrainingData, **parameters: Any) -> tuple[np.ndarray, np.ndarray]:
    model = built(IALS, "ials", data, **parameters)
    return model.users.double().numpy(), model.items.double().numpy()


# Histories have 2 to 8 items: with 3 factors most are longer, with 12 all are shorter than the factors.
@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize(("alpha", "l2"), [(0.0, 0.3), (7.0, 2.0)])
@pytest.mark.parametrize("numbers", [ials.NUMBERS, 1])
def test_each_turn_is_the_solution_of_its_equations(
    k: int, alpha: float, l2: float, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ials, "NUMBERS", numbers)  # 1: one system at a time
    data = toy_data()
    settings = {"factors": k, "alpha": alpha, "l2": l2}
    x, y = factors(data, iterations=4, **settings)
    np.testing.assert_allclose(x, best_users(y, data.interactions, alpha, l2), rtol=1e-4, atol=1e-6)
    # One more iteration is the items' turn on these users, and the users' on those items.
    more_x, more_y = factors(data, iterations=5, **settings)
    by_item = Interactions.from_pairs(data.interactions.items, data.interactions.users, N_ITEMS, N_USERS)
    np.testing.assert_allclose(more_y, best_users(x, by_item, alpha, l2), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(more_x, best_users(more_y, data.interactions, alpha, l2), rtol=1e-4, atol=1e-6)


def test_it_reaches_a_minimum() -> None:
    data = toy_data()
    settings = {"factors": 3, "alpha": 7.0, "l2": 2.0}
    values = [
        objective(*factors(data, iterations=n, **settings), data.interactions, 7.0, 2.0) for n in (1, 2, 5, 200, 201)
    ]
    assert values[0] > values[1] > values[2] > values[3] and values[3] == pytest.approx(values[4], rel=1e-6)
    x, y = factors(data, iterations=200, **settings)
    rng = np.random.default_rng(0)
    for _ in range(10):  # no way leads down from there
        steps = (1e-2 * rng.normal(size=table.shape) for table in (x, y))
        assert objective(x + next(steps), y + next(steps), data.interactions, 7.0, 2.0) > values[3]


def test_who_bought_nothing_and_what_nobody_bought_are_zero() -> None:
    interactions = Interactions.from_pairs(np.array([0, 0, 2]), np.array([1, 4, 1]), 4, 6)
    model = built(IALS, "ials", TrainingData(interactions), factors=2)
    assert (model.users[[1, 3]] == 0).all() and (model.items[[0, 2, 3, 5]] == 0).all()
    assert (model.users[[0, 2]] != 0).any() and model.scorer().block(torch.arange(4)).isfinite().all()


@pytest.mark.parametrize("k", [3, 12])
def test_a_known_user_as_a_basket_gets_the_same_scores(k: int) -> None:
    data = toy_data()
    model = build_model("ials", data, factors=k)
    assert isinstance(model, Baskets)
    order = np.array([9, 0, 17])
    baskets = [data.interactions.of(u) for u in order]
    pairs = np.repeat([0, 2, 3], [len(b) for b in baskets]), np.concatenate(baskets)
    found = model.score_baskets(Interactions.from_pairs(*pairs, 4, N_ITEMS))
    known = model.scorer().block(torch.as_tensor(order))
    torch.testing.assert_close(found[[0, 2, 3]], known, rtol=1e-5, atol=1e-6)
    assert (found[1] == 0).all()


def test_a_long_history_among_short_ones() -> None:
    """Batches are cut by memory: the longest history alone, the short ones together."""
    rng = np.random.default_rng(0)
    lengths = np.array([2, 190, 3, 1, 40, 2])
    items = np.concatenate([rng.choice(200, n, replace=False) for n in lengths])
    interactions = Interactions.from_pairs(np.repeat(np.arange(6), lengths), items, 6, 200)
    x, y = factors(TrainingData(interactions), factors=5, alpha=2.0, l2=1.0)
    np.testing.assert_allclose(x, best_users(y, interactions, 2.0, 1.0), rtol=1e-4, atol=1e-6)


def test_it_learns_planted_tastes() -> None:
    dataset, _ = planted_dataset()
    model = build_model("ials", dataset.training_data(), factors=4, alpha=5.0, l2=5.0)
    scores = model.scorer().block(torch.arange(dataset.n_users)).numpy()
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items) + 0.1
