"""Against which items a held-out item is ranked: the protocols of the papers, by name.

The negative lists depend on the dataset, the protocol, the seed and the part, and on nothing else, so that all models
are ranked against the same items. The random numbers are PCG64's raw output, which NumPy promises never to change, and
are mapped to items here: the lists are the same on every platform and with every version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.files import fingerprint

USERS_AT_ONCE = 4096
"""Users whose lists are drawn together: bounds the temporary arrays."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """One way to choose the candidates against which a user's held-out item p is ranked.

    Attributes:
        name: the name by which it is chosen.
        draws: items drawn for each user, or None for the whole catalogue without drawing.
        distinct: whether the drawn items of a user are distinct (drawn without replacement).
        owned: what becomes of the user's training items and p (all his held-out items of that part, where he has
            several): "candidates" like any other item (p then ties with itself); "skipped" when drawn, so that the user
            has fewer candidates; "avoided", never drawn.
        source: who uses it.
    """

    name: str
    draws: int | None
    distinct: bool
    owned: Literal["candidates", "skipped", "avoided"]
    source: str


PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(
            "exact", None, True, "avoided",
            "The whole catalogue, cold items included, without the user's training and held-out items: the AUC as "
            "defined by He and McAuley 2016 (VBPR), section 4.2, and computed by their C++ program.",
        ),
        EvaluationProtocol(
            "dvbpr-100", 100, True, "skipped",
            "Kang et al. 2017 (DVBPR), repository kang205/DVBPR, DVBPR/main.py. The user's other held-out item may be "
            "a candidate.",
        ),
        EvaluationProtocol(
            "imgrec-100", 100, False, "candidates",
            "The ImgRec scripts as they run: their test for owned items has no effect, so that training items, "
            "repetitions and p itself occur.",
        ),
        EvaluationProtocol(
            "sampled-500", 500, False, "avoided",
            "The 500 negatives of the ImgRec paper, Table 3, and of Hou et al. 2019 (SAERS). The user's other "
            "held-out item may be a candidate.",
        ),
    )
}  # fmt: skip
"""The protocols by name."""


def evaluation_protocol(name: str) -> EvaluationProtocol:
    """The protocol of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise unknown_name("evaluation protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def held_out(dataset: Dataset, part: str) -> HeldOut:
    """The held-out items of one part.

    Args:
        part: "validation" or "test".

    Raises:
        InputError: another part.
    """
    parts = {"validation": dataset.validation, "test": dataset.test}
    if part not in parts:
        raise unknown_name("part", part, parts)
    return parts[part]


def owned_items(train: Interactions, *held: HeldOut) -> Interactions:
    """Training items and held-out items of each user together, each item once."""
    users = np.concatenate([train.users, *(part.users for part in held)])
    items = np.concatenate([train.items, *(part.flat for part in held)])
    keys = np.sort(users * train.n_items + items)
    keys = keys[np.diff(keys, prepend=-1) > 0]  # as np.unique would, which takes several times as long
    return Interactions.from_pairs(keys // train.n_items, keys % train.n_items, train.n_users, train.n_items)


def negative_lists(dataset: Dataset, protocol: str, seed: int = 0, part: str = "test") -> np.ndarray:
    """Draw the candidates of every user, for all his held-out items the same.

    Where the catalogue has no more items than a distinct protocol draws, every item is drawn once and the rest of the
    row is -1. The result takes 8 bytes x users x draws; nothing of the size users x catalogue is made.

    Args:
        dataset: the dataset, whose `ranking_fingerprint` enters the random stream.
        protocol: name of a protocol that draws.
        seed: any integer.
        part: "validation" or "test": whose held-out item is ranked.

    Returns:
        (n_users, draws) int64; -1 where a draw was skipped, in the whole row of a user without held-out item, and of
        one who owns the whole catalogue where owned items are avoided.

    Raises:
        InputError: unknown protocol or part, or `exact`, which draws nothing.
    """
    chosen = evaluation_protocol(protocol)
    held = held_out(dataset, part)
    if chosen.draws is None:
        raise InputError(f"protocol {protocol!r} ranks against the whole catalogue: it has no negative lists.")
    owned = owned_items(dataset.train, held)
    bits = np.random.PCG64(int(fingerprint(dataset.ranking_fingerprint, protocol, seed, part), 16))
    lists = np.full((dataset.n_users, chosen.draws), -1, dtype=np.int64)
    for start in range(0, dataset.n_users, USERS_AT_ONCE):
        block = lists[start : start + USERS_AT_ONCE]
        users = np.arange(start, start + len(block))
        # 64 random bits modulo at most 2**31 items: the departure from uniformity is below 2**-33.
        random = np.asarray(bits.random_raw(block.shape), dtype=np.uint64)
        if chosen.owned == "avoided":
            block[:] = _not_owned(random, users, owned)
        elif chosen.distinct:
            drawn = _distinct(random, dataset.n_items)
            block[:, : drawn.shape[1]] = drawn
        else:
            block[:] = random % np.uint64(dataset.n_items)
        if chosen.owned == "skipped":
            block[_is_owned(users, block, owned)] = -1
    without = np.ones(dataset.n_users, dtype=bool)
    without[held.users] = False
    lists[without] = -1
    return lists


def _distinct(random: np.ndarray, n_items: int) -> np.ndarray:
    """(B, draws) random numbers -> (B, min(draws, n_items)) distinct items a row, every subset equally likely.

    R. Floyd's algorithm (Bentley and Floyd 1987, Communications of the ACM 30(9)), for all rows at once: exact, and
    without rejection however small the catalogue.
    """
    size = min(random.shape[1], n_items)
    chosen = np.empty((size, len(random)), dtype=np.int64)
    for i in range(size):
        last = n_items - size + i
        item = (random[:, i] % np.uint64(last + 1)).astype(np.int64)
        chosen[i] = np.where((chosen[:i] == item).any(axis=0), last, item)
    return chosen.T


def _not_owned(random: np.ndarray, users: np.ndarray, owned: Interactions) -> np.ndarray:
    """(B, draws) random numbers -> (B, draws) items that their user does not own, each equally likely.

    The r-th such item is r plus the number of owned items before it, found by one binary search.
    """
    first, last = owned.indptr[users[0]], owned.indptr[users[-1] + 1]
    lengths = owned.history_lengths[users]
    free = (owned.n_items - lengths)[:, None]
    rank = (random % np.maximum(free, 1).astype(np.uint64)).astype(np.int64)
    row = np.arange(len(users))
    position = np.arange(first, last) - np.repeat(owned.indptr[users], lengths)
    gaps = np.repeat(row, lengths) * owned.n_items + owned.items[first:last] - position
    before = np.searchsorted(gaps, row[:, None] * owned.n_items + rank, side="right")
    return np.where(free > 0, rank + before - (owned.indptr[users] - first)[:, None], -1)


def _is_owned(users: np.ndarray, items: np.ndarray, owned: Interactions) -> np.ndarray:
    """Whether each of the (B, n) items is owned by its row's user: (B, n) bool."""
    first, last = owned.indptr[users[0]], owned.indptr[users[-1] + 1]
    keys = np.repeat(users, owned.history_lengths[users]) * owned.n_items + owned.items[first:last]
    if not len(keys):
        return np.zeros(items.shape, dtype=bool)
    wanted = users[:, None] * owned.n_items + items
    return keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
