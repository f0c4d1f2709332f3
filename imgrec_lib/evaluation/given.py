"""Evaluation of lists that another program made: what can be known of a model by its lists alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Dataset, HeldOut, Interactions
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.evaluate import Evaluation, metrics_of, per_user_table
from imgrec_lib.evaluation.lists import list_metrics
from imgrec_lib.evaluation.metrics import CUTOFFS, check_cutoffs
from imgrec_lib.evaluation.protocols import held_out, owned_items
from imgrec_lib.evaluation.ranking import Counts

OF_ALL_SCORES = ("auc", "auc_strict", "tie_share")
"""Metrics that need the scores of all candidates."""


@dataclass(frozen=True)
class Listed:
    """Items that were listed for users, as indices, in any order.

    Attributes:
        users, items: (n,) int64, each pair once.
        values: (n,) float64; of a user's items, the higher the better.
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    def where(self, chosen: np.ndarray) -> Listed:
        """Those that a mask chooses."""
        return Listed(self.users[chosen], self.items[chosen], self.values[chosen])

    def in_order(self) -> Listed:
        """By user, and a user's best first; of equal values the lower item first."""
        order = np.lexsort((self.items, -self.values, self.users))
        return Listed(self.users[order], self.items[order], self.values[order])

    def lengths(self, n_users: int) -> np.ndarray:
        """(n_users,) int64: items of each user."""
        return np.bincount(self.users, minlength=n_users)


def evaluate_listed(
    listed: Listed,
    dataset: Dataset,
    *,
    longest: int,
    part: str = "test",
    cutoffs: Sequence[int] = CUTOFFS,
    features: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate lists under the protocol `exact`.

    A held-out item that is in its user's list stands behind the candidates listed above it; one that is not stands
    last. So every metric with a cut-off up to the length of the lists is exact. What needs the scores of all candidates
    is None, unless every user with a held-out item was given all candidates. A user without a list has found nothing.

    Args:
        listed: the lists, without what a list may not hold: the user's training items and, in a test, validation items.
        dataset: the dataset.
        longest: items that the longest list was given with; metrics at larger cut-offs are None.
        part, cutoffs, features: see `evaluate`.

    Returns:
        As `evaluate`, with `exact` alone.

    Raises:
        InputError: see `evaluate`.
    """
    check_cutoffs(cutoffs, dataset.n_items)
    held = held_out(dataset, part)
    if not len(held):
        raise InputError("no user has a held-out item: split the dataset so that some items are held out.")
    owned = owned_items(dataset.train, *([dataset.validation] if part == "test" else []), held)
    listed = listed.in_order()
    counts, complete = _counts(listed, held, owned)
    wanted = [k for k in cutoffs if k <= longest or complete]
    metrics = metrics_of(counts, held, dataset, cutoffs)
    known = {name for name in metrics if complete or not name.endswith(OF_ALL_SCORES)}
    metrics = {
        name: value if name in known and ("@" not in name or int(name.rpartition("@")[2]) in wanted) else None
        for name, value in metrics.items()
    }
    lists = _as_lists(listed, np.unique(held.users), dataset.n_users, max(cutoffs))
    categories = None if dataset.categories is None else dataset.categories[0]
    if wanted:
        metrics |= list_metrics(lists, dataset.train, wanted, categories, features)
    return Evaluation(part, 0, {"exact": metrics}, per_user_table({"exact": counts}, held, dataset), lists)


def _counts(listed: Listed, held: HeldOut, owned: Interactions) -> tuple[Counts, bool]:
    """What the lists say of each held-out item, and whether they hold all candidates of all of these users."""
    lengths = listed.lengths(owned.n_users)
    starts = np.cumsum(lengths) - lengths
    candidates = (owned.n_items - owned.history_lengths)[held.users]
    keys = pd.Index(listed.users * owned.n_items + listed.items)
    place = keys.get_indexer(held.users * owned.n_items + held.flat)
    # Each held-out item beside every item that is listed for its user and is none of his held-out ones.
    own = np.zeros(len(listed), bool)
    own[place[place >= 0]] = True
    number = lengths[held.users]
    target = np.repeat(np.arange(len(held)), number)
    beside = np.arange(len(target)) - np.repeat(np.cumsum(number) - number, number) + starts[held.users][target]
    target, beside = target[~own[beside]], beside[~own[beside]]
    value = np.where(place >= 0, np.append(listed.values, np.nan)[place], -np.inf)
    above, equal, among = (
        np.bincount(target[chosen], minlength=len(held))
        for chosen in (
            listed.values[beside] > value[target],
            listed.values[beside] == value[target],
            np.ones(len(beside), bool),
        )
    )
    there = place >= 0
    counts = Counts(np.where(there, above, candidates), np.where(there, equal, 0), candidates)
    return counts, bool(there.all() and (among == candidates).all())


def _as_lists(listed: Listed, users: np.ndarray, n_users: int, k: int) -> np.ndarray:
    """(number of users, k) int64: the first items of each user's list, -1 past its end."""
    lengths = listed.lengths(n_users)
    place = np.arange(len(listed)) - (np.cumsum(lengths) - lengths)[listed.users]
    lists = np.full((n_users, k), -1, np.int64)
    first = place < k
    lists[listed.users[first], place[first]] = listed.items[first]
    return lists[users]
