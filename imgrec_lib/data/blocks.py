"""Interactions in blocks of users: of a table of any length no more than a block is in memory at a time.

What is larger than a block lies in files without a name, in the cache folder, and is memory-mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from imgrec_lib.data.dataset import Interactions
from imgrec_lib.files import Spool

BLOCK = 1 << 22
"""Rows that are in memory at a time, at least: all rows of a user are in one block."""


@dataclass(frozen=True)
class Pairs:
    """Different pairs of user and item, ascending by user and by item inside a user.

    Attributes:
        users, items: (n,) int64.
        times: (n,) int64 Unix seconds of each pair's first occurrence, or None.
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None

    @classmethod
    def of(cls, users: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> Pairs:
        """The different pairs among (n,) rows; of those that repeat one the earliest counts, else the first."""
        keys = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
        if times is None or (np.diff(times) >= 0).all():
            order = keys.argsort(kind="stable")
        else:
            order = np.lexsort((times, keys))
        order = order[np.diff(keys[order], prepend=-1) > 0]
        return cls(
            users[order].astype(np.int64), items[order].astype(np.int64), None if times is None else times[order]
        )

    def where(self, chosen: np.ndarray) -> Pairs:
        """Those that (n,) bool choose."""
        return Pairs(self.users[chosen], self.items[chosen], None if self.times is None else self.times[chosen])

    def interactions(self, n_users: int, n_items: int) -> Interactions:
        """In compressed rows."""
        indptr = np.zeros(n_users + 1, np.int64)
        np.cumsum(np.bincount(self.users, minlength=n_users), out=indptr[1:])
        return Interactions(indptr, self.items, n_items, self.times)


def chunks(n: int) -> Iterator[slice]:
    """Consecutive parts of n rows, each of `BLOCK` of them at most."""
    return (slice(first, min(first + BLOCK, n)) for first in range(0, n, BLOCK))


def counts_of(codes: np.ndarray, n: int) -> np.ndarray:
    """(n,) int64: how often each of n codes occurs in an array of any length."""
    return sum((np.bincount(codes[part], minlength=n) for part in chunks(len(codes))), np.zeros(n, np.int64))


def blocks_of_users(
    users: Callable[[slice], np.ndarray],
    items: Callable[[slice], np.ndarray],
    times: np.ndarray | None,
    counts: np.ndarray,
) -> Iterator[tuple[int, int, Pairs]]:
    """Rows in blocks of consecutive users, each block with its different pairs.

    Args:
        users, items: the index of the user and of the item in a part of the rows, each (m,).
        times: (n,) int64 Unix seconds, or None.
        counts: (n_users,) rows of each user.

    Yields:
        The block's first user, the one behind its last, and its pairs.
    """
    n = int(counts.sum())
    block_of = (counts.cumsum() - counts) // BLOCK
    block_of = np.unique(block_of, return_inverse=True)[1]  # a user may fill several
    edges = np.append(block_of.searchsorted(np.arange(block_of.max(initial=0) + 1)), len(counts)).tolist()
    kind = np.dtype([("user", np.int32), ("item", np.int32)] + ([] if times is None else [("time", np.int64)]))

    def read(part: slice) -> np.ndarray:
        found = users(part)
        table = np.empty(len(found), kind)
        table["user"], table["item"] = found, items(part)
        if times is not None:
            table["time"] = times[part]
        return table

    with ExitStack() as stack:
        if len(edges) == 2:
            tables: Sequence[Callable[[], np.ndarray]] = [lambda: read(slice(None))]
        else:
            spools = [stack.enter_context(Spool()) for _ in edges[1:]]
            for part in chunks(n):
                table = read(part)
                home = block_of[table["user"]]
                order = home.argsort(kind="stable")
                ends = home[order].searchsorted(np.arange(1, len(spools)))
                for spool, own in zip(spools, np.split(table[order], ends), strict=True):
                    spool.append(own)
            tables = [spool.array for spool in spools]
        for first, end, own_table in zip(edges[:-1], edges[1:], tables, strict=True):
            table = own_table()
            yield first, end, Pairs.of(table["user"], table["item"], None if times is None else table["time"])


def joined(blocks: Iterable[Sequence[Interactions]]) -> list[Interactions]:
    """Interactions of consecutive blocks of users as those of all users.

    Args:
        blocks: of each block, several kinds of interactions over one catalogue, such as training and test.

    Returns:
        One for each kind.
    """
    with ExitStack() as stack:
        kinds: list[_Growing] = []
        for block in blocks:
            kinds = kinds or [_Growing(stack, each) for each in block]
            for kind, each in zip(kinds, block, strict=True):
                kind.append(each)
        return [kind.interactions() for kind in kinds]


def renumbered(interactions: Interactions, numbers: np.ndarray, n_items: int) -> Interactions:
    """The same interactions with `numbers[item]`, which ascend, for each item."""
    if len(interactions) <= BLOCK:
        return replace(interactions, items=numbers[interactions.items], n_items=n_items)
    with Spool() as spool:
        for part in chunks(len(interactions)):
            spool.append(numbers[interactions.items[part]])
        return replace(interactions, items=spool.array(), n_items=n_items)


class _Growing:
    """Interactions to which those of the next users are added; what is like them says whether there are times."""

    def __init__(self, stack: ExitStack, like: Interactions) -> None:
        self.n_items, self.lengths = like.n_items, [np.zeros(1, np.int64)]
        self.items = stack.enter_context(Spool())
        self.times = None if like.times is None else stack.enter_context(Spool())

    def append(self, block: Interactions) -> None:
        self.lengths.append(block.history_lengths)
        self.items.append(block.items)
        if self.times is not None and block.times is not None:
            self.times.append(block.times)

    def interactions(self) -> Interactions:
        times = None if self.times is None else self.times.array()
        return Interactions(np.concatenate(self.lengths).cumsum(), self.items.array(), self.n_items, times)
