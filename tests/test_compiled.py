"""The compiled loops against plain Python, and against the tensor operations that take their place on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgrec_lib import compiled
from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.evaluation.ranking import compare_on_cpu, compare_tile
from imgrec_lib.models.base import distinct


@settings(deadline=None)
@given(st.lists(st.integers(-3, 12) | st.integers(2**40, 2**40 + 2), max_size=40))
def test_distinct_values_in_the_order_of_their_first_occurrence(values: list[int]) -> None:
    different, places = compiled.distinct(np.array(values, dtype=np.int64))
    assert different.tolist() == list(dict.fromkeys(values))
    assert different[places].tolist() == values


def test_distinct_items_keep_the_shape_of_the_batch() -> None:
    items = torch.tensor([[7, 3], [3, 9], [7, 7]])
    different, place = distinct(items)
    assert different.tolist() == [7, 3, 9]
    assert place.tolist() == [[0, 1], [1, 2], [0, 0]]


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 8), max_size=8), min_size=1, max_size=5), st.integers(9, 11))
def test_every_item_that_a_user_does_not_own_has_its_rank(owned: list[set[int]], n_items: int) -> None:
    owned = [*owned, {0}]  # a sampler needs a user to draw
    pairs = np.array([(user, item) for user, items in enumerate(owned) for item in items])
    interactions = Interactions.from_pairs(pairs[:, 0], pairs[:, 1], len(owned), n_items)
    sampler = Sampler(TrainingData(interactions), 0)
    for user, items in enumerate(owned):
        others = sorted(set(range(n_items)) - items)
        users, ranks = torch.tensor([user]), torch.arange(len(others)).unsqueeze(0)
        assert sampler._not_owned(users, ranks).tolist() == [others]
        assert sampler._not_owned_on_cpu(users, ranks).tolist() == [others]


@settings(deadline=None)
@given(st.integers(0, 70), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 2**31))
def test_scores_are_counted_and_summed_up(width: int, numbers: list[int], seed: int) -> None:
    """Few different scores, so that many tie; the counts are added to what was there. Some rows have several limits."""
    rows, places = len(numbers), sum(numbers)
    scores = torch.randint(-2, 3, (rows, width), generator=torch.Generator().manual_seed(seed)).float()
    reference, starts = torch.arange(places).float() % 4 - 1, torch.tensor([0, *np.cumsum(numbers).tolist()])
    for compare in (compare_tile, compare_on_cpu):
        above, equal, sums = torch.arange(places), torch.ones(places, dtype=torch.int64), torch.full((rows,), 0.5)
        counted = starts, reference, above, equal, sums
        compare(scores, *(counted if compare is compare_tile else (each.numpy() for each in counted)))
        for row, values in enumerate(scores.tolist()):
            for place in range(int(starts[row]), int(starts[row + 1])):
                limit = float(reference[place])
                assert above[place] == place + sum(value > limit for value in values)
                assert equal[place] == 1 + values.count(limit)
            assert sums[row] == 0.5 + sum(values)


def test_a_score_that_is_not_finite_shows_in_the_sum() -> None:
    """Also among finite ones of other sign: no order of adding up makes a number of it."""
    for broken in (np.nan, np.inf, -np.inf):
        scores = torch.zeros(3, 100)
        scores[1, 57] = broken
        sums = np.zeros(3, np.float32)
        compare_on_cpu(scores, np.arange(4), np.zeros(3, np.float32), *np.zeros((2, 3), np.int64), sums)
        assert np.isfinite(sums).tolist() == [True, False, True]
