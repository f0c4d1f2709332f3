"""The tables of a report: every number is computed from run records, here and nowhere else.

A row is a model in one configuration; its number is the mean over the trials, runs that differ by seed alone. In a
frame the columns (name, "mean") and (name, "sd") belong to one measured quantity, (name, "difference") is a difference
with, where known, its interval (name, "low"), (name, "high") and whether it holds (name, "holds"), and (name, "") is a
plain value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd

from imgrec_lib.evaluation import history_bands, popularity_bands
from imgrec_lib.features import list_backbones
from imgrec_lib.models import list_models
from imgrec_lib.results.comparison import Comparison
from imgrec_lib.results.trials import ORACLE, RANDOM, RECONSTRUCTION, has_random_features, trials
from imgrec_lib.runs import Run

Metrics = Mapping[str, Mapping[str, float | int | None]]


class Measure(NamedTuple):
    """A column of a table: its heading, and where its value stands in a run's metrics."""

    heading: str
    protocol: str
    metric: str


EXACT = (
    Measure("AUC", "exact", "auc"),
    Measure("strict AUC", "exact", "auc_strict"),
    Measure("AUC, dvbpr-100", "dvbpr-100", "auc"),
    Measure("AUC, imgrec-100", "imgrec-100", "auc"),
    Measure("AUC, sampled-500", "sampled-500", "auc"),
    Measure("HR@10", "exact", "hr@10"),
    Measure("NDCG@10", "exact", "ndcg@10"),
    Measure("cold AUC", "exact", "cold_auc"),
)
SAMPLED = ("dvbpr-100", "imgrec-100", "sampled-500")
RESULTS = tuple(measure for measure in EXACT if measure.metric != "auc_strict")


def results_table(runs: Sequence[Run], comparison: Comparison | None = None) -> pd.DataFrame:
    """The main table: quality on the whole catalogue and under the sampled protocols, and which differences hold.

    Args:
        runs: runs of one dataset.
        comparison: `compare(runs)`; without it there are no columns of differences.

    Returns:
        The columns of `auc_table` without strict AUC and cost; then "AUC against <best>" and "AUC against <baseline>".

    Raises:
        InputError: see `trials`.
    """
    frame = measured_table(runs, RESULTS)
    if comparison is None:
        return frame
    differences = comparison.differences
    for other in dict.fromkeys(filter(None, (comparison.best, comparison.baseline))):
        place, heading = differences.place(other), f"AUC against {other}"
        known = [
            differences.place(label) if label in differences.labels and label != other else -1 for label in frame.index
        ]
        frame[heading, "difference"] = [differences.mean[row, place] if row >= 0 else math.nan for row in known]
        frame[heading, "holds"] = [bool(row >= 0 and differences.holds[row, place]) for row in known]
    return frame


def auc_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The main table: quality on the whole catalogue and under the sampled protocols, and the cost of an epoch.

    AUC is mid-rank (a tie counts one half) unless the heading says strict (a tie is lost); HR@10 and NDCG@10 are over
    the whole catalogue; "cold AUC" is the exact AUC of held-out items without training interaction.

    Args:
        runs: runs of one dataset.

    Returns:
        One row for each configuration, and the oracle where it is known.

    Raises:
        InputError: see `trials`.
    """
    frame = measured_table(runs, EXACT)
    return _with_plain(frame, runs, {"seconds per epoch": attrgetter("record.cost.seconds_per_epoch")})


def protocol_table(runs: Sequence[Run]) -> pd.DataFrame:
    """AUC of the same scores under each protocol and tie rule, and the share of candidates tied; see `auc_table`."""
    measures = [
        Measure(f"{protocol}{rule}", protocol, metric)
        for protocol in ("exact", *SAMPLED)
        for rule, metric in (("", "auc"), (", strict", "auc_strict"))
    ]
    ties = Measure("tied candidates, share", "exact", "tie_share")
    return _with_plain(measured_table(runs, measures), runs, {ties.heading: lambda run: _value(run.metrics, ties)})


def ranking_table(runs: Sequence[Run]) -> pd.DataFrame:
    """HR@10 and NDCG@10 over the whole catalogue and over the candidates of each sampled protocol; see `auc_table`."""
    return measured_table(
        runs,
        [
            Measure(f"{name}, {protocol}", protocol, metric)
            for name, metric in (("HR@10", "hr@10"), ("NDCG@10", "ndcg@10"))
            for protocol in ("exact", *SAMPLED)
        ],
    )


def cold_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Exact metrics of held-out items without training interaction, beside the AUC of all the others."""
    cold = [
        Measure("cold AUC", "exact", "cold_auc"),
        Measure("cold strict AUC", "exact", "cold_auc_strict"),
        Measure("cold HR@10", "exact", "cold_hr@10"),
        Measure("cold NDCG@10", "exact", "cold_ndcg@10"),
    ]
    frame = measured_table(runs, cold, {"AUC of other items": _warm_auc})
    return _with_plain(frame, runs, {"cold test items": lambda run: run.metrics["exact"]["cold_users"]})


def popularity_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Exact AUC by the training interactions of the held-out item; a heading names the band and its users."""
    return _banded(runs, popularity_bands)


def history_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Exact AUC by the training interactions of the user; a heading names the band and its users."""
    return _banded(runs, history_bands)


def cost_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What quality costs: seconds, epochs, interactions a second, parameters, peak memory of the process, device."""
    costs = {
        "seconds per epoch": attrgetter("record.cost.seconds_per_epoch"),
        "epochs": attrgetter("record.cost.epochs"),
        "seconds with validation": attrgetter("record.cost.seconds_fit"),
        "seconds of evaluation": attrgetter("record.cost.seconds_evaluation"),
        "interactions per second": attrgetter("record.cost.interactions_per_second"),
        "parameters": attrgetter("record.cost.parameters"),
    }
    frame = _with_plain(measured_table(runs, EXACT[:1], oracle=False), runs, costs)
    frame["peak memory, MiB", ""] = [
        max(run.record.cost.peak_memory_bytes for run in row.runs) / 2**20 for row in trials(runs)
    ]
    frame["device", ""] = [", ".join(sorted({run.record.device for run in row.runs})) for row in trials(runs)]
    return frame


def run_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Every run by itself: configuration, seed, validation and test AUC, when it finished; indexed by its name."""
    rows = [(row.label, run) for row in trials(runs) for run in row.runs]
    return pd.DataFrame(
        {
            "model": [label for label, _ in rows],
            "seed": [run.record.seed for _, run in rows],
            "best epoch": [run.record.validation.epoch for _, run in rows],
            "validation AUC": [run.record.validation.auc for _, run in rows],
            "test AUC": [run.metrics["exact"]["auc"] for _, run in rows],
            "finished": [run.record.finished for _, run in rows],
        },
        index=pd.Index([run.name for _, run in rows], name="run"),
    )


def measured(frame: pd.DataFrame) -> list[str]:
    """Headings of the columns of a frame that have a mean and a standard deviation."""
    return [str(column[0]) for column in frame.columns if column[1] == "mean"]


def caption(runs: Sequence[Run]) -> str:
    """What the numbers of one dataset mean: catalogue, cold items, split, tie rule, trials, the size at which each
    model sees the pictures, notices of `trials`."""
    rows = trials(runs)
    record, exact = runs[0].record.dataset, runs[0].metrics["exact"]
    split = dict(record.split or {"kind": "unknown"})
    kind = str(split.pop("kind", "unknown"))
    details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in split.items() if value is not None)
    users, cold = exact["users"] or 0, exact["cold_users"] or 0
    sentences = [
        f"Dataset {record.name}: {record.users:,} users, {record.items:,} items, "
        f"{record.training_interactions:,} training interactions; {kind} split{f' ({details})' if details else ''}.",
        "Candidates are all items of the catalogue, cold items included, but the user's own; "
        f"{cold / users if users else 0:.1%} of the {users:,} held-out items are cold (no training interaction).",
        "AUC is mid-rank (a tie counts one half); strict AUC counts a tie as lost.",
        f"Mean ± sample standard deviation over trials ({_range([len(row.runs) for row in rows])} seeds a row); "
        "best bold, second underlined.",
    ]
    seen: dict[str, list[str]] = {}
    for row in rows:
        seen.setdefault(_pictures(row.runs[0]), []).append(row.label)
    named = {how: ", ".join(labels) for how, labels in seen.items() if how}
    if len(named) == 1:
        sentences.append(f"Pictures: {next(iter(named))}.")
    elif named:
        sentences.append(f"Pictures: {'; '.join(f'{how} ({names})' for how, names in named.items())}.")
    if any(has_random_features(run) for run in runs):
        sentences.append(f"Rows marked “{RANDOM}” use visual features of an untrained network.")
    if any(run.record.fidelity == "reconstruction" for run in runs):
        sentences.append(f"{RECONSTRUCTION} A reconstruction: the sources leave a gap.")
    return " ".join(sentences)


def _pictures(run: Run) -> str:
    """Through which backbone, if any, and at what size a run's model sees the pictures; empty if it sees none."""
    found = run.record.features or run.record.parameters
    if "size" not in found:
        return ""
    backbone, size = found.get("backbone", ""), found["size"]
    if size == 0 and backbone in list_backbones():
        size = list_backbones()[backbone].size
    return f"{backbone} at {size} px" if backbone else f"{size} px"


def not_run(runs: Sequence[Run]) -> list[str]:
    """Titles of the registry's models that have no run."""
    present = {run.record.model for run in runs}
    return [card.title for name, card in list_models().items() if name not in present]


def measured_table(
    runs: Sequence[Run],
    measures: Sequence[Measure],
    derived: Mapping[str, Callable[[Metrics], float]] | None = None,
    *,
    oracle: bool = True,
) -> pd.DataFrame:
    """Mean and standard deviation over the trials of each row, and the oracle's row where it is known."""
    functions: dict[str, Callable[[Metrics], float]] = {m.heading: partial(_value, measure=m) for m in measures}
    functions |= derived or {}
    samples: dict[str, list[Metrics]] = {row.label: [run.metrics for run in row.runs] for row in trials(runs)}
    known = {run.record.seed: run.record.oracle for run in runs if run.record.oracle is not None}
    if oracle and known:
        samples[ORACLE] = list(known.values())
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(sample) for sample in samples.values()]}
    for heading, function in functions.items():
        values = [[function(metrics) for metrics in sample] for sample in samples.values()]
        columns[heading, "mean"], columns[heading, "sd"] = _mean(values), _deviation(values)
    return pd.DataFrame(columns, pd.Index(list(samples), name="model"))


def _banded(runs: Sequence[Run], bands: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    rows = trials(runs)
    found = {row.label: [bands(run.per_user) for run in row.runs] for row in rows}
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(each) for each in found.values()]}
    first = next(iter(found.values()))[0]
    for band, (label, users) in enumerate(zip(first.index, first["users"].tolist(), strict=True)):
        values = [[float(table["auc"].iloc[band]) for table in tables] for tables in found.values()]
        heading = f"{label} ({users:,} {'user' if users == 1 else 'users'})"
        columns[heading, "mean"], columns[heading, "sd"] = _mean(values), _deviation(values)
    return pd.DataFrame(columns, pd.Index(list(found), name="model"))


def _with_plain(
    frame: pd.DataFrame, runs: Sequence[Run], values: Mapping[str, Callable[[Run], float | int | None]]
) -> pd.DataFrame:
    """`frame` with columns that are means over the trials and take part in no comparison."""
    rows = {row.label: row.runs for row in trials(runs)}
    for heading, value in values.items():
        cells = []
        for label in frame.index:
            found = [v for v in map(value, rows.get(label, ())) if v is not None]
            cells.append(float(np.mean(found)) if found else math.nan)
        frame[heading, ""] = cells
    return frame


def _value(metrics: Metrics, measure: Measure) -> float:
    value = metrics[measure.protocol][measure.metric]
    return math.nan if value is None else float(value)


def _warm_auc(metrics: Metrics) -> float:
    """The exact AUC of held-out items that are not cold, from the means over all and over the cold ones."""
    exact = metrics["exact"]
    users, cold = exact["users"] or 0, exact["cold_users"] or 0
    if users == cold:
        return math.nan
    return ((exact["auc"] or 0) * users - (exact["cold_auc"] or 0) * cold) / (users - cold)


def _mean(samples: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.mean(sample)) for sample in samples]


def _deviation(samples: Sequence[Sequence[float]]) -> list[float]:
    """Sample standard deviations; a single trial has none."""
    return [float(np.std(sample, ddof=1)) if len(sample) > 1 else math.nan for sample in samples]


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
