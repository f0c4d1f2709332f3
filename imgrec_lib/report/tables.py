"""The tables of a report: every number is computed from run records, here and nowhere else.

A row is a model in one configuration; its number is the mean over the trials, runs that differ by seed alone. In a
frame the columns (name, "mean") and (name, "sd") belong to one measured quantity, (name, "difference") is a difference
with, where known, its interval (name, "low"), (name, "high") and whether it holds (name, "holds"), and (name, "") is a
plain value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.data.split import dataset_table
from imgrec_lib.errors import InputError
from imgrec_lib.evaluation import history_bands, popularity_bands, user_metrics
from imgrec_lib.features import list_backbones
from imgrec_lib.files import fingerprint
from imgrec_lib.models import list_models
from imgrec_lib.report.significance import ALPHA, Differences, paired_differences
from imgrec_lib.runs import Run

ORACLE = "Oracle (the simulated tastes; the ceiling)"
"""Label of the row of the true preferences; it takes part in no comparison."""

RECONSTRUCTION = "†"
RANDOM = "random weights"
HOLDS = "*"
PAPER = "paper"
"""Heading of the values that the paper printed: the only ones that do not come from our runs."""
DIFFERENCE = "ours less the paper's"

Metrics = Mapping[str, Mapping[str, float | int | None]]


class Measure(NamedTuple):
    """A column of a table: its heading, and where its value stands in a run's metrics."""

    heading: str
    protocol: str
    metric: str


@dataclass(frozen=True)
class Trials:
    """The runs of one row: the same dataset, model, hyper-parameters and features, one run for each seed.

    Attributes:
        label: how tables and figures call it.
        runs: at least one, by seed.
    """

    label: str
    runs: tuple[Run, ...]


def by_dataset(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs of each dataset (by its fingerprint), in the order of first appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.record.dataset.fingerprint, []).append(run)
    return list(groups.values())


def trials(runs: Sequence[Run]) -> list[Trials]:
    """Group the runs of one dataset into the rows of a table, in registry order.

    A label is the model's title, the profile where it is not "default", what tells it from other configurations of the
    same model and profile, and the notices that every table owes its reader: "†" for a reconstruction, "random weights"
    for features of an untrained network, the name of a control. Copies of a run count once.

    Raises:
        InputError: no run, or runs of several datasets, whose numbers cannot be compared.
    """
    if not runs:
        raise InputError("there is no run to put into a table: train one first with 'imgrec train'.")
    datasets = {run.record.dataset.fingerprint: run.record.dataset.name for run in runs}
    if len(datasets) > 1:
        names = ", ".join(f"{name} ({digits})" for digits, name in datasets.items())
        raise InputError(f"these runs are of {len(datasets)} datasets, {names}: make a table for each (by_dataset).")
    rows: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=_order):
        rows.setdefault(fingerprint(_configuration(run)), {}).setdefault(run.record.seed, run)
    groups = [tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in rows.values()]
    return [Trials(_label(group[0], [other[0] for other in groups]), group) for group in groups]


def _order(run: Run) -> tuple[Any, ...]:
    names, record = list(list_models()), run.record
    place = names.index(record.model) if record.model in names else len(names)
    return place, record.model, record.profile != "default", record.profile, fingerprint(_configuration(run))


def _configuration(run: Run) -> dict[str, Any]:
    """All that two trials of the same row share."""
    return {name: getattr(run.record, name) for name in ("model", "profile", "parameters", "phases", "features")}


def _label(run: Run, others: Sequence[Run]) -> str:
    record = run.record
    notes = [] if record.profile == "default" else [f"{record.profile} profile"]
    same = [o for o in others if (o.record.model, o.record.profile) == (record.model, record.profile)]
    all_settings = [settings(o) for o in same]
    names = sorted({name for each in all_settings for name in each})
    varied = [n for n in names if len({repr(each.get(n)) for each in all_settings}) > 1]
    # A digest says nothing to a reader as long as something else tells the rows apart, and a notice of its own follows
    # for features of an untrained network and for a control.
    told = ("features: random", "features: control")
    varied = [n for n in varied if n not in told]
    telling = [n for n in varied if n != "features: weights_sha256"] or varied
    notes += [f"{name} {settings(run).get(name, 'none')}" for name in telling]
    if has_random_features(run):
        notes.append(RANDOM)
    if record.control:
        notes.append(record.control)
    mark = f" {RECONSTRUCTION}" if record.fidelity == "reconstruction" else ""
    return record.title + mark + (f" ({'; '.join(notes)})" if notes else "")


def settings(run: Run) -> dict[str, Any]:
    """Hyper-parameters, trainer's settings and features of a run, by readable name."""
    record, phases = run.record, run.record.phases
    found = dict(record.parameters)
    for number, phase in enumerate(phases, 1):
        prefix = f"phase {number} " if len(phases) > 1 else ""
        found |= {f"{prefix}{name}": value for name, value in phase.items()}
    return found | {f"features: {name}": value for name, value in (record.features or {}).items()}


def has_random_features(run: Run) -> bool:
    """Whether the run's features come from an untrained network, or its own network started as one."""
    features, parameters = run.record.features or {}, run.record.parameters
    return features.get("random") == "yes" or parameters.get("weights") == "random"


def is_control(run: Run) -> bool:
    """Whether the run is there to be compared with: random features, or another item's pictures."""
    return has_random_features(run) or bool(run.record.control)


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


@dataclass(frozen=True)
class Comparison:
    """The rows of one dataset compared user by user.

    Attributes:
        differences: of the exact mid-rank AUC, between all rows.
        best: the row with the highest AUC.
        baseline: of the rows that see no picture, the one with the best validation AUC; None where all do, or none.
    """

    differences: Differences
    best: str
    baseline: str | None


def compare(runs: Sequence[Run]) -> Comparison | None:
    """Compare all rows pairwise, see `significance`; None for a single row.

    Args:
        runs: runs of one dataset.

    Raises:
        InputError: see `trials`.
    """
    rows = trials(runs)
    if len(rows) < 2:
        return None
    differences = paired_differences(user_auc(runs))
    blind = [row for row in rows if not any(sees_pictures(run) for run in row.runs)]
    baseline = max(blind, key=_validation, default=None) if len(blind) < len(rows) else None
    # The row that is nowhere behind; of equals the first.
    best = differences.labels[int(np.argmax(differences.mean.min(1)))]
    return Comparison(differences, best, baseline.label if baseline else None)


def user_auc(runs: Sequence[Run]) -> pd.DataFrame:
    """Exact mid-rank AUC of each user (rows, by user index) by each configuration (columns), the mean of its trials."""

    def of(run: Run) -> pd.Series:
        return user_metrics(run.per_user)["auc"].set_axis(run.per_user["user"])

    return pd.concat(
        {
            row.label: pd.concat([of(run) for run in row.runs], axis=1).mean(axis=1, skipna=False)
            for row in trials(runs)
        },
        axis=1,
    )


def sees_pictures(run: Run) -> bool:
    """Whether the run's model was given pictures, or features of them."""
    card = list_models().get(run.record.model)
    return run.record.features is not None or (card is not None and "images" in card.uses)


def _validation(row: Trials) -> float:
    return float(np.mean([run.record.validation.auc for run in row.runs]))


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
    frame = _measured(runs, RESULTS)
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


def difference_table(comparison: Comparison) -> pd.DataFrame:
    """Every pair of rows, the better one first: mean difference of AUC, 95 % interval, p-value corrected by Holm."""
    d = comparison.differences
    order = np.argsort(-d.mean.mean(1), kind="stable")
    pairs = [(a, b) for place, a in enumerate(order) for b in order[place + 1 :]]
    columns = {
        ("AUC difference", "difference"): [d.mean[pair] for pair in pairs],
        ("AUC difference", "low"): [d.low[pair] for pair in pairs],
        ("AUC difference", "high"): [d.high[pair] for pair in pairs],
        ("AUC difference", "holds"): [bool(d.holds[pair]) for pair in pairs],
        ("corrected p", ""): [float(d.p[pair]) for pair in pairs],
    }
    index = pd.Index([f"{d.labels[a]} less {d.labels[b]}" for a, b in pairs], name="pair")
    return pd.DataFrame(columns, index)


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
    frame = _measured(runs, EXACT)
    return _with_plain(frame, runs, {"seconds per epoch": attrgetter("record.cost.seconds_per_epoch")})


def protocol_table(runs: Sequence[Run]) -> pd.DataFrame:
    """AUC of the same scores under each protocol and tie rule, and the share of candidates tied; see `auc_table`."""
    measures = [
        Measure(f"{protocol}{rule}", protocol, metric)
        for protocol in ("exact", *SAMPLED)
        for rule, metric in (("", "auc"), (", strict", "auc_strict"))
    ]
    ties = Measure("tied candidates, share", "exact", "tie_share")
    return _with_plain(_measured(runs, measures), runs, {ties.heading: lambda run: _value(run.metrics, ties)})


def ranking_table(runs: Sequence[Run]) -> pd.DataFrame:
    """HR@10 and NDCG@10 over the whole catalogue and over the candidates of each sampled protocol; see `auc_table`."""
    return _measured(
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
    frame = _measured(runs, cold, {"AUC of other items": _warm_auc})
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
    frame = _with_plain(_measured(runs, EXACT[:1], oracle=False), runs, costs)
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


def sizes_table(runs: Sequence[Run], datasets: Mapping[str, Dataset]) -> pd.DataFrame:
    """Table 1: the size of each dataset, and below those of the paper what it prints of them.

    Args:
        runs: any runs.
        datasets: the datasets that could be loaded, by fingerprint; of the others only what the records hold is shown.
    """
    rows = []
    for group in by_dataset(runs):
        record = group[0].record.dataset
        known = {
            "dataset": record.name,
            "users": record.users,
            "items": record.items,
            "training interactions": record.training_interactions,
        }
        loaded = datasets.get(record.fingerprint)
        rows.append(known if loaded is None else dataset_table(loaded).to_dict("records")[0])
        printed = paper_dataset(group)
        if printed is not None:
            rows.append({"dataset": f"{printed}, as the paper prints it", **PAPER_SIZES[printed]})
    return pd.DataFrame(rows).set_index("dataset")


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


def comparison_note(comparison: Comparison) -> str:
    """What the mark of a difference that holds means, which test it comes from and why."""
    differences = comparison.differences
    pairs = len(differences.labels) * (len(differences.labels) - 1) // 2
    against = (
        f" {comparison.baseline} is the baseline: of the models that see no pictures, the one with the best validation "
        "AUC."
        if comparison.baseline
        else ""
    )
    return (
        f"The difference holds: p at most {ALPHA:g} by a paired bootstrap, {differences.resamples:,} resamples of the "
        f"{differences.users:,} users, after Holm's correction for all {pairs:,} pairs of rows. Each user's AUC is "
        "averaged over the trials first: seeds are repeated measurements, users are the sample. The bootstrap asks "
        "about the mean, which the table shows; Wilcoxon's signed-rank test would ask about the median of differences "
        f"that are neither symmetric nor free of ties.{against}"
    )


def not_run(runs: Sequence[Run]) -> list[str]:
    """Titles of the registry's models that have no run."""
    present = {run.record.model for run in runs}
    return [card.title for name, card in list_models().items() if name not in present]


@dataclass(frozen=True)
class PaperTable:
    """A table of results of the ImgRec paper (Elsayed, Brinkmeyer and Schmidt-Thieme 2022, arXiv 2205.02923).

    Attributes:
        title: its number and subject.
        protocol: the evaluation protocol that it reports.
        models: names of its models, in its order.
        published: by dataset and model, the AUC that was printed.
        note: what a reader of the published numbers must know.
    """

    title: str
    protocol: str
    models: tuple[str, ...]
    published: Mapping[str, Mapping[str, float]]
    note: str = ""


# Only values read in the paper itself; where another source was used the note says so, and what is unknown is left out.
PAPER_TABLES = (
    PaperTable(
        "Table 2: AUC with 100 negatives",
        "imgrec-100",
        ("poprank", "warp", "bpr-mf", "fm-id", "fm-visual", "visrank", "vbpr", "dvbpr", "imgrec-ete"),
        {
            "Amazon Fashion": {
                "poprank": 0.5849, "warp": 0.6065, "bpr-mf": 0.6278, "fm-id": 0.7093, "fm-visual": 0.7093,
                "visrank": 0.6839, "vbpr": 0.7479, "dvbpr": 0.7964, "imgrec-ete": 0.8250,
            },
            "Amazon Men": {
                "poprank": 0.6060, "warp": 0.6081, "bpr-mf": 0.6450, "fm-id": 0.6654, "fm-visual": 0.6654,
                "imgrec-ete": 0.7899,
            },
        },
        "The paper does not say whether its FM used pictures: its value stands beside both of ours.",
    ),
    PaperTable(
        "Table 3: AUC with 500 negatives",
        "sampled-500",
        ("deepstyle", "jrl", "saers", "imgrec-ete"),
        {"Amazon Fashion": {"saers": 0.816, "imgrec-ete": 0.825}},
        "The value of SAERS is taken from a public leaderboard of its paper (arXiv 1905.12862).",
    ),
    PaperTable(
        "Table 4: three ways to add images, AUC with 100 negatives",
        "imgrec-100",
        ("imgrec-dir", "imgrec-ft", "imgrec-ete"),
        {
            "Amazon Fashion": {"imgrec-dir": 0.7770, "imgrec-ft": 0.8090, "imgrec-ete": 0.8250},
            "Amazon Men": {"imgrec-dir": 0.7363, "imgrec-ft": 0.7735, "imgrec-ete": 0.7899},
        },
    ),
)  # fmt: skip

PAPER_SIZES: Mapping[str, Mapping[str, int]] = {
    "Amazon Fashion": {"users": 45_184, "items": 166_270, "interactions": 358_003},
    "Amazon Men": {"users": 34_244, "items": 110_636},
}
"""What the paper's Table 1 prints of the files published with DVBPR; what could not be read there is left out."""


def paper_dataset(runs: Sequence[Run]) -> str | None:
    """The paper's name of the runs' dataset, known by its users and items; None where the paper has nothing on it."""
    record = runs[0].record.dataset
    for name, sizes in PAPER_SIZES.items():
        if (record.users, record.items) == (sizes["users"], sizes["items"]):
            return name
    return None


def paper_tables(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Tables 2, 3 and 4 of the ImgRec paper from our runs.

    The paper's AUC counts a tie as lost, and so does the difference to it; the mid-rank AUC stands beside. On a dataset
    of the paper there are columns `PAPER` and `DIFFERENCE`, and rows of published models that have no run.

    Args:
        runs: runs of one dataset.

    Returns:
        By title; a table without any row is left out.

    Raises:
        InputError: see `trials`.
    """
    dataset = paper_dataset(runs)
    trials(runs)  # refuses runs of several datasets
    tables = {}
    for table in PAPER_TABLES:
        measures = (
            Measure("strict AUC", table.protocol, "auc_strict"),
            Measure("AUC", table.protocol, "auc"),
        )
        published = table.published.get(dataset or "", {})
        parts, values = [], []
        for model in table.models:
            chosen = [run for run in runs if run.record.model == model]
            if chosen:
                parts.append(_measured(chosen, measures, oracle=False))
                # A control is not the published model: it has nothing to be measured against.
                values += [
                    math.nan if is_control(row.runs[0]) else published.get(model, math.nan) for row in trials(chosen)
                ]
            elif model in published:
                card = list_models().get(model)
                parts.append(_blank(card.title if card else _TITLES.get(model, model), measures))
                values.append(published[model])
        if not parts:
            continue
        frame = pd.concat(parts).rename_axis("model")
        if published:
            frame[PAPER, ""] = values
            frame[DIFFERENCE, "difference"] = frame["strict AUC", "mean"] - frame[PAPER, ""]
        known = _measured(runs, measures).filter(items=[ORACLE], axis=0)
        tables[table.title] = pd.concat([frame, known]).rename_axis("model") if len(known) else frame
    return tables


_TITLES = {"dvbpr": "DVBPR", "saers": "SAERS", "jrl": "JRL", "imgrec-ete": "ImgRec-EtE"}
"""Titles of published models that the registry does not have."""


def _blank(label: str, measures: Sequence[Measure]) -> pd.DataFrame:
    columns = [("trials", "")] + [(m.heading, statistic) for m in measures for statistic in ("mean", "sd")]
    row = [0] + [math.nan] * (len(columns) - 1)
    return pd.DataFrame([row], pd.Index([label], name="model"), pd.MultiIndex.from_tuples(columns))


def _measured(
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
