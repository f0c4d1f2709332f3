"""Ranking metrics from counts: pure functions, one value a user.

Every metric here follows from three counts a held-out item: how many candidates score above it (`higher`), how many
score the same (`tied`), and how many candidates there are (`candidates`, no held-out item of the user among them).
Nothing is sorted but the few held-out items of one user.

Ties decide more than they should. The papers' AUC counts a tie as lost, and the ImgRec scripts' HR@10 counts it as
won, so that a constant scorer gets an AUC of 0 and a hit ratio of 1. Here `auc_strict` is the papers' rule, `auc`
counts a tie one half, and every metric with a cut-off is its expectation over a random order of the tied items; the
share of ties is reported beside them. The scripts' own rule for HR@10 is not offered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from imgrec_lib.errors import InputError, shown, unknown_name
from imgrec_lib.evaluation.lists import LIST_METRICS
from imgrec_lib.options import Count

Cutoffs = Annotated[Sequence[Count], MinLen(1)]
CUTOFFS = (10, 20)
"""Lengths of the recommendation lists that are measured where nothing else is asked for."""


def _checked(**counts: np.ndarray) -> tuple[np.ndarray, ...]:
    arrays = tuple(np.asarray(values) for values in counts.values())
    names = ", ".join(counts)
    if any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays):
        raise ValueError(f"{names} must be (n,) each, not {', '.join(str(a.shape) for a in arrays)}")
    if any(a.dtype.kind not in "iu" or (a < 0).any() for a in arrays):
        raise ValueError(f"{names} must be counts: whole numbers that are not negative")
    if len(arrays) == 3 and (arrays[0] + arrays[1] > arrays[2]).any():
        raise ValueError("higher + tied exceeds candidates for some user")
    return arrays


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def auc(higher: np.ndarray, tied: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Area under the ROC curve with ties counted one half (the mid-rank, or Mann-Whitney, AUC).

    Args:
        higher, tied, candidates: (n,) integer counts, one of each a held-out item.

    Returns:
        (n,) float64; NaN where there are no candidates.

    Raises:
        ValueError: the counts have other shapes or are impossible.
    """
    higher, tied, candidates = _checked(higher=higher, tied=tied, candidates=candidates)
    return 1 - _share(higher + tied / 2, candidates)


def auc_strict(higher: np.ndarray, tied: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Share of the candidates that score strictly below the held-out item: ties lose.

    This is the AUC of the papers (He and McAuley 2016, VBPR, equation 10; Kang et al. 2017, DVBPR; the ImgRec paper).
    Arguments, result and errors as in `auc`.
    """
    higher, tied, candidates = _checked(higher=higher, tied=tied, candidates=candidates)
    return 1 - _share(higher + tied, candidates)


def tie_share(tied: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Share of the candidates that score exactly as the held-out item does.

    Args:
        tied, candidates: (n,) integer counts.

    Returns:
        (n,) float64; NaN where there are no candidates.
    """
    tied, candidates = _checked(tied=tied, candidates=candidates)
    return _share(tied, candidates)


def mean_by_user(values: np.ndarray, users: np.ndarray | None) -> np.ndarray:
    """Mean over the held-out items of each user.

    Args:
        values: (n,) float64.
        users: (n,) integers, equal for the items of one user; None where each user has one item.

    Returns:
        (n_users,) float64, users in ascending order.
    """
    if users is None:
        return values
    _, place, number = np.unique(users, return_inverse=True, return_counts=True)
    return np.bincount(place, values, len(number)) / number


@dataclass(frozen=True)
class Ranks:
    """Where the held-out items of each user stand when tied items are in random order; made by `ranks`.

    The items are ordered by user, the best of a user first. An item and all that score the same share `size` places,
    of which the first is `first`.

    Attributes:
        user: (n,) int64: place of the item's user in the results.
        first: (n,) int64 from 0: candidates and held-out items of the user that score above.
        size: (n,) int64: those that score the same, itself included.
        better: (n,) int64: the held-out items among those above.
        level: (n,) int64: the held-out items among those that score the same, itself included.
        relevant: (n_users,) int64: held-out items of each user, at least one.
    """

    user: np.ndarray
    first: np.ndarray
    size: np.ndarray
    better: np.ndarray
    level: np.ndarray
    relevant: np.ndarray

    def within(self, k: int) -> np.ndarray:
        """(n,) int64: how many of the places that the item may have are among the first k."""
        return np.clip(k - self.first, 0, self.size)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(n,) values -> (n_users,) float64: the sum over each user's items."""
        return np.bincount(self.user, values, len(self.relevant))

    def over_places(self, gains: np.ndarray) -> np.ndarray:
        """Sum of the gains of the places that each item may have.

        Args:
            gains: (k,) gain of each place; from place k on it is 0.

        Returns:
            (n,) float64.
        """
        sums, k = np.concatenate([[0.0], np.cumsum(gains)]), len(gains)
        return sums[np.minimum(self.first + self.size, k)] - sums[np.minimum(self.first, k)]


def ranks(higher: np.ndarray, tied: np.ndarray, users: np.ndarray | None = None) -> Ranks:
    """Places of held-out items from their counts.

    Held-out items of one user that tie have the same counts, and of those that do not tie one counts more candidates
    above it or ties with some, unless no candidate stands between them, so that their order does not matter. So the
    counts tell all.

    Args:
        higher, tied: (n,) integer counts of candidates, one of each a held-out item.
        users: (n,) integers, equal for the items of one user; None where each user has one item.

    Returns:
        The places; users in ascending order.

    Raises:
        ValueError: the counts have other shapes or are negative.
    """
    higher, tied = _checked(higher=higher, tied=tied)
    if users is None:
        one = np.ones(len(higher), np.int64)
        return Ranks(np.arange(len(higher)), higher, tied + 1, 0 * one, one, one)
    (users,) = _checked(users=users)
    order = np.lexsort((tied, higher, users))
    users, higher, tied = users[order], higher[order], tied[order]
    new_user = np.diff(users, prepend=-1) > 0
    new_level = new_user | (np.diff(higher, prepend=-1) > 0) | (np.diff(tied, prepend=-1) != 0)
    starts, levels = np.flatnonzero(new_user), np.flatnonzero(new_level)
    user, place = np.cumsum(new_user) - 1, np.cumsum(new_level) - 1
    better = levels[place] - starts[user]
    level = np.diff(levels, append=len(users))[place]
    return Ranks(user, higher + better, tied + level, better, level, np.diff(starts, append=len(users)))


def recall(at: Ranks, k: int) -> np.ndarray:
    """Expected share of the user's held-out items that are among the first k.

    Args:
        at: places of the held-out items.
        k: length of the list.

    Returns:
        (n_users,) float64.
    """
    return at.sums(at.within(k) / at.size) / at.relevant


def precision(at: Ranks, k: int) -> np.ndarray:
    """Expected share of the first k that are held-out items of the user; arguments and result as in `recall`."""
    return at.sums(at.within(k) / at.size) / k


def hit_ratio(at: Ranks, k: int) -> np.ndarray:
    """Probability that a held-out item is among the first k: 0 or 1 without ties; as in `recall`."""
    best = _best(at)
    # With one item in question the expected number of hits is the probability of one.
    return np.where(at.level[best] == 1, at.within(k)[best] / at.size[best], _first_hits(at, k).sum(0))


def mrr(at: Ranks, k: int) -> np.ndarray:
    """Expected 1 / rank (from 1) of the first held-out item, 0 if it is not among the first k; as in `recall`."""
    return (_first_hits(at, k) / (at.first[_best(at)] + np.arange(1, k + 1)[:, None])).sum(0)


def average_precision(at: Ranks, k: int) -> np.ndarray:
    """Expected average precision of the first k, whose mean over users is MAP@k; as in `recall`.

    The precision at the place of each held-out item among the first k, summed and divided by the largest number of
    them that can be there, min(k, held-out items of the user).
    """
    # At its place first + j an item expects j * (level - 1) / (size - 1) others of its level before it. So the sum over
    # j of (better + 1 + that) / (first + j + 1) is wanted, in which j / (first + j + 1) = 1 - (first + 1) * reciprocal.
    reciprocals = at.over_places(1 / np.arange(1, k + 1))
    share = (at.level - 1) / np.maximum(at.size - 1, 1)
    total = (at.better + 1) * reciprocals + share * (at.within(k) - (at.first + 1) * reciprocals)
    return at.sums(total / at.size) / np.minimum(at.relevant, k)


def ndcg(at: Ranks, k: int) -> np.ndarray:
    """Expected NDCG@k: gain 1 / log2(2 + rank) of each held-out item (ranks from 0), 0 from rank k on; as in `recall`.

    It is divided by the gain of an ideal list (Jaervelin and Kekaelaeinen 2002, with a gain of 1 for every held-out
    item): 1 with one held-out item.
    """
    gains = 1 / np.log2(np.arange(k) + 2)
    return at.sums(at.over_places(gains) / at.size) / np.cumsum(gains)[np.minimum(at.relevant, k) - 1]


def _best(at: Ranks) -> np.ndarray:
    """(n_users,) where the best held-out item of each user stands in `at`."""
    return np.cumsum(at.relevant) - at.relevant


def _first_hits(at: Ranks, k: int) -> np.ndarray:
    """(k, n_users): the probability that the best of a user's items is at its first place, its second, ..., below k."""
    best = _best(at)
    first, size, level = at.first[best], at.size[best], at.level[best]
    found, missed = np.zeros((k, len(best))), np.ones(len(best))
    for j in range(k):
        possible = (j < size) & (first + j < k)
        np.divide(missed * level, size - j, out=found[j], where=possible)
        missed = missed - found[j]
    return found


AT_CUTOFF: dict[str, Callable[[Ranks, int], np.ndarray]] = {
    "hr": hit_ratio,
    "recall": recall,
    "precision": precision,
    "mrr": mrr,
    "map": average_precision,
    "ndcg": ndcg,
}
"""The metrics with a cut-off, by the name that stands before the @."""


def check_cutoffs(cutoffs: Sequence[int], n_items: int) -> None:
    """Refuse lists that are empty or longer than the catalogue (but for `CUTOFFS`, which every record has).

    Raises:
        InputError: there is such a cut-off.
    """
    for k in cutoffs:
        if k < 1:
            raise InputError(f"a list of recommendations has at least one item, not {k}: raise the cut-off.")
        if k > n_items and k not in CUTOFFS:
            raise InputError(
                f"a list of {k} recommendations is longer than the catalogue, which has {n_items} items: "
                "lower the cut-off."
            )


def check_metric(name: str, n_items: int | None = None) -> int | None:
    """Refuse what is no metric of a user's held-out items, by which models may be chosen.

    Args:
        name: "auc", "auc_strict", or one of `AT_CUTOFF` with its cut-off, such as "ndcg@10".
        n_items: size of the catalogue, or None where it is not known yet.

    Returns:
        The cut-off; None for a metric without.

    Raises:
        InputError: there is no such metric, or the list is longer than the catalogue.
    """
    kind, _, k = name.partition("@")
    if name in ("auc", "auc_strict"):
        return None
    if kind in AT_CUTOFF and k.isascii() and k.isdigit() and len(k) < 10:
        check_cutoffs([int(k)], n_items or sys.maxsize)
        return int(k)
    if kind in AT_CUTOFF:
        raise InputError(f"metric {shown(name)} needs the length of the list behind an @: write {kind}@10.")
    if kind in LIST_METRICS:
        raise InputError(
            f"{shown(name)} measures all users' lists together, however wrong they are, and is nothing to choose by: "
            "write auc or ndcg@10."
        )
    raise unknown_name("metric", name, ["auc", "auc_strict", *(f"{metric}@10" for metric in AT_CUTOFF)])


def user_values(
    higher: np.ndarray,
    tied: np.ndarray,
    candidates: np.ndarray,
    users: np.ndarray | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, np.ndarray]:
    """Every metric of every user, by the metric's name in the tables.

    AUC, strict AUC and the share of ties are means over the user's held-out items.

    Args:
        higher, tied, candidates: (n,) integer counts, one of each a held-out item.
        users: (n,) integers, equal for the items of one user; None where each user has one item.
        cutoffs: lengths of the list.

    Returns:
        "auc", "auc_strict", "tie_share" and, for each cut-off k, "hr@k", "recall@k", "precision@k", "mrr@k", "map@k"
        and "ndcg@k", each (n_users,) float64, users in ascending order, and NaN for a user without candidates.
    """
    higher, tied, candidates = _checked(higher=higher, tied=tied, candidates=candidates)
    at = ranks(higher, tied, users)
    values = {
        "auc": mean_by_user(auc(higher, tied, candidates), users),
        "auc_strict": mean_by_user(auc_strict(higher, tied, candidates), users),
        **{f"{name}@{k}": metric(at, k) for k in cutoffs for name, metric in AT_CUTOFF.items()},
        "tie_share": mean_by_user(tie_share(tied, candidates), users),
    }
    ranked = ~np.isnan(values["auc"])
    return {name: np.where(ranked, value, np.nan) for name, value in values.items()}


def summary(
    higher: np.ndarray,
    tied: np.ndarray,
    candidates: np.ndarray,
    users: np.ndarray | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
) -> dict[str, float | int | None]:
    """Means over the users that have candidates, and how many users those are.

    Args:
        higher, tied, candidates, users, cutoffs: see `user_values`.

    Returns:
        The names of `user_values` with their means (None, which JSON has and NaN it has not, if no user counts), then
        "users", the number of users in the means, "users_without_candidates", the number left out, and "held_out", the
        number of held-out items of the former.
    """
    values = user_values(higher, tied, candidates, users, cutoffs)
    counted = ~np.isnan(values["auc"])
    means = {name: float(value[counted].mean()) if counted.any() else None for name, value in values.items()}
    return means | {
        "users": int(counted.sum()),
        "users_without_candidates": int((~counted).sum()),
        "held_out": int((np.asarray(candidates) > 0).sum()),
    }
