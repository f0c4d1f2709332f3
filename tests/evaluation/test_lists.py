"""The lists of all users and their metrics: against plain loops, the definitions, scikit-learn and RecTools."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import TESTS
from rankings import Table, coarse, make
from sklearn.metrics import auc as area
from sklearn.metrics.pairwise import cosine_distances
from torch import Tensor
from toy import best_items

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import evaluate
from imgrec_lib.evaluation.lists import (
    category_diversity,
    coverage,
    gini,
    list_metrics,
    mean_popularity,
    novelty,
    visual_diversity,
)
from imgrec_lib.evaluation.metrics import AT_CUTOFF, ranks
from imgrec_lib.evaluation.ranking import Best, BestOnCpu, Catalogue
from imgrec_lib.models.base import InnerProduct


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(2, 60), st.integers(0, 99), st.integers(1, 70), st.integers(1, 2000),
    st.integers(1, 70), st.sampled_from(["test", "validation"]),
)  # fmt: skip
def test_lists_are_the_best_of_what_may_be_recommended(
    n_users: int, n_items: int, seed: int, width: int, block_bytes: int, k: int, part: str
) -> None:
    """By a stable sort of each user's scores, which are exact here and many of them tied within and across tiles."""
    dataset, rng = make(n_users, n_items, seed), np.random.default_rng(seed)
    users, items = (torch.as_tensor(rng.integers(-2, 3, (n, 3)), dtype=torch.float32) for n in (n_users, n_items))
    k = min(k, n_items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("imgrec_lib.evaluation.ranking"), "TILE_ITEMS", width)
        found = evaluate(
            InnerProduct(users, items), dataset, protocols=["exact"], part=part, block_bytes=block_bytes, cutoffs=[k]
        )
    scores = users.numpy() @ items.numpy().T
    whole = evaluate(Table(scores), dataset, protocols=["exact"], part=part, cutoffs=[k])
    for lists in (found.lists, whole.lists):
        assert lists is not None and lists.shape == (len(found.per_user), k)
        for user, row in zip(found.per_user["user"], lists, strict=True):
            known = {*dataset.train.of(user), *([dataset.validation.items[user]] if part == "test" else [])}
            best = sorted((i for i in range(n_items) if i not in known), key=lambda i: (-scores[user, i], i))[:k]
            assert row.tolist() == best + [-1] * (k - len(best))


def test_without_validation_items_lists_are_what_is_recommended() -> None:
    dataset = make(30, 25)
    scorer = Table(coarse(dataset))
    lists = evaluate(scorer, dataset, protocols=["exact"], part="validation").lists
    users = np.flatnonzero(dataset.validation.items >= 0)
    assert lists is not None and (lists == best_items(scorer, dataset, users, 20)[0]).all()
    assert evaluate(scorer, dataset, protocols=["dvbpr-100"]).lists is None


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 15), st.integers(1, 12), st.integers(0, 2**31))
def test_tensor_operations_keep_what_the_compiled_loop_keeps(
    n_users: int, n_items: int, width: int, k: int, seed: int
) -> None:
    """What takes the loop's place on a GPU, here on the CPU; negative scores and both zeros among them."""
    rng = np.random.default_rng(seed)
    scores = torch.as_tensor(rng.integers(-3, 4, (n_users, n_items)).astype(np.float32) * rng.choice([-1.0, 1.0]))
    pairs = np.argwhere(rng.random((n_users, n_items)) < 0.3)
    known = Interactions.from_pairs(pairs[:, 0], pairs[:, 1], n_users, n_items)

    class Slices(Table):
        def tile(self, users: Tensor, items: slice, out: Tensor | None = None) -> Tensor:
            return self.scores[users, items]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("imgrec_lib.evaluation.ranking"), "TILE_ITEMS", width)
        catalogue = Catalogue(Slices(scores.numpy()), n_items, np.arange(n_users), "cpu")
    keepers = [kind(catalogue, np.arange(n_users), known, k) for kind in (Best, BestOnCpu)]
    starts, zeros = torch.arange(n_users + 1), torch.zeros(2, n_users)
    counted = starts, zeros[0], *torch.zeros(2, n_users, dtype=torch.int64), zeros[1]
    for number in range(catalogue.n_tiles):
        part = scores[:, number * catalogue.width : (number + 1) * catalogue.width]
        keepers[0].compare(number, part, *counted)
        keepers[1].compare(number, part, *(each.numpy() for each in counted))
    assert (keepers[0].items() == keepers[1].items()).all()


def by_hand(lists: np.ndarray, train: Interactions, categories: np.ndarray, features: np.ndarray) -> dict[str, float]:
    """Every metric by loops over lists and pairs, in float64."""
    found: dict[str, list[float]] = {name: [] for name in ("novelty", "popularity", "category", "visual")}
    times = dict.fromkeys(range(train.n_items), 0)
    distance = cosine_distances(features.astype(np.float64))
    for row in lists:
        items = [i for i in row if i >= 0]
        for item in items:
            times[item] += 1
        if items:
            buyers = [max(1, (train.items == i).sum()) for i in items]
            found["novelty"].append(float(np.mean([-np.log2(n / train.n_users) for n in buyers])))
            found["popularity"].append(float(np.mean([(train.items == i).sum() for i in items])))
        if len(items) > 1:
            found["category"].append(np.mean([categories[a] != categories[b] for a, b in combinations(items, 2)]))
        pictured = [i for i in items if features[i].any()]
        if len(pictured) > 1:
            found["visual"].append(np.mean([distance[a, b] for a, b in combinations(pictured, 2)]))
    values = list(times.values())
    differences = np.abs(np.subtract.outer(values, values)).sum()
    return {
        "coverage": sum(n > 0 for n in values) / len(values),
        "gini": float(differences / (2 * len(values) * sum(values))) if sum(values) else np.nan,
        **{name: float(np.mean(each)) if each else np.nan for name, each in found.items()},
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**31))
def test_list_metrics_equal_loops_over_lists_and_pairs(n_users: int, n_items: int, longest: int, seed: int) -> None:
    """Lists of different lengths, empty ones among them; some items have no picture, some no buyer."""
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(rng.random((n_users, n_items)) < 0.2)
    train = Interactions.from_pairs(pairs[:, 0], pairs[:, 1], n_users, n_items)
    lists = np.full((n_users, longest), -1)
    for row in lists:
        length = min(n_items, int(rng.integers(0, longest + 1)))
        row[:length] = rng.permutation(n_items)[:length]
    categories = rng.integers(0, 3, n_items)
    features = rng.standard_normal((n_items, 4)).astype(np.float32)
    features[rng.random(n_items) < 0.3] = 0
    cutoffs = list(dict.fromkeys([longest, max(1, longest // 2)]))
    found = list_metrics(lists, train, cutoffs, categories, features)
    names = {"category": "category_diversity", "visual": "visual_diversity"}
    for k in cutoffs:
        for name, value in by_hand(lists[:, :k], train, categories, features).items():
            measured = found[f"{names.get(name, name)}@{k}"]
            assert measured is None if np.isnan(value) else measured == pytest.approx(value, abs=1e-6), name
    without = list_metrics(lists, train, cutoffs)
    assert without[f"category_diversity@{longest}"] is None and without[f"visual_diversity@{longest}"] is None


def test_gini_is_twice_the_area_above_the_lorenz_curve() -> None:
    lists = np.random.default_rng(0).zipf(1.5, (50, 6)).clip(0, 30) - 1
    times = np.sort(np.bincount(lists.ravel(), minlength=40))
    lorenz = area(np.linspace(0, 1, 41), np.r_[0, np.cumsum(times)] / times.sum())
    assert gini(lists, 40) == pytest.approx(1 - 2 * lorenz)
    everything = np.arange(40).reshape(8, 5)
    assert gini(everything, 40) == 0 and coverage(everything, 40) == 1
    assert gini(np.zeros((8, 1), int), 40) == pytest.approx(39 / 40) and coverage(np.zeros((8, 1), int), 40) == 1 / 40
    assert gini(np.full((8, 1), -1), 40) is None


def test_metrics_equal_rectools() -> None:
    """benchmarks/peers/metrics.py wrote what RecTools 0.19 says; some users have several held-out items."""
    case = json.loads((TESTS / "rectools.json").read_text())
    expected, n_items, scores = case["rectools"], case["n_items"], np.array(case["scores"])
    pairs = [(user, item) for user, items in enumerate(case["train"]) for item in items]
    users, items = np.array(pairs).T
    train = Interactions.from_pairs(users, items, len(scores), n_items)
    lists = np.full((len(scores), 10), -1)
    higher, number = [], []
    for user, (items, held) in enumerate(zip(case["lists"], case["held"], strict=True)):
        lists[user, : len(items)] = items
        others = [scores[user, item] for item in case["candidates"][user] if item not in held]
        higher += [sum(other > scores[user, item] for other in others) for item in held]
        number += [user] * len(held)
    at = ranks(np.array(higher), np.zeros(len(higher), int), np.array(number))
    features = np.array(case["features"], np.float32)
    assert max(at.relevant) > 3
    for k in (3, 10):
        first = lists[:, :k]
        # RecTools divides average precision by all of a user's held-out items, even if no list can hold them.
        factor = {"map": np.minimum(at.relevant, k) / at.relevant}
        for name, metric in AT_CUTOFF.items():
            np.testing.assert_allclose(metric(at, k) * factor.get(name, 1), expected[f"{name}@{k}"], err_msg=name)
        np.testing.assert_allclose(novelty(first, train.popularity, len(scores)), expected[f"novelty@{k}"])
        np.testing.assert_allclose(mean_popularity(first, train.popularity), expected[f"popularity@{k}"])
        np.testing.assert_allclose(
            category_diversity(first, np.array(case["categories"])), expected[f"category_diversity@{k}"]
        )
        np.testing.assert_allclose(
            visual_diversity(lists, features, [k])[0], expected[f"visual_diversity@{k}"], atol=1e-6
        )
        assert coverage(first, n_items) == expected[f"coverage@{k}"]


def test_evaluation_reports_the_lists_under_exact_alone() -> None:
    dataset = make(40, 30)
    dataset = replace(dataset, items=dataset.items.assign(category=[f"c{i % 3}" for i in range(30)]))
    features = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    result = evaluate(Table(coarse(dataset)), dataset, cutoffs=[5, 12], features=features)
    assert result.lists is not None and dataset.categories is not None
    expected = list_metrics(result.lists, dataset.train, [5, 12], dataset.categories[0], features)
    assert expected.items() <= result.metrics["exact"].items()
    assert all(value is not None for value in expected.values())
    for protocol in ("dvbpr-100", "imgrec-100", "sampled-500"):
        assert not expected.keys() & result.metrics[protocol].keys()
        assert {"hr@5", "ndcg@12", "cold_map@5", "new_recall@12"} <= result.metrics[protocol].keys()
    json.dumps(result.metrics, allow_nan=False)


def test_a_constant_scorer_recommends_the_first_items_to_everybody() -> None:
    dataset = make(30, 50, missing=0)
    dataset = replace(dataset, train=Interactions.from_pairs(np.array([3]), np.array([2]), 30, 50))
    result = evaluate(Table(np.zeros((30, 50))), dataset, protocols=["exact"], part="validation")
    assert result.lists is not None
    assert result.lists[0].tolist() == list(range(20))
    assert result.lists[3].tolist() == [i for i in range(21) if i != 2]
    assert result.metrics["exact"]["coverage@10"] == pytest.approx(11 / 50)


def test_users_without_history_are_counted_apart() -> None:
    dataset = make(30, 50, missing=0)
    train = Interactions.from_pairs(np.arange(20), 49 - np.arange(20), 30, 50)
    dataset = replace(dataset, train=train)
    result = evaluate(Table(coarse(dataset)), dataset, protocols=["exact"], part="validation")
    values = result.metrics["exact"]
    assert values["new_users"] == 10 and values["users"] == 30
    new = result.per_user["history_length"] == 0
    assert new.sum() == 10
    higher, tied, candidates = (result.per_user[f"exact/{kind}"][new] for kind in ("higher", "tied", "candidates"))
    assert values["new_auc"] == pytest.approx((1 - (higher + tied / 2) / candidates).mean())


def test_bad_cut_offs_and_features_are_sentences() -> None:
    dataset = make(10, 8)
    with pytest.raises(InputError, match="a list of 9 recommendations is longer than the catalogue"):
        evaluate(Table(coarse(dataset)), dataset, cutoffs=[9])
    with pytest.raises(InputError, match="the features have 7 rows but the catalogue has 8 items"):
        evaluate(Table(coarse(dataset)), dataset, features=np.ones((7, 2), np.float32))


def test_features_may_be_memory_mapped(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    lists = np.arange(20).reshape(4, 5)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    for a, b in zip(visual_diversity(lists, mapped, [2, 5]), visual_diversity(lists, features, [2, 5]), strict=True):
        np.testing.assert_array_equal(a, b)
