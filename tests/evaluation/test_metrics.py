"""Metrics from counts, against brute force over every order of the tied items and against scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import by_definition
from sklearn.metrics import average_precision_score, ndcg_score, precision_score, recall_score, top_k_accuracy_score

from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.metrics import (
    AT_CUTOFF,
    auc,
    auc_strict,
    check_cutoffs,
    check_metric,
    hit_ratio,
    ndcg,
    ranks,
    summary,
    tie_share,
    user_values,
)


def one(*values: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([v]) for v in values)


def counts_of(relevant: list[int], others: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each held-out item's score, how many other scores are higher, and how many equal."""
    higher = [sum(other > score for other in others) for score in relevant]
    return np.array(higher), np.array([others.count(score) for score in relevant])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=1, max_size=3)
        ),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 8),
)  # fmt: skip
def test_metrics_are_means_over_every_order_of_the_tied_items(users: list[tuple[list[int], list[int]]], k: int) -> None:
    """Several users with several held-out items each; held-out items tie with each other and with candidates."""
    counts = [counts_of(relevant, others) for relevant, others in users]
    higher, tied = (np.concatenate(each) for each in zip(*counts, strict=True))
    number = np.repeat(np.arange(len(users)) * 3, [len(relevant) for relevant, _ in users])
    shuffled = np.random.default_rng(0).permutation(len(number))  # items may come in any order
    at = ranks(higher[shuffled], tied[shuffled], number[shuffled])
    for place, (relevant, others) in enumerate(users):
        items = [(score, True) for score in relevant] + [(score, False) for score in others]
        values = [
            by_definition([hit for _, hit in sorted(order, key=lambda item: -item[0])], k)
            for order in itertools.permutations(items)
        ]
        for name, metric in AT_CUTOFF.items():
            assert metric(at, k)[place] == pytest.approx(np.mean([each[name] for each in values])), name


@given(st.integers(0, 15), st.integers(0, 30), st.integers(1, 12))
def test_with_one_held_out_item_metrics_are_means_over_its_places(higher: int, tied: int, k: int) -> None:
    places = range(higher, higher + tied + 1)
    values = [by_definition([place == at for place in range(higher + tied + 1)], k) for at in places]
    counts = np.array([higher]), np.array([tied])
    alone, grouped = ranks(*counts), ranks(*counts, users=np.array([5]))
    for name, metric in AT_CUTOFF.items():
        assert metric(alone, k)[0] == pytest.approx(np.mean([each[name] for each in values])), name
        assert metric(alone, k)[0] == metric(grouped, k)[0], name


@pytest.mark.parametrize("k", [1, 3, 10, 20, 60])
def test_metrics_equal_scikit_learn(k: int) -> None:
    """Scores without ties; how many of them are held out differs from user to user."""
    rng = np.random.default_rng(k)
    for _ in range(20):
        scores, n = rng.permutation(50).astype(float), int(rng.integers(1, 6))
        relevant = np.zeros(50, int)
        relevant[rng.permutation(50)[:n]] = 1
        order = np.argsort(-scores)
        top = np.isin(np.arange(50), order[:k]).astype(int)
        higher, tied = counts_of(scores[relevant == 1].tolist(), scores[relevant == 0].tolist())
        at = ranks(higher, tied, np.zeros(n, int))
        found = {name: metric(at, k)[0] for name, metric in AT_CUTOFF.items()}
        kept, hits = order[:k], relevant[order[:k]]
        assert found["recall"] == pytest.approx(recall_score(relevant, top))
        assert found["precision"] == pytest.approx(precision_score(relevant, top) * min(k, 50) / k)
        assert found["hr"] == (recall_score(relevant, top) > 0)
        assert found["ndcg"] == pytest.approx(ndcg_score([relevant], [scores], k=k))
        # scikit-learn's average precision divides by the relevant items among those that it is given.
        precision = average_precision_score(hits, scores[kept]) * hits.sum() if hits.any() else 0.0
        assert found["map"] == pytest.approx(precision / min(k, n))
        first = np.zeros(50, int)
        first[order[np.flatnonzero(relevant[order])[0]]] = 1  # of one relevant item it is the reciprocal rank
        assert found["mrr"] == pytest.approx(average_precision_score(first, scores) if hits.any() else 0.0)


def test_hit_ratio_of_one_item_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, target = rng.standard_normal((200, 30)), rng.integers(0, 30, 200)
    higher = (scores > scores[np.arange(200), target][:, None]).sum(1)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(target, scores, k=k, labels=np.arange(30))
        assert hit_ratio(ranks(higher, 0 * higher), k).mean() == pytest.approx(expected)


def test_ndcg_with_ties_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 9, 30).astype(float)
        n = int(rng.integers(1, 5))
        relevant = np.arange(30) < n
        counts = counts_of(scores[:n].tolist(), scores[n:].tolist())
        # scikit-learn, too, averages over the orders of ties.
        assert ndcg(ranks(*counts, np.zeros(n, int)), 10)[0] == pytest.approx(ndcg_score([relevant], [scores], k=10))


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=25), st.integers(-2, 2))
def test_auc_counts_pairs(negatives: list[int], positive: int) -> None:
    counts = one(sum(n > positive for n in negatives), sum(n == positive for n in negatives), len(negatives))
    half = [1.0 if positive > n else 0.5 if positive == n else 0.0 for n in negatives]
    assert auc(*counts)[0] == pytest.approx(np.mean(half))
    assert auc_strict(*counts)[0] == pytest.approx(np.mean([positive > n for n in negatives]))
    assert tie_share(*counts[1:])[0] == pytest.approx(np.mean([positive == n for n in negatives]))


def test_a_constant_scorer_is_chance() -> None:
    n = 99
    values = user_values(np.array([0]), np.array([n]), np.array([n]))
    assert values["auc"] == 0.5
    assert values["auc_strict"] == 0
    assert values["tie_share"] == 1
    assert values["hr@10"] == pytest.approx(10 / 100)
    assert values["ndcg@10"] == pytest.approx(sum(1 / math.log2(r + 2) for r in range(10)) / 100)
    assert values["recall@20"] == values["hr@20"] == pytest.approx(20 / 100)
    assert values["precision@20"] == pytest.approx(1 / 100)
    assert values["map@10"] == values["mrr@10"] == pytest.approx(sum(1 / (r + 1) for r in range(10)) / 100)


def test_a_user_without_candidates_counts_nowhere() -> None:
    higher, tied, candidates = np.array([0, 1]), np.array([0, 0]), np.array([0, 4])
    for name, value in user_values(higher, tied, candidates).items():
        assert np.isnan(value[0]) and not np.isnan(value[1]), name
    means = summary(higher, tied, candidates)
    assert means["auc"] == 0.75
    assert (means["users"], means["users_without_candidates"]) == (1, 1)


def test_auc_is_the_mean_over_the_user_s_held_out_items() -> None:
    higher, tied, candidates = np.array([1, 0, 3]), np.array([2, 0, 1]), np.array([4, 5, 4])
    values = user_values(higher, tied, candidates, users=np.array([9, 2, 9]))
    assert values["auc"].tolist() == [1.0, pytest.approx((0.5 + 0.125) / 2)]
    assert values["auc_strict"].tolist() == [1.0, pytest.approx((0.25 + 0.0) / 2)]
    assert values["tie_share"].tolist() == [0.0, pytest.approx((0.5 + 0.25) / 2)]
    means = summary(higher, tied, candidates, np.array([9, 2, 9]), cutoffs=[2])
    assert means["users"] == 2 and means["hr@2"] == pytest.approx((1 + 1 / 3) / 2) and "hr@10" not in means


def test_a_metric_to_choose_by_is_known_or_a_sentence() -> None:
    assert [check_metric(name, 30) for name in ("auc", "auc_strict", "ndcg@10", "map@30")] == [None, None, 10, 30]
    for name, sentence in (
        ("ndgc@10", r"unknown metric 'ndgc@10': did you mean 'ndcg@10'\?"),
        ("tie_share", "unknown metric 'tie_share'"),
        ("", "unknown metric ''"),
        ("hr", "metric 'hr' needs the length of the list behind an @: write hr@10"),
        ("hr@", "write hr@10"),
        ("hr@-1", "write hr@10"),
        ("hr@²", "write hr@10"),
        ("hr@" + "9" * 5000, "write hr@10"),
        ("hr@0", "at least one item"),
        ("hr@31", "longer than the catalogue, which has 30 items"),
        ("gini@10", "'gini@10' measures all users' lists together.*write auc or ndcg@10"),
    ):
        with pytest.raises(InputError, match=sentence):
            check_metric(name, 30)


def test_cut_offs_beyond_the_catalogue_are_sentences() -> None:
    check_cutoffs([1, 10, 20, 300], 300)
    check_cutoffs([10, 20], 4)  # what every record has: the list is then the whole catalogue
    with pytest.raises(InputError, match="a list of 301 recommendations is longer than the catalogue, which has 300"):
        check_cutoffs([10, 301], 300)
    with pytest.raises(InputError, match="at least one item, not 0"):
        check_cutoffs([0], 300)


def test_a_mean_over_nobody_is_none() -> None:
    empty = np.array([], dtype=int)
    for counts in (empty, np.array([0])):
        means = summary(counts, counts, counts)
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
