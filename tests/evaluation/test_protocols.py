"""Negative lists: exact exclusion, uniform draws, and nothing but dataset, protocol, seed and part decides them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import PROTOCOLS, negative_lists, protocols

SAMPLED = [name for name, protocol in PROTOCOLS.items() if protocol.draws is not None]


def make(train: list[list[int]], validation: list[int], test: list[int], n_items: int) -> Dataset:
    users = np.repeat(np.arange(len(train)), [len(items) for items in train])
    items = np.array([i for row in train for i in row], dtype=np.int64)
    return Dataset(
        "small",
        np.array([f"u{u}" for u in range(len(train))]),
        pd.DataFrame({"item": [f"i{i}" for i in range(n_items)]}),
        Interactions.from_pairs(users, items, len(train), n_items),
        HeldOut(np.array(validation, dtype=np.int64)),
        HeldOut(np.array(test, dtype=np.int64)),
    )


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    n_items = draw(st.integers(2, 300))
    train, validation, test = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        count = draw(st.integers(2, min(n_items, 12)))
        items = draw(st.lists(st.integers(0, n_items - 1), min_size=count, max_size=count, unique=True))
        validation.append(items[0] if draw(st.booleans()) else -1)
        test.append(items[1] if draw(st.booleans()) else -1)
        train.append(sorted(items[2:]))
    return make(train, validation, test, n_items)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.sampled_from(["validation", "test"]), st.integers(0, 5))
def test_lists_obey_their_protocol(dataset: Dataset, part: str, seed: int) -> None:
    targets = getattr(dataset, part).items
    for name in SAMPLED:
        protocol = PROTOCOLS[name]
        lists = negative_lists(dataset, name, seed, part)
        assert lists.shape == (dataset.n_users, protocol.draws) and lists.dtype == np.int64
        assert lists.min() >= -1 and lists.max() < dataset.n_items
        for user, row in enumerate(lists):
            if targets[user] < 0:
                assert (row == -1).all()
                continue
            owned = {*dataset.train.of(user), targets[user]}
            drawn = [int(i) for i in row if i >= 0]
            if name == "imgrec-100":
                assert len(drawn) == 100
            elif name == "sampled-500":
                assert not owned & set(drawn)
                assert len(drawn) == (500 if len(owned) < dataset.n_items else 0)
            else:
                assert not owned & set(drawn)
                assert len(drawn) == len(set(drawn))
                assert len(drawn) >= min(100, dataset.n_items) - len(owned)


def test_a_catalogue_smaller_than_the_list_is_taken_whole() -> None:
    lists = negative_lists(make([[0, 3], []], [1, 5], [2, 4], 7), "dvbpr-100")
    assert set(lists[0]) == {-1, 1, 4, 5, 6}  # the other held-out item, 1, stays
    assert set(lists[1]) == {-1, 0, 1, 2, 3, 5, 6}
    assert (lists >= 0).sum(1).tolist() == [4, 6]


def test_one_user_one_item_and_a_user_who_owns_everything() -> None:
    alone = make([[]], [-1], [0], 1)
    assert (negative_lists(alone, "imgrec-100") == 0).all()  # the item itself, with which it ties
    assert (negative_lists(alone, "dvbpr-100") == -1).all()
    everything = make([[0, 1, 2], [0]], [-1, -1], [3, 3], 4)
    lists = negative_lists(everything, "sampled-500")
    assert (lists[0] == -1).all()
    assert set(lists[1]) == {1, 2}


def many(n_users: int, n_items: int) -> Dataset:
    """Users who all own items 0 and 7 and hold out item 3 (test) and 5 (validation)."""
    return make([[0, 7]] * n_users, [5] * n_users, [3] * n_users, n_items)


@pytest.mark.parametrize(
    ("name", "n_items", "excluded"),
    [
        ("dvbpr-100", 130, {0, 7, 3}),
        ("dvbpr-100", 1000, {0, 7, 3}),
        ("imgrec-100", 130, set()),
        ("sampled-500", 130, {0, 7, 3}),
    ],
)
def test_draws_are_uniform(name: str, n_items: int, excluded: set[int]) -> None:
    lists = negative_lists(many(1500, n_items), name)
    counts = np.bincount(lists[lists >= 0], minlength=n_items)
    allowed = np.setdiff1d(np.arange(n_items), list(excluded))
    assert counts[list(excluded)].sum() == 0
    # Drawing without replacement makes the counts less variable than chi-square supposes: scale by the share left out.
    spread = 1 - 100 / n_items if PROTOCOLS[name].distinct else 1.0
    statistic = ((counts[allowed] - counts[allowed].mean()) ** 2 / counts[allowed].mean()).sum() / spread
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], len(allowed) - 1)
    assert low < statistic < high
    if PROTOCOLS[name].distinct:
        sizes = (lists >= 0).sum(1)
        assert sizes.mean() == pytest.approx(100 - 300 / n_items, abs=0.15)


def test_pairs_of_distinct_draws_are_uniform() -> None:
    """Every subset must be equally likely, not only every item."""
    random = np.random.default_rng(5).integers(0, 2**64, (30_000, 3), dtype=np.uint64)
    drawn = np.sort(protocols._distinct(random, 6), axis=1)
    subsets, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(subsets) == 20
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("name", SAMPLED)
def test_lists_depend_on_dataset_protocol_seed_and_part_only(name: str) -> None:
    dataset = many(20, 400)
    lists = negative_lists(dataset, name, seed=1)
    np.testing.assert_array_equal(lists, negative_lists(replace(dataset), name, seed=1))
    assert (lists != negative_lists(dataset, name, seed=2)).mean() > 0.5
    other = replace(dataset, user_ids=np.array([f"v{u}" for u in range(20)]))
    assert (lists != negative_lists(other, name, seed=1)).mean() > 0.5
    assert (lists != negative_lists(dataset, name, seed=1, part="validation")).mean() > 0.5


@pytest.mark.parametrize("name", SAMPLED)
def test_lists_do_not_depend_on_the_block_of_users(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make([[u % 5, 9] for u in range(23)], [6] * 23, [8] * 23, 150)
    whole = negative_lists(dataset, name)
    monkeypatch.setattr(protocols, "USERS_AT_ONCE", 4)
    np.testing.assert_array_equal(whole, negative_lists(dataset, name))


def test_lists_are_the_same_on_every_platform() -> None:
    """The known answer: PCG64's raw output modulo the catalogue, computed here with Python's integers."""
    dataset = many(3, 130)
    from imgrec_lib.files import fingerprint

    bits = np.random.PCG64(int(fingerprint(dataset.ranking_fingerprint, "imgrec-100", 0, "test"), 16))
    expected = [int(r) % 130 for r in bits.random_raw(300)]
    assert negative_lists(dataset, "imgrec-100").ravel().tolist() == expected


def test_what_the_item_table_says_marks_the_data_and_leaves_the_lists() -> None:
    """A run with other categories or attributes is another run, ranked against the same items."""
    plain = many(3, 130)

    def described(**columns: Any) -> Dataset:
        return replace(plain, items=plain.items.assign(**columns))

    colour = described(category="shoe", colour="red", name="Pump")
    others = [
        plain, described(category="boot", colour="red"), described(category="shoe", colour="blue"),
        described(category="shoe", shade="red"), described(category="shoe"), described(category="shoe", colour=None),
    ]  # fmt: skip
    assert len({each.fingerprint for each in [colour, *others]}) == 7
    assert described(category="shoe", colour="red", name="Court shoe").fingerprint == colour.fingerprint
    for other in others:
        np.testing.assert_array_equal(negative_lists(other, "imgrec-100"), negative_lists(colour, "imgrec-100"))


def test_memory_is_that_of_the_lists() -> None:
    import tracemalloc

    n_users, n_items = 20_000, 166_000
    dataset = many(n_users, n_items)
    dataset.ranking_fingerprint  # noqa: B018 - computed before the measurement
    tracemalloc.start()
    lists = negative_lists(dataset, "dvbpr-100")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < lists.nbytes + 60e6  # a dense matrix of bits alone would take 415 MB


def test_wrong_names_are_sentences() -> None:
    dataset = many(2, 20)
    with pytest.raises(InputError, match="did you mean 'dvbpr-100'"):
        negative_lists(dataset, "dvbpr100")
    with pytest.raises(InputError, match="whole catalogue"):
        negative_lists(dataset, "exact")
    with pytest.raises(InputError, match="unknown part 'tests'"):
        negative_lists(dataset, "dvbpr-100", part="tests")
