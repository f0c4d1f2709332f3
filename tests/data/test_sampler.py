"""The sampler: exact exclusion, the distributions it promises, and determinism."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import not_none
from scipy import stats
from toy import toy_data

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.data.sampler import Sampler
from imgrec_lib.errors import InputError


def training(sets: list[set[int]], n_items: int, times: bool = False) -> TrainingData:
    """Training data in which user u owns `sets[u]`; the time of an interaction is 1000 * user + item."""
    pairs = [(u, i) for u, owned in enumerate(sets) for i in owned]
    users, items = (np.array([p[k] for p in pairs], dtype=np.int64) for k in (0, 1))
    stamps = 1000 * users + items if times else None
    return TrainingData(Interactions.from_pairs(users, items, len(sets), n_items, stamps))


def fits(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Chi-square goodness of fit. The draws are seeded: the result is the same at every run."""
    return bool(stats.chisquare(counts, expected).pvalue > 1e-3)


@st.composite
def interaction_sets(draw: st.DrawFn) -> tuple[list[set[int]], int]:
    n_items = draw(st.integers(2, 12))
    item_sets = st.sets(st.integers(0, n_items - 1), max_size=n_items)
    return draw(st.lists(item_sets, min_size=1, max_size=6)), n_items


@settings(deadline=None, max_examples=150)
@given(interaction_sets(), st.integers(0, 2**31))
def test_triples_are_exact(case: tuple[list[set[int]], int], seed: int) -> None:
    sets, n_items = case
    data = training(sets, n_items, times=True)
    drawable = {u for u, owned in enumerate(sets) if 0 < len(owned) < n_items}
    if not drawable:
        with pytest.raises(InputError, match="no user has both"):
            Sampler(data, seed)
        return
    sampler = Sampler(data, seed)
    for by in ("user", "interaction"):
        batch = sampler.triples(60, 4, by)
        assert batch.users.shape == batch.positives.shape == (60,) and batch.negatives.shape == (60, 4)
        assert batch.times is not None
        for u, i, time, row in zip(*(x.tolist() for x in (batch.users, batch.positives, batch.times)),
                                   batch.negatives.tolist(), strict=True):  # fmt: skip
            assert u in drawable and i in sets[u] and time == 1000 * u + i
            assert all(0 <= j < n_items and j not in sets[u] for j in row)


@settings(deadline=None, max_examples=100)
@given(interaction_sets(), st.integers(0, 2**31))
def test_without_replacement_all_items_of_a_user_come_before_one_comes_again(
    case: tuple[list[set[int]], int], seed: int
) -> None:
    sets, n_items = case
    drawable = {u for u, owned in enumerate(sets) if 0 < len(owned) < n_items}
    if not drawable:
        return
    sampler = Sampler(training(sets, n_items, times=True), seed)
    for _ in range(2):
        n = sampler.n_interactions
        parts = [sampler.positives(size, "user-without-replacement") for size in (n - n // 2, n // 2)]
        users, items, times = (torch.cat([not_none(part[k]) for part in parts]).tolist() for k in range(3))
        assert all(time == 1000 * u + i for u, i, time in zip(users, items, times, strict=True))
        assert set(users) <= drawable
        sampler.start_epoch()
        for u in drawable:
            drawn = [i for v, i in zip(users, items, strict=True) if v == u]
            for start in range(0, len(drawn), len(sets[u])):
                turn = drawn[start : start + len(sets[u])]
                assert len(set(turn)) == len(turn) and set(turn) <= sets[u]


@pytest.mark.slow
def test_without_replacement_users_and_orders_are_uniform() -> None:
    """Users uniform whatever they own; each of a user's orders of three items as likely; epochs are independent."""
    sets = [{0, 1, 2}, {3}, {0, 1, 2, 3, 4, 5, 6, 7}, set(range(4, 9))]
    sampler = Sampler(training(sets, 12), 3)
    users, orders, fresh = np.zeros(4), dict.fromkeys(itertools.permutations((0, 1, 2)), 0), np.zeros(5)
    last = None
    for _ in range(3000):
        sampler.start_epoch()
        drawn, items, _ = sampler.positives(sampler.n_interactions, "user-without-replacement")
        users += np.bincount(drawn.numpy(), minlength=4)
        first = items[drawn == 0][:3].tolist()
        if len(first) == 3:
            orders[tuple(first)] += 1
        mine = items[drawn == 3]
        if len(mine):
            if last is not None:
                fresh[(int(mine[0]) - last) % 5] += 1  # what came last says nothing of what comes first
            last = int(mine[-1])
    assert fits(users, np.full(4, users.sum() / 4))
    assert fits(np.array(list(orders.values())), np.full(6, sum(orders.values()) / 6))
    assert fits(fresh, np.full(5, fresh.sum() / 5))
    # With replacement a user's first three draws repeat an item in seven cases of nine.
    with_replacement = [sampler.positives(17, "user") for _ in range(300)]
    firsts = [items[drawn == 0][:3].tolist() for drawn, items, _ in with_replacement]
    assert any(len(set(first)) < len(first) for first in firsts)


def test_every_non_item_is_reached() -> None:
    """Ends of the catalogue, neighbours and gaps: all of the complement and nothing else."""
    sets = [{0, 9}, {4}, {0, 1, 2, 3, 4, 5, 6, 7, 8}, {1, 3, 5, 7, 9}, set(), {9}]
    sampler = Sampler(training(sets, 10), 3)
    drawn = sampler.negatives(torch.arange(6), 2000)
    for row, owned in zip(drawn.tolist(), sets, strict=True):
        assert set(row) == set(range(10)) - owned


def test_negatives_are_uniform_over_non_items() -> None:
    data = toy_data()
    sampler, n = Sampler(data, 7), 20_000
    users = torch.arange(0, data.n_users, 4)
    pvalues = []
    for user, row in zip(users.tolist(), sampler.negatives(users, n).numpy(), strict=True):
        free = np.setdiff1d(np.arange(data.n_items), data.interactions.of(user))
        counts = np.bincount(row, minlength=data.n_items)
        assert counts.sum() == counts[free].sum() == n
        pvalues.append(stats.chisquare(counts[free]).pvalue)
    assert min(pvalues) > 1e-3
    # The p-values of a fair sampler are uniform; those of one that is too even are all near 1.
    assert min(pvalues) < 0.95


def test_negatives_ignore_popularity() -> None:
    """Item 0 belongs to everyone but the last user, item 9 to no one: the last user draws both alike."""
    sets = [{0} for _ in range(20)] + [{1}]
    sampler = Sampler(training(sets, 10), 0)
    counts = np.bincount(sampler.negatives(torch.tensor([20]), 50_000)[0].numpy(), minlength=10)
    assert counts[1] == 0 and fits(np.delete(counts, 1), np.full(9, 50_000 / 9))


def test_positives_by_user_and_by_interaction() -> None:
    sets = [{0}, {1, 2, 3}, {0, 4, 5, 6, 7, 8}, set(), set(range(10))]
    sampler, n = Sampler(training(sets, 10), 1), 60_000
    pairs = [(u, i) for u in (0, 1, 2) for i in sorted(sets[u])]
    for by, expected in (
        ("user", [n / 3 / len(sets[u]) for u, _ in pairs]),
        ("interaction", [n / len(pairs) for _ in pairs]),
    ):
        users, items, times = sampler.positives(n, by)
        assert times is None
        counts = np.array([int(((users == u) & (items == i)).sum()) for u, i in pairs])
        assert counts.sum() == n  # the users without an item and with all of them are never drawn
        assert fits(counts, np.array(expected))
    with pytest.raises(InputError, match="not by 'item'"):
        sampler.positives(1, "item")


def test_same_seed_same_batches() -> None:
    data = toy_data()
    first, second, other = Sampler(data, 5), Sampler(data, 5), Sampler(data, 6)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for _ in range(3):
        a, b, c = (s.triples(50, 2) for s in (first, second, other))
        assert all(torch.equal(not_none(x), not_none(y)) for x, y in zip(a, b, strict=True))
        assert not torch.equal(a.negatives, c.negatives)
    assert torch.equal(torch.get_rng_state(), before)


def test_large_catalogue() -> None:
    """Users and items of Amazon Fashion: keys of users and items go beyond 32 bits."""
    n_users, n_items = 45_184, 166_270
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(n_users), 2)
    items = np.stack([rng.integers(0, n_items // 2, n_users), rng.integers(n_items // 2, n_items, n_users)], 1).ravel()
    sampler = Sampler(TrainingData(Interactions.from_pairs(users, items, n_users, n_items)), 0)
    assert (n_users - 1) * n_items > 2**32
    batch = sampler.triples(20_000, 3)
    assert batch.negatives.min() >= 0 and batch.negatives.max() < n_items
    own = torch.as_tensor(items.reshape(n_users, 2))[batch.users]
    assert (own == batch.positives.unsqueeze(1)).any(1).all()
    assert not (batch.negatives.unsqueeze(2) == own.unsqueeze(1)).any()
    counts, _ = np.histogram(batch.negatives.numpy().ravel(), bins=20, range=(0, n_items))
    assert fits(counts, np.full(20, 3000.0))
