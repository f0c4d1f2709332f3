"""EASE against one ridge regression an item, its limit of memory, and baskets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from narrow import built
from sklearn.linear_model import Ridge
from toy import N_ITEMS, N_USERS, exact_auc, planted_dataset, toy_data, toy_interactions

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.models import build_model
from imgrec_lib.models.base import Baskets, Sliceable
from imgrec_lib.models.ease import EASE


def bought(interactions: Interactions) -> np.ndarray:
    matrix = np.zeros((interactions.n_users, interactions.n_items))
    matrix[interactions.users, interactions.items] = 1
    return matrix


@pytest.mark.parametrize("l2", [0.5, 30.0])
def test_each_item_is_a_ridge_regression_on_all_others(l2: float) -> None:
    """What the constraint of a diagonal of zeros means: item i's column is predicted from the others alone."""
    data = toy_data()
    x = bought(data.interactions)
    expected = np.empty_like(x)
    for item in range(N_ITEMS):
        others = np.delete(x, item, axis=1)
        model = Ridge(alpha=l2, fit_intercept=False, solver="svd").fit(others, x[:, item])
        expected[:, item] = others @ model.coef_
    found = build_model("ease", data, l2=l2).scorer().block(torch.arange(N_USERS)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_items_that_nobody_bought_have_no_weight() -> None:
    interactions = toy_interactions(n_users=5, n_items=50)
    never = interactions.popularity == 0
    assert never.any()
    scores = build_model("ease", TrainingData(interactions)).scorer().block(torch.arange(5)).numpy()
    assert (scores[:, never] == 0).all() and (scores[:, ~never] != 0).any()


def test_purchases_make_the_score() -> None:
    data = toy_data()
    model = built(EASE, "ease", data)
    for user in range(N_USERS):
        weights = model.purchase_similarity(user, torch.arange(N_ITEMS))
        assert weights.shape == (N_ITEMS, len(data.interactions.of(user)))
        # An item is nothing to itself.
        assert all(weights[item, k] == 0 for k, item in enumerate(data.interactions.of(user)))
        torch.testing.assert_close(weights.sum(1), model.scorer().block(torch.tensor([user]))[0])


def test_tiles_are_columns_of_the_block() -> None:
    scorer = build_model("ease", toy_data()).scorer()
    assert isinstance(scorer, Sliceable)
    users = torch.tensor([4, 4, 0, 22])
    block, memory = scorer.block(users), torch.full((4, 12), torch.nan)
    for start in (0, 5, 25):
        tile = scorer.tile(users, slice(start, start + 12), memory)
        torch.testing.assert_close(tile, block[:, start : start + 12], rtol=1e-6, atol=1e-7)


def test_a_known_user_as_a_basket_gets_the_same_scores() -> None:
    data = toy_data()
    model = build_model("ease", data)
    assert isinstance(model, Baskets)
    order = np.array([9, 0, 17])
    baskets = [data.interactions.of(u) for u in order]
    pairs = np.repeat([0, 2, 3], [len(b) for b in baskets]), np.concatenate(baskets)
    found = model.score_baskets(Interactions.from_pairs(*pairs, 4, N_ITEMS))
    torch.testing.assert_close(found[[0, 2, 3]], model.scorer().block(torch.as_tensor(order)))
    assert (found[1] == 0).all()


def test_it_learns_planted_tastes() -> None:
    dataset, _ = planted_dataset()
    scores = build_model("ease", dataset.training_data(), l2=10.0).scorer().block(torch.arange(dataset.n_users)).numpy()
    popularity = np.tile(dataset.train.popularity, (dataset.n_users, 1))
    assert exact_auc(scores, dataset, dataset.test.items) > exact_auc(popularity, dataset, dataset.test.items) + 0.1


def test_what_does_not_fit_into_memory_is_refused_before_it_is_asked_for() -> None:
    data = TrainingData(toy_interactions(n_items=200_000))
    with pytest.raises(
        InputError, match=r"for 200,000 items that takes 640\.0 GB of memory, more than its limit of 8;"
    ):
        build_model("ease", data)
    with pytest.raises(InputError, match="raise its parameter gigabytes"):
        build_model("ease", toy_data(), gigabytes=1e-6)
