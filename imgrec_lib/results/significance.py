"""Which differences between models hold: a paired bootstrap over users, corrected by Holm.

The users are the sample: every model is asked about the same held-out items, so their values are compared user by
user. The trials of a model (its seeds) are repeated measurements of the same users and no further sample: they are
averaged before anything is compared. How much a model varies with its seed is what "± sd" in the tables says.

Why a bootstrap. A user's AUC is bounded, skewed and full of ties (for a bestseller many models agree exactly), and the
tables report its mean. The signed-rank test of Wilcoxon is about the median of the differences: it is exact only when
they are symmetric, drops those that are zero, and may call a model better that is worse on average, by losing little
often and winning much seldom. Resampling users asks about the mean itself, supposes no shape, and gives the interval
and the p-value from the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

ALPHA = 0.05
"""A difference holds when its corrected p-value is at most this."""

RESAMPLES = 10_000
_CHUNK = 2**21  # drawn users at a time: 16 MiB of weights


@dataclass(frozen=True)
class Differences:
    """All paired differences of M models over the same users.

    Attributes:
        labels: the M models.
        users: how many users were compared.
        resamples: how often they were drawn.
        mean: (M, M) float64, the mean over users of the row's value less the column's.
        low, high: (M, M) float64, the 95 % percentile interval of that mean; for one pair, not corrected.
        p: (M, M) float64, two-sided, corrected by Holm over the M (M - 1) / 2 pairs; 1 on the diagonal.
    """

    labels: tuple[str, ...]
    users: int
    resamples: int
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray

    @property
    def holds(self) -> np.ndarray:
        """(M, M) bool: the corrected p-value is at most `ALPHA`."""
        return self.p <= ALPHA

    def place(self, label: str) -> int:
        """Row and column of a model."""
        return self.labels.index(label)


def paired_differences(values: pd.DataFrame, *, resamples: int | None = None, seed: int = 0) -> Differences:
    """Paired bootstrap of the mean differences between the columns of a table of users.

    Users are drawn with replacement, the same for every model. The p-value of a pair is twice the share of resamples in
    which the difference is zero or has the other sign (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
    section 15.4: the level at which the percentile interval touches zero), with one resample added to either count so
    that it is never zero (Davison and Hinkley 1997, section 4.2). Holm's step-down correction (1979) bounds the
    probability of a single false mark among all pairs by `ALPHA`, whatever their dependence.

    Args:
        values: one row a user, one column a model; a user that lacks a value of any model is left out.
        resamples: how often the users are drawn; by default `RESAMPLES`, and at least 100 for each pair, without which
            no corrected p-value could become small enough.
        seed: seeds the draws; the same values give the same result.

    Raises:
        ValueError: no user has all values.
    """
    complete = values.dropna()
    n, m = complete.shape
    if not n:
        raise ValueError("no user has a value of every model: there is nothing to compare")
    pairs = m * (m - 1) // 2
    resamples = resamples or max(RESAMPLES, 100 * pairs)
    matrix = complete.to_numpy(np.float64)
    centre = matrix.mean(0)
    means = centre + _resampled_means(matrix - centre, resamples, np.random.default_rng(seed))
    first, second = np.triu_indices(m, 1)
    difference = _rounded(centre[first] - centre[second])
    low, high, p = np.zeros(pairs), np.zeros(pairs), np.ones(pairs)
    for pair, (a, b) in enumerate(zip(first, second, strict=True)):
        drawn = _rounded(means[:, a] - means[:, b])
        low[pair], high[pair] = np.quantile(drawn, (0.025, 0.975))
        fewer = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        p[pair] = min(1.0, 2 * (fewer + 1) / (resamples + 1))
    corrected = holm(p)

    def square(above: np.ndarray, below: np.ndarray, diagonal: float) -> np.ndarray:
        whole = np.full((m, m), diagonal)
        whole[first, second], whole[second, first] = above, below
        return whole

    return Differences(
        tuple(str(label) for label in values.columns),
        n,
        resamples,
        square(difference, -difference, 0.0),
        square(low, -high, 0.0),
        square(high, -low, 0.0),
        square(corrected, corrected, 1.0),
    )


def mean_intervals(values: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """The mean of each column over the users and its 95 % percentile interval, by the bootstrap over users.

    Args:
        values, seed: as of `paired_differences`.
        resamples: how often the users are drawn.

    Returns:
        One row for each column of `values`, with the columns mean, low and high.

    Raises:
        ValueError: no user has all values.
    """
    complete = values.dropna()
    if not len(complete):
        raise ValueError("no user has a value of every model: there is nothing to average")
    matrix = complete.to_numpy(np.float64)
    centre = matrix.mean(0)
    means = centre + _resampled_means(matrix - centre, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return pd.DataFrame({"mean": centre, "low": low, "high": high}, index=values.columns)


def _resampled_means(matrix: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, M) means of the (n, M) rows, drawn with replacement: counts of the draws times the matrix."""
    n = len(matrix)
    means = np.empty((resamples, matrix.shape[1]))
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n, (rows, n), dtype=np.int32) + (np.arange(rows, dtype=np.int32) * n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        means[start : start + rows] = counts @ matrix / n
    return means


def _rounded(values: np.ndarray) -> np.ndarray:
    """Without the last bits, in which two equal columns may differ after a product of matrices."""
    return np.round(values, 12) + 0.0


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p-values (Holm 1979), in their order.

    Args:
        p: (k,) p-values.

    Returns:
        (k,) float64: the i-th smallest (from 0) times k - i, never below a smaller one's and at most 1.
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(1, np.maximum.accumulate(raw[order] * (len(raw) - np.arange(len(raw)))))
    return corrected
