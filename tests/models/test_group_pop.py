"""The rule "same group, then popularity" against its words, taken literally."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrow import not_none
from toy import N_ITEMS, N_USERS, best_items, planted_dataset, toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import evaluate
from imgrec_lib.models import build_model
from imgrec_lib.models.base import Baskets, Sliceable


def test_variants_come_first_and_popularity_orders_both() -> None:
    data = toy_data()
    assert data.groups is not None
    counts = Counter(data.interactions.items.tolist())
    lists, _ = best_items(build_model("group-pop", data), data, range(N_USERS), k=N_ITEMS, exclude_seen=False)
    for user, found in enumerate(lists.tolist()):
        groups = {data.groups[i] for i in data.interactions.of(user)}
        assert found == sorted(range(N_ITEMS), key=lambda i: (not_none(data.groups)[i] not in groups, -counts[i], i))


def test_the_score_is_its_formula() -> None:
    data = toy_data()
    assert data.groups is not None
    logs = np.log1p(data.interactions.popularity)
    shares = [
        [any(data.groups[i] == data.groups[j] for j in data.interactions.of(u)) for i in range(N_ITEMS)]
        for u in range(N_USERS)
    ]
    scorer = build_model("group-pop", data).scorer()
    assert isinstance(scorer, Sliceable)
    expected = logs + (1 + logs.max()) * np.array(shares)
    np.testing.assert_allclose(scorer.block(torch.arange(N_USERS)).numpy(), expected, rtol=1e-6)
    tile = scorer.tile(torch.tensor([5, 1]), slice(10, 20)).numpy()
    np.testing.assert_allclose(tile, expected[[5, 1], 10:20], rtol=1e-6)


def test_where_every_item_is_a_group_of_its_own_it_is_popularity() -> None:
    dataset, _ = planted_dataset()
    data = replace(dataset.training_data(), groups=np.arange(dataset.n_items))
    by_group, by_popularity = (evaluate(build_model(name, data), dataset).per_user for name in ("group-pop", "poprank"))
    columns = ["exact/higher", "exact/tied"]
    assert (by_group[columns] == by_popularity[columns]).all().all()


def test_a_known_user_as_a_basket_gets_the_same_scores() -> None:
    data = toy_data()
    model = build_model("group-pop", data)
    assert isinstance(model, Baskets)
    first = data.interactions.of(3)
    found = model.score_baskets(Interactions.from_pairs(np.zeros_like(first), first, 2, N_ITEMS))
    assert torch.equal(found[0], model.scorer().block(torch.tensor([3]))[0])
    assert torch.equal(found[1], torch.as_tensor(np.log1p(data.interactions.popularity)).float())


def test_it_says_what_it_lacks() -> None:
    with pytest.raises(
        InputError, match=r"Same group, then Pop needs groups, .* add a 'group' column to the item table"
    ):
        build_model("group-pop", TrainingData(toy_data().interactions))
