"""Ranking metrics from counts: pure functions, one value a user.

Every metric here follows from three counts a user: how many candidates score above the held-out item (`higher`), how
many score the same (`tied`), and how many candidates there are (`candidates`, the held-out item not among them).
Nothing is sorted.

Ties decide more than they should. The papers' AUC counts a tie as lost, and the ImgRec scripts' HR@10 counts it as
won, so that a constant scorer gets an AUC of 0 and a hit ratio of 1. Here `auc_strict` is the papers' rule, `auc`
counts a tie one half, and `hit_ratio` and `ndcg` are expectations over a random order of the tied items; the share of
ties is reported beside them. The scripts' own rule for HR@10 is not offered.
"""

from __future__ import annotations

import numpy as np

CUTOFF = 10
"""Length of the recommendation list in HR@10 and NDCG@10."""


def _checked(**counts: np.ndarray) -> tuple[np.ndarray, ...]:
    arrays = tuple(np.asarray(values) for values in counts.values())
    names = ", ".join(counts)
    if any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays):
        raise ValueError(f"{names} must be (n_users,) each, not {', '.join(str(a.shape) for a in arrays)}")
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
        higher, tied, candidates: (n_users,) integer counts.

    Returns:
        (n_users,) float64; NaN for a user without candidates.

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
        tied, candidates: (n_users,) integer counts.

    Returns:
        (n_users,) float64; NaN for a user without candidates.
    """
    tied, candidates = _checked(tied=tied, candidates=candidates)
    return _share(tied, candidates)


def hit_ratio(higher: np.ndarray, tied: np.ndarray, k: int = CUTOFF) -> np.ndarray:
    """Probability that the held-out item is among the first k when tied items stand in random order.

    Args:
        higher, tied: (n_users,) integer counts.
        k: length of the list.

    Returns:
        (n_users,) float64: 0 or 1 without ties.
    """
    higher, tied = _checked(higher=higher, tied=tied)
    return np.clip(k - higher, 0, tied + 1) / (tied + 1)


def ndcg(higher: np.ndarray, tied: np.ndarray, k: int = CUTOFF) -> np.ndarray:
    """Expected NDCG@k when tied items stand in random order.

    With one relevant item the ideal gain is 1, so NDCG is 1 / log2(2 + rank), or 0 from rank k on (ranks from 0).

    Args:
        higher, tied: (n_users,) integer counts.
        k: length of the list.

    Returns:
        (n_users,) float64.
    """
    higher, tied = _checked(higher=higher, tied=tied)
    gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])
    return (gains[np.minimum(higher + tied + 1, k)] - gains[np.minimum(higher, k)]) / (tied + 1)


def user_values(higher: np.ndarray, tied: np.ndarray, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of every user, by the metric's name in the tables.

    Args:
        higher, tied, candidates: (n_users,) integer counts.

    Returns:
        "auc", "auc_strict", "hr@10", "ndcg@10" and "tie_share", each (n_users,) float64 and NaN for a user without
        candidates.
    """
    higher, tied, candidates = _checked(higher=higher, tied=tied, candidates=candidates)
    values = {
        "auc": auc(higher, tied, candidates),
        "auc_strict": auc_strict(higher, tied, candidates),
        f"hr@{CUTOFF}": hit_ratio(higher, tied),
        f"ndcg@{CUTOFF}": ndcg(higher, tied),
        "tie_share": tie_share(tied, candidates),
    }
    return {name: np.where(candidates > 0, value, np.nan) for name, value in values.items()}


def summary(higher: np.ndarray, tied: np.ndarray, candidates: np.ndarray) -> dict[str, float | int | None]:
    """Means over the users that have candidates, and how many users those are.

    Args:
        higher, tied, candidates: (n_users,) integer counts.

    Returns:
        The names of `user_values` with their means (None, which JSON has and NaN it has not, if no user counts), then
        "users", the number of users in the means, and "users_without_candidates", the number left out.
    """
    values = user_values(higher, tied, candidates)
    counted = np.asarray(candidates) > 0
    means = {name: float(value[counted].mean()) if counted.any() else None for name, value in values.items()}
    return means | {"users": int(counted.sum()), "users_without_candidates": int((~counted).sum())}
