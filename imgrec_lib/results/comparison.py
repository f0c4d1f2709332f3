"""The rows of one dataset compared user by user, and which differences hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from imgrec_lib.evaluation import user_metrics
from imgrec_lib.results.significance import ALPHA, Differences, paired_differences
from imgrec_lib.results.trials import Trials, metric_heading
from imgrec_lib.runs import Run

HOLDS = "*"


@dataclass(frozen=True)
class Comparison:
    """The rows of one dataset compared user by user.

    Attributes:
        differences: of the exact mid-rank AUC, between all rows.
        best: the row with the highest AUC.
        baseline: of the rows that see no picture, the one that is best on the validation items; None where all do, or
            none, or nothing was validated.
        chosen_by: the metric by which that was found, and weights were kept.
        unsearched: rows whose settings were not searched on this data (`Trials.unsearched`).
    """

    differences: Differences
    best: str
    baseline: str | None
    chosen_by: str = "auc"
    unsearched: frozenset[str] = frozenset()

    @property
    def holds(self) -> np.ndarray:
        """(M, M) bool: `Differences.holds`, but not for a row whose settings were not searched on this data.

        With other settings its model might be the better one.
        """
        searched = np.array([label not in self.unsearched for label in self.differences.labels])
        return self.differences.holds & searched & searched[:, None]


def compare(rows: Sequence[Trials], chosen_by: str = "auc") -> Comparison:
    """Compare all rows of one dataset pairwise, see `significance`.

    Args:
        rows: two or more; some user is ranked by all of them.
        chosen_by: see `Comparison`.
    """
    differences = paired_differences(user_values(rows))
    blind = [row for row in rows if not row.sees_pictures]
    validated = {row.label: row.validation(chosen_by) for row in blind if not math.isnan(row.validation(chosen_by))}
    baseline = max(validated, key=validated.__getitem__, default=None) if len(blind) < len(rows) else None
    # The row that is nowhere behind; of equals the first.
    best = differences.labels[int(np.argmax(differences.mean.min(1)))]
    return Comparison(differences, best, baseline, chosen_by, frozenset(row.label for row in rows if row.unsearched))


def user_values(rows: Sequence[Trials], metric: str = "auc", cold: bool = False) -> pd.DataFrame:
    """An exact metric of each user (rows, by user index) by each configuration (columns), the mean of its trials.

    Args:
        rows: the configurations.
        metric: "auc" (mid-rank), or one with a cut-off such as "ndcg@10".
        cold: whether only held-out items count that nobody bought in training.
    """
    cutoffs = [int(metric.partition("@")[2])] if "@" in metric else ()

    def of(run: Run) -> pd.Series:
        table = run.per_user[run.per_user["cold"]] if cold else run.per_user
        values = user_metrics(table, cutoffs=cutoffs)[metric]
        return values.set_axis(table["user"].drop_duplicates())

    return pd.concat(
        {row.label: pd.concat([of(run) for run in row.runs], axis=1).mean(axis=1, skipna=False) for row in rows},
        axis=1,
    )


def further_differences(rows: Sequence[Trials]) -> dict[str, Differences]:
    """The rows compared by HR@10 and, where held-out items are cold, by the AUC of these; by the metric's heading."""
    found = {"HR@10": paired_differences(user_values(rows, "hr@10"))}
    cold = user_values(rows, cold=True)
    return found if cold.dropna().empty else found | {"cold AUC": paired_differences(cold)}


def difference_table(comparison: Comparison, further: Mapping[str, Differences] = MappingProxyType({})) -> pd.DataFrame:
    """Every pair of rows, the better one first: mean difference of AUC, 95 % interval, p-value corrected by Holm.

    Args:
        comparison: of the rows.
        further: see `further_differences`: differences by other metrics, with their intervals.
    """
    d = comparison.differences
    order = np.argsort(-d.mean.mean(1), kind="stable")
    pairs = [(a, b) for place, a in enumerate(order) for b in order[place + 1 :]]
    columns = {
        ("AUC difference", "difference"): [d.mean[pair] for pair in pairs],
        ("AUC difference", "low"): [d.low[pair] for pair in pairs],
        ("AUC difference", "high"): [d.high[pair] for pair in pairs],
        ("AUC difference", "holds"): [bool(comparison.holds[pair]) for pair in pairs],
        ("corrected p", ""): [float(d.p[pair]) for pair in pairs],
    }
    for metric, other in further.items():
        for part, values in (("difference", other.mean), ("low", other.low), ("high", other.high)):
            columns[f"{metric} difference", part] = [values[pair] for pair in pairs]
    index = pd.Index([f"{d.labels[a]} less {d.labels[b]}" for a, b in pairs], name="pair")
    return pd.DataFrame(columns, index)


def comparison_note(comparison: Comparison) -> str:
    """What the mark of a difference that holds means, which test it comes from and why."""
    differences = comparison.differences
    pairs = len(differences.labels) * (len(differences.labels) - 1) // 2
    against = (
        f" {comparison.baseline} is the baseline: of the models that see no pictures, the one with the best validation "
        f"{metric_heading(comparison.chosen_by)}."
        if comparison.baseline
        else ""
    )
    unsearched = (
        " No difference with a row whose settings were not searched on this data bears the mark: it would speak of the "
        "settings."
        if comparison.unsearched
        else ""
    )
    return (
        f"The difference holds: p at most {ALPHA:g} by a paired bootstrap, {differences.resamples:,} resamples of the "
        f"{differences.users:,} users, after Holm's correction for all {pairs:,} pairs of rows. Each user's AUC is "
        "averaged over the trials first: seeds are repeated measurements, users are the sample. The bootstrap asks "
        "about the mean, which the table shows; Wilcoxon's signed-rank test would ask about the median of differences "
        f"that are neither symmetric nor free of ties.{unsearched}{against}"
    )
