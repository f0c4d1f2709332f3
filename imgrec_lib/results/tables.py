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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from imgrec_lib.evaluation import history_bands, popularity_bands
from imgrec_lib.features import list_backbones
from imgrec_lib.models import list_models
from imgrec_lib.results.results import Results
from imgrec_lib.results.trials import ORACLE, RANDOM, RECONSTRUCTION, Trials, varying
from imgrec_lib.runs import Metrics, Record, Run


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
VALIDATION = "validation AUC"
"""Heading of what a search chose by."""
SAMPLED = ("dvbpr-100", "imgrec-100", "sampled-500")
RESULTS = tuple(measure for measure in EXACT if measure.metric != "auc_strict")


def results_table(results: Results) -> pd.DataFrame:
    """The main table: quality on the whole catalogue and under the sampled protocols, and which differences hold.

    Returns:
        The columns of `auc_table` without strict AUC and cost; then, where there are several rows, "AUC against <best>"
        and "AUC against <baseline>".
    """
    frame, comparison = _measured(results, RESULTS), results.comparison
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


def auc_table(results: Results) -> pd.DataFrame:
    """The main table: quality on the whole catalogue and under the sampled protocols, and the cost of an epoch.

    AUC is mid-rank (a tie counts one half) unless the heading says strict (a tie is lost); HR@10 and NDCG@10 are over
    the whole catalogue; "cold AUC" is the exact AUC of held-out items without training interaction.

    Returns:
        One row for each configuration, and the oracle where it is known.
    """
    frame = _measured(results, EXACT)
    return _with_plain(frame, results, {"seconds per epoch": attrgetter("record.cost.seconds_per_epoch")})


def protocol_table(results: Results) -> pd.DataFrame:
    """AUC of the same scores under each protocol and tie rule, and the share of candidates tied; see `auc_table`."""
    measures = [
        Measure(f"{protocol}{rule}", protocol, metric)
        for protocol in ("exact", *SAMPLED)
        for rule, metric in (("", "auc"), (", strict", "auc_strict"))
    ]
    ties = Measure("tied candidates, share", "exact", "tie_share")
    return _with_plain(_measured(results, measures), results, {ties.heading: lambda run: _value(run.metrics, ties)})


def ranking_table(results: Results) -> pd.DataFrame:
    """HR@10 and NDCG@10 over the whole catalogue and over the candidates of each sampled protocol; see `auc_table`."""
    return _measured(
        results,
        [
            Measure(f"{name}, {protocol}", protocol, metric)
            for name, metric in (("HR@10", "hr@10"), ("NDCG@10", "ndcg@10"))
            for protocol in ("exact", *SAMPLED)
        ],
    )


def cold_table(results: Results) -> pd.DataFrame:
    """Exact metrics of held-out items without training interaction, beside the AUC of all the others."""
    cold = [
        Measure("cold AUC", "exact", "cold_auc"),
        Measure("cold strict AUC", "exact", "cold_auc_strict"),
        Measure("cold HR@10", "exact", "cold_hr@10"),
        Measure("cold NDCG@10", "exact", "cold_ndcg@10"),
    ]
    frame = _measured(results, cold, {"AUC of other items": _warm_auc})
    return _with_plain(frame, results, {"cold test items": lambda run: run.metrics["exact"]["cold_users"]})


def popularity_table(results: Results) -> pd.DataFrame:
    """Exact AUC by the training interactions of the held-out item; a heading names the band and its users."""
    return _banded(results, popularity_bands)


def history_table(results: Results) -> pd.DataFrame:
    """Exact AUC by the training interactions of the user; a heading names the band and its users."""
    return _banded(results, history_bands)


def cost_table(results: Results) -> pd.DataFrame:
    """What quality costs: seconds, epochs, interactions a second, parameters, peak memory of the process, device."""
    costs = {
        "seconds per epoch": attrgetter("record.cost.seconds_per_epoch"),
        "epochs": attrgetter("record.cost.epochs"),
        "seconds with validation": attrgetter("record.cost.seconds_fit"),
        "seconds of evaluation": attrgetter("record.cost.seconds_evaluation"),
        "interactions per second": attrgetter("record.cost.interactions_per_second"),
        "parameters": attrgetter("record.cost.parameters"),
    }
    frame = _with_plain(measured_table(results.rows, EXACT[:1]), results, costs)
    frame["peak memory, MiB", ""] = [
        max(run.record.cost.peak_memory_bytes for run in row.runs) / 2**20 for row in results.rows
    ]
    frame["device", ""] = [", ".join(sorted({run.record.device for run in row.runs})) for row in results.rows]
    return frame


def run_table(results: Results) -> pd.DataFrame:
    """Every run by itself: configuration, seed, validation and test AUC, when it finished; indexed by its name."""
    rows = [(row.label, run) for row in results.rows for run in row.runs]
    return pd.DataFrame(
        {
            "model": [label for label, _ in rows],
            "seed": [run.record.seed for _, run in rows],
            "best epoch": [run.record.validation.epoch for _, run in rows],
            "validation AUC": [run.record.validation.value() for _, run in rows],
            "test AUC": [run.metrics["exact"]["auc"] for _, run in rows],
            "finished": [run.record.finished for _, run in rows],
        },
        index=pd.Index([run.name for _, run in rows], name="run"),
    )


def grid_table(rows: Sequence[Trials]) -> pd.DataFrame:
    """Every configuration that a search tried, best validation AUC first. Test metrics take no part in it.

    Args:
        rows: configurations of one model and profile.

    Returns:
        A plain column for each setting that varies, then "trials" and the mean and sample standard deviation of the
        validation AUC over the seeds; indexed by place, "1" for the best.
    """
    rows = sorted(rows, key=lambda row: -row.validation)
    scores = [[run.record.validation.value() for run in row.runs] for row in rows]
    columns: dict[tuple[str, str], list[Any]] = {
        (name.replace("_", " "), ""): [row.settings.get(name) for row in rows]
        for name in varying([row.settings for row in rows])
    }
    columns["trials", ""] = [len(row.runs) for row in rows]
    columns[VALIDATION, "mean"], columns[VALIDATION, "sd"] = _mean(scores), _deviation(scores)
    return pd.DataFrame(columns, pd.Index([str(place) for place in range(1, len(rows) + 1)], name="place"))


def measured(frame: pd.DataFrame) -> list[str]:
    """Headings of the columns of a frame that have a mean and a standard deviation."""
    return [str(column[0]) for column in frame.columns if column[1] == "mean"]


def caption(results: Results) -> str:
    """What the numbers of one dataset mean: catalogue, cold items, split, tie rule, trials, the size at which each
    model sees the pictures, notices of `trials`."""
    record, exact = results.dataset, results.runs[0].metrics["exact"]
    split = dict(record.split or {"kind": "unknown"})
    kind = str(split.pop("kind", "unknown"))
    details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in split.items() if value is not None)
    # Records of versions that knew one held-out item a user count its users alone.
    held_out, cold = (exact.get(f"{of}held_out", exact[f"{of}users"]) or 0 for of in ("", "cold_"))
    seeds = _range([len(row.runs) for row in results.rows])
    sentences = [
        f"Dataset {record.name}: {record.users:,} users, {record.items:,} items, "
        f"{record.training_interactions:,} training interactions; {kind} split{f' ({details})' if details else ''}.",
        "Candidates are all items of the catalogue, cold items included, but the user's own; "
        f"{cold / held_out if held_out else 0:.1%} of the {held_out:,} held-out items are cold (no training "
        "interaction).",
        "AUC is mid-rank (a tie counts one half); strict AUC counts a tie as lost.",
        f"Mean ± sample standard deviation over trials ({seeds} seeds a row); best bold, second underlined.",
    ]
    seen: dict[str, list[str]] = {}
    for row in results.rows:
        seen.setdefault(_pictures(row.record), []).append(row.label)
    named = {how: ", ".join(labels) for how, labels in seen.items() if how}
    if len(named) == 1:
        sentences.append(f"Pictures: {next(iter(named))}.")
    elif named:
        sentences.append(f"Pictures: {'; '.join(f'{how} ({names})' for how, names in named.items())}.")
    if any(row.has_random_features for row in results.rows):
        sentences.append(f"Rows marked “{RANDOM}” use visual features of an untrained network.")
    if any(row.record.fidelity == "reconstruction" for row in results.rows):
        sentences.append(f"{RECONSTRUCTION} A reconstruction: the sources leave a gap.")
    return " ".join(sentences)


def _pictures(record: Record) -> str:
    """Through which backbone, if any, and at what size a model sees the pictures; empty if it sees none."""
    found = record.features or record.parameters
    if "size" not in found:
        return ""
    backbone, size = found.get("backbone", ""), found["size"]
    if size == 0 and backbone in list_backbones():
        size = list_backbones()[backbone].size
    return f"{backbone} at {size} px" if backbone else f"{size} px"


def not_run(results: Results) -> list[str]:
    """Titles of the registry's models that have no run."""
    present = {row.record.model for row in results.rows}
    return [card.title for name, card in list_models().items() if name not in present]


def _measured(
    results: Results, measures: Sequence[Measure], derived: Mapping[str, Callable[[Metrics], float]] | None = None
) -> pd.DataFrame:
    """`measured_table` of all rows, the oracle's below where it is known."""
    return measured_table(results.rows, measures, derived, results.oracle)


def measured_table(
    rows: Sequence[Trials],
    measures: Sequence[Measure],
    derived: Mapping[str, Callable[[Metrics], float]] | None = None,
    oracle: Sequence[Metrics] = (),
) -> pd.DataFrame:
    """Mean and standard deviation over the trials of each row.

    Args:
        rows: the rows.
        measures: the columns, each a metric of a protocol.
        derived: further columns, by heading, computed from all the metrics of a trial.
        oracle: metrics of the true preferences, which make one more row.
    """
    functions: dict[str, Callable[[Metrics], float]] = {m.heading: partial(_value, measure=m) for m in measures}
    functions |= derived or {}
    samples: dict[str, Sequence[Metrics]] = {row.label: [run.metrics for run in row.runs] for row in rows}
    if oracle:
        samples[ORACLE] = oracle
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(sample) for sample in samples.values()]}
    for heading, function in functions.items():
        values = [[function(metrics) for metrics in sample] for sample in samples.values()]
        columns[heading, "mean"], columns[heading, "sd"] = _mean(values), _deviation(values)
    return pd.DataFrame(columns, pd.Index(list(samples), name="model"))


def _banded(results: Results, bands: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    found = {row.label: [bands(run.per_user) for run in row.runs] for row in results.rows}
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(each) for each in found.values()]}
    first = next(iter(found.values()))[0]
    for band, (label, users) in enumerate(zip(first.index, first["users"].tolist(), strict=True)):
        values = [[float(table["auc"].iloc[band]) for table in tables] for tables in found.values()]
        heading = f"{label} ({users:,} {'user' if users == 1 else 'users'})"
        columns[heading, "mean"], columns[heading, "sd"] = _mean(values), _deviation(values)
    return pd.DataFrame(columns, pd.Index(list(found), name="model"))


def _with_plain(
    frame: pd.DataFrame, results: Results, values: Mapping[str, Callable[[Run], float | int | None]]
) -> pd.DataFrame:
    """`frame` with columns that are means over the trials and take part in no comparison."""
    rows = {row.label: row.runs for row in results.rows}
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
