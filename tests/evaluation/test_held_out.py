"""Several held-out items a user: how they are kept, and their evaluation against plain loops."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import Model, Table, by_definition, coarse

from imgrec_lib import ValidationAUC, evaluate
from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.evaluation import (
    PROTOCOLS,
    ValidationMetrics,
    history_bands,
    negative_lists,
    popularity_bands,
    user_metrics,
)
from imgrec_lib.models.base import InnerProduct


def make(n_users: int, n_items: int, seed: int = 0) -> Dataset:
    """Up to four validation and test items a user; some users have none, some no training item."""
    rng = np.random.default_rng(seed)
    pairs: list[list[tuple[int, int]]] = [[], [], []]
    for user in range(n_users):
        drawn = rng.permutation(n_items)
        sizes = rng.integers(0, 5, 2)
        ends = np.cumsum([*sizes, rng.integers(0, max(1, n_items // 2))])
        for part, items in enumerate(np.split(drawn, ends)[:3]):
            pairs[part] += [(user, int(item)) for item in items]
    pairs[0] = pairs[0] or [(0, 0)]
    pairs[1] = pairs[1] or [(0, n_items - 1)]
    pairs[2] = [pair for pair in pairs[2] if pair not in pairs[0] + pairs[1]]
    pairs[0] = [pair for pair in pairs[0] if pair not in pairs[1]] or [pairs[1][0]]
    validation, test, train = (
        Interactions.from_pairs(users, items, n_users, n_items)
        for users, items in (np.array(part, int).reshape(-1, 2).T for part in pairs)
    )
    return Dataset(
        "several", np.array([f"u{u}" for u in range(n_users)]),
        pd.DataFrame({"item": [f"i{i}" for i in range(n_items)]}), train, HeldOut(validation), HeldOut(test),
    )  # fmt: skip


def test_one_item_each_reads_the_same_in_both_forms() -> None:
    items, times = np.array([3, -1, 0, 2]), np.array([7, 0, 9, 8])
    arrays = HeldOut(items, times)
    pairs = HeldOut(Interactions.from_pairs(np.array([3, 0, 2]), np.array([2, 3, 0]), 4, 5, np.array([8, 7, 9])))
    for held in (arrays, pairs):
        assert (
            held.items.tolist() == items.tolist() and held.times is not None and held.times.tolist() == times.tolist()
        )
        assert [held.of(user).tolist() for user in range(4)] == [[3], [], [0], [2]]
        assert (len(held), held.several, held.n_users) == (3, False, 4)


def test_several_items_are_never_taken_for_one() -> None:
    several = HeldOut(Interactions.from_pairs(np.array([1, 1, 2]), np.array([4, 0, 3]), 4, 5, np.array([9, 5, 6])))
    assert several.several and [several.of(user).tolist() for user in range(4)] == [[], [0, 4], [3], []]
    assert several.times is not None and several.times[[1, 2]].tolist() == [5, 6]  # served before the first of them
    with pytest.raises(ValueError, match="several held-out items"):
        _ = several.items
    assert HeldOut(Interactions.from_pairs(np.array([], int), np.array([], int), 4, 5)).items.tolist() == [-1] * 4


def test_which_items_are_held_out_enters_the_fingerprint() -> None:
    dataset = make(10, 12)
    users, items = dataset.test.users, dataset.test.flat
    fewer = HeldOut(Interactions.from_pairs(users[1:], items[1:], 10, 12))
    assert replace(dataset, test=fewer).ranking_fingerprint != dataset.ranking_fingerprint


def brute_force(
    dataset: Dataset, scores: np.ndarray, protocol: str, part: str, seed: int
) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Counts of every held-out item, by the definition."""
    held = getattr(dataset, part)
    lists = None if protocol == "exact" else negative_lists(dataset, protocol, seed, part)
    counts = {}
    for user in range(dataset.n_users):
        out = {*dataset.train.of(user), *held.of(user), *(dataset.validation.of(user) if part == "test" else ())}
        others = [i for i in range(dataset.n_items) if i not in out]
        if lists is not None:
            others = [i for i in lists[user] if i >= 0]
            owned = {*dataset.train.of(user), *held.of(user)}
            assert protocol == "imgrec-100" or not owned & set(others)
        for item in held.of(user).tolist():
            above = sum(scores[user, i] > scores[user, item] for i in others)
            counts[user, item] = (above, sum(scores[user, i] == scores[user, item] for i in others), len(others))
    return counts


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12), st.integers(8, 60), st.integers(0, 99), st.integers(1, 70), st.integers(1, 3000),
    st.sampled_from(["test", "validation"]),
)  # fmt: skip
def test_counts_of_every_held_out_item_equal_brute_force(
    n_users: int, n_items: int, seed: int, width: int, block_bytes: int, part: str
) -> None:
    """Whole catalogues and tiles of them, in blocks of every size; scores are exact and many of them tied."""
    dataset, rng = make(n_users, n_items, seed), np.random.default_rng(seed)
    users, items = (torch.as_tensor(rng.integers(-2, 3, (n, 3)), dtype=torch.float32) for n in (n_users, n_items))
    dense = users.numpy() @ items.numpy().T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("imgrec_lib.evaluation.ranking"), "TILE_ITEMS", width)
        found = evaluate(InnerProduct(users, items), dataset, seed=seed, part=part, block_bytes=block_bytes)
    whole = evaluate(Table(dense), dataset, seed=seed, part=part)
    pd.testing.assert_frame_equal(found.per_user, whole.per_user)
    assert found.metrics == whole.metrics
    assert found.lists is not None and whole.lists is not None and (found.lists == whole.lists).all()
    held = getattr(dataset, part)
    assert len(found.lists) == len(np.unique(held.users))
    for protocol in PROTOCOLS:
        columns = [f"{protocol}/{kind}" for kind in ("higher", "tied", "candidates")]
        rows = found.per_user[["user", "item", *columns]].itertuples(index=False)
        counts = {(user, item): tuple(rest) for user, item, *rest in rows}
        assert counts == brute_force(dataset, dense, protocol, part, seed), protocol
        alone = evaluate(Table(dense), dataset, protocols=[protocol], seed=seed, part=part)
        assert alone.metrics == {protocol: whole.metrics[protocol]}


def test_metrics_of_every_user_by_their_definitions() -> None:
    """Scores without ties: the metrics of a sorted list of what is ranked."""
    dataset = make(40, 60)
    scores = np.random.default_rng(1).permuted(np.tile(np.arange(60.0), (40, 1)), axis=1)
    result = evaluate(Table(scores), dataset, protocols=["exact"], cutoffs=[4, 10])
    found = user_metrics(result.per_user, cutoffs=[4, 10])
    assert result.per_user.loc[found.index, "user"].tolist() == np.unique(dataset.test.users).tolist()
    assert result.per_user["user"].duplicated().any()
    for (_, values), user in zip(found.iterrows(), np.unique(dataset.test.users), strict=True):
        known = {*dataset.train.of(user), *dataset.validation.of(user)}
        order = sorted((i for i in range(60) if i not in known), key=lambda i: -scores[user, i])
        relevant = [item in dataset.test.of(user) for item in order]
        for k in (4, 10):
            for name, value in by_definition(relevant, k).items():
                assert values[f"{name}@{k}"] == pytest.approx(value), name
        below = [relevant[place:].count(False) / relevant.count(False) for place, hit in enumerate(relevant) if hit]
        assert values["auc"] == values["auc_strict"] == pytest.approx(np.mean(below))
    assert result.metrics["exact"]["auc"] == pytest.approx(found["auc"].mean())
    assert result.metrics["exact"]["users"] == len(found) < len(dataset.test) == result.metrics["exact"]["held_out"]


def test_cold_items_new_users_and_bands_of_several() -> None:
    dataset = make(12, 60, seed=3)
    result = evaluate(Table(coarse(dataset)), dataset, protocols=["exact"])
    exact, table = result.metrics["exact"], result.per_user
    assert (
        exact["cold_held_out"] == table["cold"].sum() and exact["new_held_out"] == (table["history_length"] == 0).sum()
    )
    cold = table[table["cold"]]
    assert exact["cold_users"] == cold["user"].nunique() > 0
    assert exact["cold_auc"] == pytest.approx(user_metrics(cold)["auc"].mean())
    for bands in (popularity_bands(table), history_bands(table)):
        assert bands["held_out"].sum() == len(table)
    assert history_bands(table)["users"].sum() == table["user"].nunique()


def test_validation_of_several_items_is_that_of_evaluate() -> None:
    dataset = make(40, 30)
    model = Model(Table(coarse(dataset)))
    expected = evaluate(model.inner, dataset, protocols=["exact"], part="validation").metrics["exact"]
    assert ValidationAUC(dataset)(model) == pytest.approx(expected["auc"], abs=1e-15)
    assert ValidationMetrics(dataset)(model).items() <= expected.items()


def test_rounding_unties_no_items_of_other_tiles() -> None:
    """Each item occurs 70 times, in every tile; a user's three held-out items tie with their copies and no others."""
    generator, kinds, copies = torch.Generator().manual_seed(0), 101, 70
    users, items = torch.randn(100, 67, generator=generator), torch.randn(kinds, 67, generator=generator)
    rng = np.random.default_rng(0)
    held = np.concatenate([rng.permutation(kinds)[:3] + kinds * rng.integers(0, copies, 3) for _ in range(100)])
    nobody = Interactions.from_pairs(np.array([], int), np.array([], int), 100, kinds * copies)
    dataset = Dataset(
        "copies", np.arange(100).astype(str), pd.DataFrame({"item": np.arange(kinds * copies).astype(str)}), nobody,
        HeldOut(nobody), HeldOut(Interactions.from_pairs(np.arange(100).repeat(3), held, 100, kinds * copies)),
    )  # fmt: skip
    per_user = evaluate(InnerProduct(users, items.repeat(copies, 1)), dataset, protocols=["exact"]).per_user
    assert (per_user["exact/tied"] == copies - 1).all()
    assert (per_user["exact/candidates"] == kinds * copies - 3).all()
