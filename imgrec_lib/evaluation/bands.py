"""Metrics by how much is known: bands of history lengths and of item popularity."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from imgrec_lib.errors import InputError
from imgrec_lib.evaluation.evaluate import counts_of
from imgrec_lib.evaluation.metrics import summary
from imgrec_lib.evaluation.ranking import Counts


def popularity_bands(
    per_user: pd.DataFrame, protocol: str = "exact", starts: Sequence[int] = (0, 1, 2, 5, 10)
) -> pd.DataFrame:
    """Metrics by the popularity of the held-out item: how a model serves cold, rare and popular items.

    Args:
        per_user: `Evaluation.per_user`.
        protocol: one of the evaluated protocols.
        starts: the least number of training interactions of each band, ascending; fewer than the first are left out.

    Returns:
        One row a band that has users, indexed by its label ("0", "1", "2-4", "5-9", "10+"), with the columns of
        `metrics.summary`.

    Raises:
        InputError: the protocol was not evaluated, or the bands are not ascending.
    """
    return _bands(per_user, "item_popularity", protocol, starts)


def history_bands(
    per_user: pd.DataFrame, protocol: str = "exact", starts: Sequence[int] = (0, 1, 2, 5, 10, 20)
) -> pd.DataFrame:
    """Metrics by the number of the user's training interactions; otherwise as `popularity_bands`."""
    return _bands(per_user, "history_length", protocol, starts)


def _bands(per_user: pd.DataFrame, column: str, protocol: str, starts: Sequence[int]) -> pd.DataFrame:
    if not starts or any(a >= b for a, b in pairwise(starts)):
        raise InputError(f"the starts of the bands must ascend, not {tuple(starts)}.")
    ends = [start - 1 for start in starts[1:]]
    labels = [str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=False)] + [f"{starts[-1]}+"]
    band = np.searchsorted(starts, per_user[column].to_numpy(), side="right") - 1
    counts = counts_of(per_user, protocol)
    present = [i for i in range(len(labels)) if (band == i).any()]
    users = per_user["user"].to_numpy()
    rows = [summary(*Counts(*(values[band == i] for values in counts)), users[band == i]) for i in present]
    return pd.DataFrame(rows, index=pd.Index([labels[i] for i in present], name=column))
