"""Metrics from counts, against brute force over every order of the tied items."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgrec_lib.evaluation.metrics import auc, auc_strict, hit_ratio, ndcg, summary, tie_share, user_values


def one(*values: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([v]) for v in values)


@given(st.integers(0, 15), st.integers(0, 30), st.integers(1, 12))
def test_hit_ratio_and_ndcg_are_means_over_all_positions_among_the_ties(higher: int, tied: int, k: int) -> None:
    ranks = range(higher, higher + tied + 1)
    hits = [float(rank < k) for rank in ranks]
    gains = [1 / math.log2(rank + 2) if rank < k else 0.0 for rank in ranks]
    assert hit_ratio(*one(higher, tied), k=k)[0] == pytest.approx(np.mean(hits))
    assert ndcg(*one(higher, tied), k=k)[0] == pytest.approx(np.mean(gains))


def test_ndcg_equals_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 9, 30).astype(float)
        relevant = np.zeros(30)
        relevant[0] = 1
        counts = one((scores[1:] > scores[0]).sum(), (scores[1:] == scores[0]).sum())
        # scikit-learn, too, averages over the orders of ties.
        assert ndcg(*counts)[0] == pytest.approx(ndcg_score([relevant], [scores], k=10))


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=25), st.integers(-2, 2))
def test_auc_counts_pairs(negatives: list[int], positive: int) -> None:
    counts = one(sum(n > positive for n in negatives), sum(n == positive for n in negatives), len(negatives))
    half = [1.0 if positive > n else 0.5 if positive == n else 0.0 for n in negatives]
    assert auc(*counts)[0] == pytest.approx(np.mean(half))
    assert auc_strict(*counts)[0] == pytest.approx(np.mean([positive > n for n in negatives]))
    assert tie_share(*counts[1:])[0] == pytest.approx(np.mean([positive == n for n in negatives]))


def test_a_constant_scorer_is_chance() -> None:
    n = 99
    values = user_values(*one(0, n, n))
    assert values["auc"] == 0.5
    assert values["auc_strict"] == 0
    assert values["tie_share"] == 1
    assert values["hr@10"] == pytest.approx(10 / 100)
    assert values["ndcg@10"] == pytest.approx(sum(1 / math.log2(r + 2) for r in range(10)) / 100)


def test_a_user_without_candidates_counts_nowhere() -> None:
    higher, tied, candidates = np.array([0, 1]), np.array([0, 0]), np.array([0, 4])
    for name, value in user_values(higher, tied, candidates).items():
        assert np.isnan(value[0]) and not np.isnan(value[1]), name
    means = summary(higher, tied, candidates)
    assert means["auc"] == 0.75
    assert (means["users"], means["users_without_candidates"]) == (1, 1)


def test_a_mean_over_nobody_is_none() -> None:
    empty = np.array([], dtype=int)
    for counts in ((empty, empty, empty), one(0, 0, 0)):
        means = summary(*counts)
        assert means["auc"] is None and means["hr@10"] is None and means["users"] == 0


@pytest.mark.parametrize(
    ("higher", "tied", "candidates", "message"),
    [
        (np.zeros(2, int), np.zeros((2, 1), int), np.zeros(2, int), "must be"),
        (np.zeros(2, int), np.zeros(3, int), np.zeros(2, int), "must be"),
        (np.array([-1]), np.array([0]), np.array([1]), "not negative"),
        (np.array([0.5]), np.array([0.0]), np.array([1.0]), "whole numbers"),
        (np.array([1]), np.array([1]), np.array([1]), "exceeds"),
    ],
)
def test_impossible_counts_are_refused(
    higher: np.ndarray, tied: np.ndarray, candidates: np.ndarray, message: str
) -> None:
    for function in (auc, auc_strict, user_values):
        with pytest.raises(ValueError, match=message):
            function(higher, tied, candidates)
