"""Leave-two-out: a partition, seeded, by time where asked, and Table 1."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from narrow import not_none
from scipy import stats

from imgrec_lib.data import blocks
from imgrec_lib.data import split as split_module
from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.data.split import given_split, leave_two_out, split_dataset
from imgrec_lib.errors import InputError

N_ITEMS = 12


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, int]:
    """Interactions in which every user has at least three items; rows shuffled, some pairs repeated."""
    n_users = draw(st.integers(1, 6))
    rows = []
    for user in range(n_users):
        items = draw(st.lists(st.integers(0, N_ITEMS - 1), min_size=3, max_size=8, unique=True))
        rows += [(user, item, draw(st.integers(0, 4))) for item in items]
    rows += draw(st.lists(st.sampled_from(rows), max_size=4))
    rows = draw(st.permutations(rows))
    return pd.DataFrame(rows, columns=["user", "item", "timestamp"]), n_users


def pairs(split: tuple[Interactions, HeldOut, HeldOut]) -> list[tuple[int, int]]:
    train, validation, test = split
    found = list(zip(train.users.tolist(), train.items.tolist(), strict=True))
    return found + [(u, int(i)) for part in (validation, test) for u, i in enumerate(part.items)]


@given(tables(), st.sampled_from(["random", "time"]), st.integers(0, 2**32))
def test_every_pair_is_in_exactly_one_part(drawn: tuple[pd.DataFrame, int], kind: str, seed: int) -> None:
    table, n_users = drawn
    found = pairs(leave_two_out(table, n_users, N_ITEMS, kind, seed))
    assert sorted(found) == sorted(set(zip(table.user, table.item, strict=True)))


@given(tables(), st.sampled_from(["random", "time"]), st.randoms())
def test_the_order_of_rows_does_not_matter(drawn: tuple[pd.DataFrame, int], kind: str, random: Random) -> None:
    table, n_users = drawn
    order = list(range(len(table)))
    random.shuffle(order)
    first = leave_two_out(table, n_users, N_ITEMS, kind, seed=3)
    second = leave_two_out(table.iloc[order], n_users, N_ITEMS, kind, seed=3)
    assert pairs(first) == pairs(second)
    np.testing.assert_array_equal(first[0].times, second[0].times)


@given(tables())
def test_by_time_the_latest_are_held_out(drawn: tuple[pd.DataFrame, int]) -> None:
    table, n_users = drawn
    earliest: dict[tuple[int, int], int] = {}
    for user, item, time in table.itertuples(index=False):
        earliest[user, item] = min(time, earliest.get((user, item), time))
    train, validation, test = leave_two_out(table, n_users, N_ITEMS, "time")
    for user in range(n_users):
        times = sorted(time for (u, _), time in earliest.items() if u == user)
        assert not_none(test.times)[user] == earliest[user, test.items[user]] == times[-1]
        assert not_none(validation.times)[user] == earliest[user, validation.items[user]] == times[-2]
        kept = not_none(train.times)[train.indptr[user] : train.indptr[user + 1]]
        assert kept.tolist() == [earliest[user, item] for item in train.of(user)]


def test_ties_in_time_do_not_favour_an_item() -> None:
    table = pd.DataFrame([(u, i, 7) for u in range(2000) for i in range(4)], columns=["user", "item", "timestamp"])
    _, _, test = leave_two_out(table, 2000, 4, "time", seed=1)
    assert stats.chisquare(np.bincount(test.items, minlength=4)).pvalue > 1e-3


def test_random_draws_ordered_pairs_uniformly() -> None:
    table = pd.DataFrame([(u, i) for u in range(6000) for i in range(4)], columns=["user", "item"])
    _, validation, test = leave_two_out(table, 6000, 4, seed=5)
    counts = np.bincount(test.items * 4 + validation.items, minlength=16).reshape(4, 4)
    assert counts.diagonal().sum() == 0
    assert stats.chisquare(counts[~np.eye(4, dtype=bool)]).pvalue > 1e-3
    assert not np.array_equal(test.items, leave_two_out(table, 6000, 4, seed=6)[2].items)


def test_the_same_on_every_platform() -> None:
    """The split is the order of raw PCG64 words, which NumPy guarantees for ever; recomputed here in a loop."""
    table = pd.DataFrame([(u, i) for u in range(5) for i in range(u + 3)], columns=["user", "item"])
    _, validation, test = leave_two_out(table, 5, 8, seed=0)
    words = iter(np.random.PCG64(0).random_raw(len(table)).tolist())
    for user in range(5):
        drawn = sorted((next(words), item) for item in range(user + 3))
        assert (test.items[user], validation.items[user]) == (drawn[-1][1], drawn[-2][1])


def test_sentences() -> None:
    table = pd.DataFrame({"user": [0, 0, 0, 1, 1], "item": [0, 1, 2, 0, 1]})
    with pytest.raises(InputError, match="user bob has 2 different items, too few"):
        leave_two_out(table, 2, 3, user_ids=np.array(["ann", "bob"]))
    with pytest.raises(InputError, match="needs timestamps"):
        leave_two_out(table, 2, 3, "time")
    with pytest.raises(InputError, match="unknown split 'tyme': did you mean 'time'"):
        leave_two_out(table, 2, 3, "tyme")
    with pytest.raises(InputError, match="split is empty"):
        leave_two_out(table[:0], 0, 3)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 6)), max_size=60), st.integers(3, 6))
def test_users_with_too_few_different_items_are_left_out(rows: list[tuple[str, int]], least: int) -> None:
    table = pd.DataFrame(rows, columns=["user", "item"])
    different = {user: {i for u, i in rows if u == user} for user in "abcde"}
    expected = {(user, i) for user, items in different.items() if len(items) >= least for i in items}
    items = pd.DataFrame({"item": range(7)})
    if not expected:
        with pytest.raises(InputError, match="split is empty"):
            split_dataset("d", table, items, min_interactions=least)
        return
    dataset = split_dataset("d", table, items, min_interactions=least)
    kept = pairs((dataset.train, dataset.validation, dataset.test))
    assert len(kept) == len(expected)
    assert {(dataset.user_ids[user], dataset.items["item"][item]) for user, item in kept} == expected


def test_the_first_occurrence_in_time_is_kept() -> None:
    table = pd.DataFrame({"user": ["a"] * 4, "item": ["x", "y", "z", "x"], "timestamp": [9, 5, 6, 2]})
    dataset = split_dataset("d", table, pd.DataFrame({"item": list("xyz")}), min_interactions=3, split="time")
    assert (dataset.test.items[0], dataset.validation.items[0], dataset.train.of(0).tolist()) == (2, 1, [0])
    assert dataset.train.times is not None and dataset.train.times.tolist() == [2]
    with pytest.raises(InputError, match="at least 3"):
        split_dataset("d", table, pd.DataFrame({"item": list("xyz")}), min_interactions=2)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), st.sampled_from(["random", "time", "date"]), st.integers(1, 9), st.booleans())
def test_large_tables_are_split_block_by_block_as_small_ones_are(
    monkeypatch: pytest.MonkeyPatch, drawn: tuple[pd.DataFrame, int], kind: str, rows: int, whole: bool
) -> None:
    table, _ = drawn
    if kind == "random":
        table = table.drop(columns="timestamp")
    texts = table.assign(user=table.user.map("u{}".format), item=pd.Categorical(table.item.map("i{:02d}".format)))
    items = pd.DataFrame({"item": [f"i{item:02d}" for item in range(N_ITEMS)]})
    options: dict[str, Any] = {"min_interactions": 4, "split": kind, "seed": 5, "keep_unused_items": whole}
    if kind == "date":
        texts["timestamp"] *= 86_400
        options |= {"validate_from": "1970-01-02", "test_from": "1970-01-04"}

    def split() -> Dataset | str:
        try:
            return split_dataset("d", texts, items, **options)
        except InputError as error:
            return str(error)

    expected = split()
    with monkeypatch.context() as patch:
        for module in (blocks, split_module):
            patch.setattr(module, "BLOCK", rows)
        found = split()
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
    else:
        assert found.fingerprint == expected.fingerprint
        assert found.validation.of(0).tolist() == expected.validation.of(0).tolist()


def given_tables(
    train: list[tuple[int, int]], validation: list[tuple[int, int]], test: list[tuple[int, int]]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    first, second, third = (pd.DataFrame(rows, columns=["user", "item"]) for rows in (train, validation, test))
    return first, second, third


def test_given_split_holds_out_what_leaks() -> None:
    parts = given_tables(
        train=[(0, 1), (0, 1), (0, 2), (0, 3), (1, 0)], validation=[(0, 2), (1, 4)], test=[(0, 3), (1, 4)]
    )
    with pytest.warns(UserWarning, match="2 held-out pairs were also in training, and 1 validation items"):
        train, validation, test = given_split(*parts, n_users=3, n_items=5)
    assert train.of(0).tolist() == [1] and train.of(1).tolist() == [0] and train.of(2).tolist() == []
    assert validation.items.tolist() == [2, -1, -1] and test.items.tolist() == [3, 4, -1]


def test_given_split_sentences() -> None:
    for part in ("training", "test"):
        parts = {"training": [(0, 1)], "validation": [(0, 0)], "test": [(0, 2)]} | {part: []}
        with pytest.raises(InputError, match=f"no {part} interactions"):
            given_split(*given_tables(*parts.values()), n_users=1, n_items=3)


def test_a_given_split_may_hold_out_several_items_of_users_old_and_new() -> None:
    """User 0 has two test items, user 1 none, user 2 occurs in the test alone, as does item 4; nothing is validated."""
    parts = given_tables(train=[(0, 1), (1, 0)], validation=[], test=[(0, 3), (0, 2), (2, 4), (0, 3)])
    train, validation, test = given_split(*parts, n_users=3, n_items=5)
    assert [test.of(user).tolist() for user in range(3)] == [[2, 3], [], [4]]
    assert len(validation) == 0 and validation.items.tolist() == [-1, -1, -1]
    assert train.history_lengths.tolist() == [1, 1, 0] and test.several and not validation.several


@pytest.mark.slow
@given(tables(), st.sampled_from(["random", "time"]), st.sampled_from([1, 2, 3, 0.1, 0.3, 0.45]), st.booleans())
def test_so_many_items_are_held_out(drawn: tuple[pd.DataFrame, int], kind: str, held_out: float, both: bool) -> None:
    """A number of every user's items, or a share of them: the latest for the test, those before for validation."""
    table, n_users = drawn
    different = table.sort_values("timestamp", kind="stable").drop_duplicates(["user", "item"])
    counts = np.bincount(different.user, minlength=n_users)
    sizes = [held_out if held_out >= 1 else max(1, int(count * held_out + 1e-9)) for count in counts]
    if any(count - (1 + both) * size < 1 for count, size in zip(counts, sizes, strict=True)):
        with pytest.raises(InputError, match="different items, too few to hold out"):
            leave_two_out(table, n_users, N_ITEMS, kind, held_out=held_out, validate=both)
        return
    train, validation, test = leave_two_out(table, n_users, N_ITEMS, kind, held_out=held_out, validate=both)
    when = different.set_index(["user", "item"]).timestamp
    for user, size in enumerate(sizes):
        parts = [part.of(user).tolist() for part in (test, validation, train)]
        assert [len(part) for part in parts] == [size, size * both, counts[user] - (1 + both) * size]
        assert sorted(item for part in parts for item in part) == sorted(different.item[different.user == user])
        if kind == "time":
            times = [[when[user, item] for item in part] for part in parts]
            assert min(times[0]) >= max([*times[1], *times[2]]) and min([*times[1], *times[0]]) >= max(times[2])
            assert not_none(test.times)[user] == min(times[0])


def test_the_paper_s_split_is_the_special_case_of_one() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(u, i) for u in range(50) for i in rng.permutation(20)[:8]], columns=["user", "item"])
    one, share = leave_two_out(table, 50, 20, seed=4), leave_two_out(table, 50, 20, seed=4, held_out=0.2)
    assert pairs(one) == pairs(share)  # a fifth of eight, rounded down
    several = leave_two_out(table, 50, 20, seed=4, held_out=3)
    assert all(one[2].items[user] in several[2].of(user) for user in range(50))
    assert all(one[1].items[user] in several[2].of(user) for user in range(50))


@given(tables(), st.integers(-1, 6), st.integers(-1, 6))
def test_by_date_nothing_of_later_is_in_training(drawn: tuple[pd.DataFrame, int], first: int, second: int) -> None:
    table, _ = drawn
    earliest = table.groupby(["user", "item"]).timestamp.min()
    validate_from, test_from = (None, second) if first == second else (min(first, second), max(first, second))
    until = test_from if validate_from is None else validate_from
    expected = [
        {pair for pair, time in earliest.items() if low <= time < high}
        for low, high in ((-9, until), (until, test_from), (test_from, 9))
    ]
    dated = table.assign(item=table["item"].map("{:02d}".format), timestamp=table.timestamp * 86_400)
    items = pd.DataFrame({"item": [f"{item:02d}" for item in range(N_ITEMS)]})
    options: dict[str, Any] = {"min_interactions": None, "split": "date", "keep_unused_items": True}
    options["validate_from"] = None if validate_from is None else str(np.datetime64(validate_from, "D"))
    options["test_from"] = str(np.datetime64(test_from, "D"))
    if not expected[0] or not expected[2] or (validate_from is not None and not expected[1]):
        with pytest.raises(InputError, match=r"the split has no (training|validation|test) interactions"):
            split_dataset("d", dated, items, **options)
        return
    dataset = split_dataset("d", dated, items, **options)
    train, validation, test = dataset.train, dataset.validation, dataset.test
    found = [set(zip(part.users.tolist(), items.tolist(), strict=True)) for part, items in
             ((train, train.items), (validation, validation.flat), (test, test.flat))]  # fmt: skip
    assert found == expected


def test_a_dataset_by_date_keeps_new_users_and_items() -> None:
    rows = [
        ("ann", "x", "2020-09-01"),
        ("ann", "y", "2020-09-10"),
        ("bob", "z", "2020-09-20"),
        ("ann", "x", "2020-09-20"),
    ]
    table = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    table["timestamp"] = table.timestamp.to_numpy("datetime64[s]").astype(np.int64)
    items = pd.DataFrame({"item": list("xyz")})
    options: dict[str, Any] = {"min_interactions": None, "split": "date"}
    dataset = split_dataset("d", table, items, **options, validate_from="2020-09-10", test_from="2020-09-20")
    assert [dataset.validation.of(user).tolist() for user in (0, 1)] == [[1], []]
    assert [dataset.test.of(user).tolist() for user in (0, 1)] == [[], [2]]  # ann had bought x before
    assert dataset.train.popularity.tolist() == [1, 0, 0] and dataset.train.history_lengths.tolist() == [1, 0]
    assert dataset.split == {
        "kind": "date", "min_interactions": None, "validate_from": "2020-09-10", "test_from": "2020-09-20",
    }  # fmt: skip
    for more, sentence in (
        ({}, "needs test_from"),
        ({"test_from": "2020-13-01"}, "'2020-13-01' is not a day"),
        ({"test_from": "NaT"}, "'NaT' is not a day"),
        ({"test_from": "2020-09-21"}, "no test interactions .*they go from 2020-09-01 to 2020-09-20"),
        ({"test_from": "2020-09-20", "validate_from": "2020-09-20"}, r"validate_from \(2020-09-20\) must come before"),
        ({"test_from": "2020-09-20", "held_out": 2}, "held_out and validate are options of the splits 'random' and"),
        ({"test_from": "2020-09-20", "split": "time"}, "are options of split='date'"),
        ({"split": "dates"}, "unknown split 'dates': did you mean 'date'"),
        ({"split": "random", "held_out": 1.5}, "whole number of items or a share of them between 0 and 1, not 1.5"),
        ({"split": "random", "held_out": 0}, "not 0"),
        ({"split": "random", "held_out": 3, "min_interactions": 6}, "at least 7 .6 to hold out and one to train"),
        ({"split": "random", "validate": False, "min_interactions": 1}, "at least 2 .1 to hold out"),
    ):
        with pytest.raises(InputError, match=sentence):
            split_dataset("d", table, items, **(options | more))
    with pytest.raises(InputError, match="the split by date needs timestamps"):
        split_dataset("d", table[["user", "item"]], items, **options, test_from="2020-09-20")


def test_split_dataset_numbers_by_id_and_drops_unused_items() -> None:
    table = pd.DataFrame({"user": ["z"] * 3 + ["b"] * 3 + ["q"], "item": list("cabdcax")})
    items = pd.DataFrame({"item": list("xabcde"), "category": list("XABCDE")})
    dataset = split_dataset("d", table, items, min_interactions=3)
    assert dataset.user_ids.tolist() == ["b", "z"]
    assert dataset.items.item.tolist() == list("abcd") and dataset.items.category.tolist() == list("ABCD")
    owned = {u: {*dataset.train.of(u), dataset.validation.items[u], dataset.test.items[u]} for u in (0, 1)}
    assert owned == {0: {0, 2, 3}, 1: {0, 1, 2}}
    whole = split_dataset("d", table, items, min_interactions=3, keep_unused_items=True)
    assert whole.items.item.tolist() == list("abcdex") and whole.n_items == 6
    with pytest.raises(InputError, match="user q has 1 different items"):
        split_dataset("d", table, items, min_interactions=None)
