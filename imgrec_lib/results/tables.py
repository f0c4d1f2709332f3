"""The tables of a report: every number is computed from run records, here and nowhere else.

A row is a model in one configuration; its number is the mean over the trials, runs that differ by seed alone. In a
frame the columns (name, "mean") and (name, "sd") belong to one measured quantity, (name, "difference") is a difference
with, where known, its interval (name, "low"), (name, "high") and whether it holds (name, "holds"), and (name, "") is a
plain value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from imgrec_lib.evaluation import history_bands, popularity_bands, user_metrics
from imgrec_lib.evaluation.lists import LIST_METRICS
from imgrec_lib.evaluation.metrics import AT_CUTOFF
from imgrec_lib.features import list_backbones
from imgrec_lib.models import list_models
from imgrec_lib.results.results import Results
from imgrec_lib.results.trials import ELSEWHERE, ORACLE, RANDOM, RECONSTRUCTION, Trials, metric_heading, varying
from imgrec_lib.runs import Metrics, Record, Run


class Measure(NamedTuple):
    """A column of a table: its heading, and where its value stands in a run's metrics."""

    heading: str
    protocol: str
    metric: str


def _of(*metrics: str, protocol: str = "exact") -> tuple[Measure, ...]:
    return tuple(Measure(metric_heading(metric), protocol, metric) for metric in metrics)


SAMPLED = ("dvbpr-100", "imgrec-100", "sampled-500")
COLD = Measure("cold AUC", "exact", "cold_auc")
EXACT = (
    *_of("auc", "auc_strict"),
    *(Measure(f"AUC, {protocol}", protocol, "auc") for protocol in SAMPLED),
    *_of("hr@10", "ndcg@10"),
    COLD,
)
RESULTS = (*_of("auc", "hr@10", "ndcg@10", "recall@20", "mrr@10"), COLD)
VALIDATION = "validation AUC"


def results_table(results: Results) -> pd.DataFrame:
    """The main table: quality over the whole catalogue, whether settings were searched, and which differences hold.

    Returns:
        AUC, the metrics of the first ten and twenty, cold AUC, coverage (the share of the catalogue that anybody is
        shown; neither best nor worst) and "settings": "searched" where a search on this data chose them by validation,
        "not searched", or None where there are none; then, where there are several rows, "AUC against <best>" and "AUC
        against <baseline>". Columns of which no record knows anything are left out.
    """
    frame, comparison = _measured(results, RESULTS, plain=_of("coverage@10"), lists=True), results.comparison
    rows = {row.label: row for row in (*results.rows, *results.lists)}
    frame["settings", ""] = [_settings_of(rows.get(label)) for label in frame.index]
    if comparison is None:
        return frame
    differences, holds = comparison.differences, comparison.holds
    for other in dict.fromkeys(filter(None, (comparison.best, comparison.baseline))):
        place, heading = differences.place(other), f"AUC against {other}"
        known = [
            differences.place(label) if label in differences.labels and label != other else -1 for label in frame.index
        ]
        frame[heading, "difference"] = [differences.mean[row, place] if row >= 0 else math.nan for row in known]
        frame[heading, "holds"] = [bool(row >= 0 and holds[row, place]) for row in known]
    return frame


def _settings_of(row: Trials | None) -> str | None:
    """What the main table says of a row's settings; of the oracle nothing."""
    if row is None or not (row.record.parameters or row.record.phases):
        return None
    return "not searched" if row.unsearched else "searched"


def metrics_table(results: Results) -> pd.DataFrame:
    """Every metric of the held-out items with a cut-off, over the whole catalogue, at each cut-off of the records."""
    return _measured(results, _of(*_recorded(results, AT_CUTOFF)), lists=True)


def lists_table(results: Results) -> pd.DataFrame:
    """Every metric of the lists that all users are shown, whatever their held-out items are: plain columns, for more is
    not better."""
    return _measured(results, (), plain=_of(*_recorded(results, LIST_METRICS)), lists=True)


def _recorded(results: Results, kinds: Iterable[str]) -> list[str]:
    """The metrics of some kinds that any record has under `exact`, by cut-off and then in the order of the kinds."""
    names = dict.fromkeys(name for run in results.runs for name in run.metrics.get("exact", {}))
    at = [(int(name.partition("@")[2]), name) for name in names if name.partition("@")[0] in kinds]
    places = {kind: place for place, kind in enumerate(kinds)}
    return [name for _, name in sorted(at, key=lambda pair: (pair[0], places[pair[1].partition("@")[0]]))]


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
    """Exact metrics of held-out items without training interaction, beside the AUC of all the others; of users without
    training interaction where there are any."""
    cold = [
        COLD,
        Measure("cold strict AUC", "exact", "cold_auc_strict"),
        Measure("cold HR@10", "exact", "cold_hr@10"),
        Measure("cold NDCG@10", "exact", "cold_ndcg@10"),
    ]
    counts = {"cold test items": "cold_held_out"}
    if any(_number_of(run, "new_held_out") for run in results.runs):
        cold.append(Measure("AUC of new users", "exact", "new_auc"))
        counts["test items of new users"] = "new_held_out"
    frame = _measured(results, cold)
    warm = [[_warm_auc(run) for run in row.runs] for row in results.rows]
    warm += [[_warm_auc_of_means(metrics) for metrics in results.oracle]] if results.oracle else []
    frame[WARM, "mean"], frame[WARM, "sd"] = _mean(warm), _deviation(warm)
    return _with_plain(frame, results, {heading: partial(_number_of, key=key) for heading, key in counts.items()})


def variants_table(results: Results) -> pd.DataFrame | None:
    """Exact metrics of all users, and of those none of whose held-out items is a variant of something that the user has
    bought (`Dataset.bought_variants`): a hit on another colour of the same shirt says nothing of taste.

    Returns:
        AUC, HR@10 and NDCG@10, each with and without those users; None where the runs do not know groups, or where no
        user would be left.
    """
    if any(VARIANT not in run.per_user for run in results.runs):
        return None
    rest = {run.name: _without_variants(run) for run in results.runs}
    if any(not len(each) for each in rest.values()):
        return None
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(row.runs) for row in results.rows]}
    for metric in ("auc", "hr@10", "ndcg@10"):
        for heading, tables in (
            (metric_heading(metric), {run.name: user_metrics(run.per_user) for run in results.runs}),
            (f"{metric_heading(metric)} without variants", rest),
        ):
            values = [[float(tables[run.name][metric].mean()) for run in row.runs] for row in results.rows]
            columns[heading, "mean"], columns[heading, "sd"] = _mean(values), _deviation(values)
    return pd.DataFrame(columns, pd.Index([row.label for row in results.rows], name="model"))


VARIANT = "variant"


def _without_variants(run: Run) -> pd.DataFrame:
    """`user_metrics` of the users none of whose held-out items is a variant of something bought."""
    users = run.per_user
    return user_metrics(users[~users.groupby("user")[VARIANT].transform("any")])


def _variant_share(results: Results) -> float | None:
    """The share of the held-out items that are variants of something that their user has bought; None where the runs
    do not know groups."""
    users = results.runs[0].per_user
    return float(users[VARIANT].mean()) if VARIANT in users and len(users) else None


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
        max((run.record.cost.peak_memory_bytes or np.nan) for run in row.runs) / 2**20 for row in results.rows
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
            VALIDATION: [run.record.validation.value() for _, run in rows],
            "test AUC": [run.metrics["exact"]["auc"] for _, run in rows],
            "finished": [run.record.finished for _, run in rows],
        },
        index=pd.Index([run.name for _, run in rows], name="run"),
    )


def search_table(rows: Sequence[Trials], chosen_by: str = "auc") -> pd.DataFrame:
    """Every configuration that a search tried, the best on the validation items first. Test metrics take no part in it.

    Args:
        rows: configurations of one model and profile.
        chosen_by: the metric by which the best was chosen.

    Returns:
        A plain column for each setting that varies, then "trials" and the mean and sample standard deviation over the
        seeds of the metric that was chosen by, and of the validation AUC; indexed by place, "1" for the best.
    """
    rows = sorted(rows, key=lambda row: -row.validation(chosen_by))
    columns: dict[tuple[str, str], list[Any]] = {
        (name.replace("_", " "), ""): [row.settings.get(name) for row in rows]
        for name in varying([row.settings for row in rows])
    }
    columns["trials", ""] = [len(row.runs) for row in rows]
    for metric in dict.fromkeys((chosen_by, "auc")):
        scores = [[run.record.validation.value(metric) for run in row.runs] for row in rows]
        heading = f"validation {metric_heading(metric)}"
        columns[heading, "mean"], columns[heading, "sd"] = _mean(scores), _deviation(scores)
    return pd.DataFrame(columns, pd.Index([str(place) for place in range(1, len(rows) + 1)], name="place"))


VARIANTS = "{:.1%} of the held-out items are variants of something that their user has bought in training."


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
    variants = _variant_share(results)
    sentences = [
        f"Dataset {record.name}: {record.users:,} users, {record.items:,} items, "
        f"{record.training_interactions:,} training interactions; {kind} split{f' ({details})' if details else ''}.",
        "Candidates are all items of the catalogue, cold items included, but the user's own; "
        f"{cold / held_out if held_out else 0:.1%} of the {held_out:,} held-out items are cold (no training "
        "interaction).",
        *([] if variants is None else [VARIANTS.format(variants)]),
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
    if results.lists:
        sentences.append(
            f"Rows marked “{ELSEWHERE}” are other programs' lists, measured on the same split: AUC is known of them "
            "only where they hold every item, and no difference with them is tested."
        )
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
    if size == 0:
        return f"{backbone} at its own size"
    return f"{backbone} at {size} px" if backbone else f"{size} px"


def cautions(results: Results) -> list[str]:
    """Sentences on the rows that may not be what their models can be: settings that were not searched on this data,
    weights that were chosen on a sample of the users, and those kept suspiciously early, or when training ended."""
    sentences = []
    unsearched = [row.label for row in results.rows if row.unsearched]
    if unsearched:
        sentences.append(f"Settings not searched on this data: {', '.join(unsearched)}.")
    sampled = {
        row.label: row.runs[0].record.validation.users
        for row in results.rows
        if any(phase.get("validation_users") for phase in row.record.phases)
    }
    if sampled:
        which = ", ".join(f"{label} ({users:,})" for label, users in sampled.items())
        sentences.append(f"Weights were chosen on a sample of the validation users, the same for all: {which}.")
    places = {row.label: {_kept_at(run) for run in row.runs} for row in results.rows}
    for place, words in (
        ("early", "The best epoch is among the first three of its phase (the learning rate may be too large): "),
        ("last", "The best epoch is the last (more epochs may help): "),
    ):
        labels = [label for label, found in places.items() if place in found]
        sentences += [f"{words}{', '.join(labels)}."] if labels else []
    return sentences


def searches(tried: Results) -> str:
    """How many configurations a search tried of each model, and by what it chose."""
    numbers: dict[int, list[str]] = {}
    for model, profile in dict.fromkeys((row.record.model, row.record.profile) for row in tried.rows):
        rows = tried.of_model(model, profile)
        numbers.setdefault(len(rows), []).append(rows[0].record.title)
    words = "; ".join(f"{number} configurations of {', '.join(titles)}" for number, titles in numbers.items())
    return f"Searched on this data, by validation {metric_heading(tried.chosen_by)}: {words}."


def _kept_at(run: Run) -> str | None:
    """ "early" or "last" where the epoch of the weights that a training kept is among the first three of its phase, or
    the last of all; None elsewhere, and where no weights were chosen."""
    phases, kept = run.record.phases, run.record.validation
    chosen = 0 < kept.phase <= len(phases) and phases[kept.phase - 1].get("restore", "best") == "best"
    if not chosen or kept.auc is None:
        return None
    if kept.epoch <= 3:
        return "early"
    last = run.curve[["phase", "epoch"]].iloc[-1].tolist()
    return "last" if [kept.phase, kept.epoch] == last else None


def not_run(results: Results) -> list[str]:
    """Titles of the registry's models that have no run."""
    present = {row.record.model for row in results.rows}
    return [card.title for name, card in list_models().items() if name not in present]


def _measured(
    results: Results, measures: Sequence[Measure], plain: Sequence[Measure] = (), *, lists: bool = False
) -> pd.DataFrame:
    """`measured_table` of all rows, with those of lists from elsewhere where their metrics allow it, the oracle's below
    where it is known."""
    return measured_table((*results.rows, *(results.lists if lists else ())), measures, plain, results.oracle)


def measured_table(
    rows: Sequence[Trials],
    measures: Sequence[Measure],
    plain: Sequence[Measure] = (),
    oracle: Sequence[Metrics] = (),
) -> pd.DataFrame:
    """Mean and standard deviation over the trials of each row.

    Args:
        rows: the rows.
        measures: the columns, each a metric of a protocol; those of which no trial knows anything are left out.
        plain: further columns, of which only the mean is given and none is best.
        oracle: metrics of the true preferences, which make one more row.
    """
    samples: dict[str, Sequence[Metrics]] = {row.label: [run.metrics for run in row.runs] for row in rows}
    if oracle:
        samples[ORACLE] = oracle
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(sample) for sample in samples.values()]}
    for measure in (*measures, *plain):
        values = [[_value(metrics, measure) for metrics in sample] for sample in samples.values()]
        if all(math.isnan(value) for sample in values for value in sample):
            continue
        if measure in plain:
            columns[measure.heading, ""] = _mean(values)
        else:
            columns[measure.heading, "mean"], columns[measure.heading, "sd"] = _mean(values), _deviation(values)
    return pd.DataFrame(columns, pd.Index(list(samples), name="model"))


def _banded(results: Results, bands: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    found = {row.label: [bands(run.per_user) for run in row.runs] for row in results.rows}
    columns: dict[tuple[str, str], list[float]] = {("trials", ""): [len(each) for each in found.values()]}
    first = next(iter(found.values()))[0]
    for band, (label, users) in enumerate(zip(first.index, first["users"].tolist(), strict=True)):
        values = [[_number(table["auc"].iloc[band]) for table in tables] for tables in found.values()]
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
    return _number(metrics[measure.protocol].get(measure.metric))


def _number(value: float | int | None) -> float:
    return math.nan if value is None else float(value)


def _number_of(run: Run, key: str) -> float | None:
    """How many held-out items are of a kind; records of versions that knew one item a user count its users."""
    exact = run.metrics["exact"]
    return exact.get(key, exact.get(key.replace("held_out", "users")))


WARM = "AUC of other items"


def _warm_auc(run: Run) -> float:
    """The exact AUC of a run's held-out items that are not cold."""
    warm = run.per_user[run.per_user["item_popularity"] > 0]
    return float(user_metrics(warm)["auc"].mean()) if len(warm) else math.nan


def _warm_auc_of_means(metrics: Metrics) -> float:
    """The same from the means over all users and over those with a cold item, where each user has one item."""
    exact = metrics["exact"]
    users, cold = exact["users"] or 0, exact["cold_users"] or 0
    if users == cold or exact.get("held_out", users) != users:
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
