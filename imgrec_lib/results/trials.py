"""The rows of every table: runs that differ by seed alone, and how tables and figures call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imgrec_lib.files import fingerprint
from imgrec_lib.models import list_models
from imgrec_lib.runs import Record, Run

ORACLE = "Oracle (the simulated tastes; the ceiling)"
"""Label of the row of the true preferences; it takes part in no comparison."""
RECONSTRUCTION = "†"
RANDOM = "random weights"
SETS = "features: features"
"""The setting that says which sets of features a model was given, where it was given several."""
ELSEWHERE = "lists from elsewhere"


@dataclass(frozen=True)
class Trials:
    """The runs of one row: the same dataset, model, hyper-parameters and features, one run for each seed.

    Attributes:
        label: how tables and figures call it.
        runs: at least one, by seed.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def record(self) -> Record:
        """The first run's; all of them have the same model, hyper-parameters and features."""
        return self.runs[0].record

    def validation(self, metric: str = "auc") -> float:
        """A metric of the validation items, mean over the trials; NaN where nothing was validated."""
        return float(np.mean([run.record.validation.value(metric) for run in self.runs]))

    @property
    def settings(self) -> dict[str, Any]:
        """Hyper-parameters, trainer's settings and features, by readable name."""
        return _settings(self.record)

    @property
    def unsearched(self) -> bool:
        """Whether there was something to choose (hyper-parameters, settings of training) and no search on this data
        chose it: such a row stands for its settings, not for its model."""
        has_settings = bool(self.record.parameters or self.record.phases)
        return has_settings and not all(run.record.searched for run in self.runs)

    @property
    def has_random_features(self) -> bool:
        """Whether the features come from an untrained network, or the model's own network started as one."""
        return _has_random_features(self.record)

    @property
    def is_control(self) -> bool:
        """Whether the row is there to be compared with: random features, or another item's pictures."""
        return self.has_random_features or self.record.control is not None

    @property
    def sees_pictures(self) -> bool:
        """Whether the model was given pictures, or features of them."""
        card = list_models().get(self.record.model)
        return self.record.features is not None or (card is not None and "images" in card.uses)


def group_trials(runs: Iterable[Run]) -> tuple[Trials, ...]:
    """Group the runs of one dataset into the rows of a table, in registry order.

    A label is the model's title, the profile where it is not "default", what tells it from other configurations of the
    same model and profile (of a setting that most of these share, only the others are told), and the notices that
    every table owes its reader: "†" for a reconstruction, "random weights" for features of an untrained network, the
    name of a control. Copies of a run count once.
    """
    rows: dict[str, dict[int, Run]] = {}
    for run in sorted(runs, key=_order):
        rows.setdefault(fingerprint(_configuration(run.record)), {}).setdefault(run.record.seed, run)
    groups = [tuple(by_seed[seed] for seed in sorted(by_seed)) for by_seed in rows.values()]
    return tuple(Trials(_label(group[0].record, [other[0].record for other in groups]), group) for group in groups)


HEADINGS = {
    "auc": "AUC",
    "auc_strict": "strict AUC",
    "hr": "HR",
    "mrr": "MRR",
    "map": "MAP",
    "ndcg": "NDCG",
    "gini": "Gini",
}


def metric_heading(metric: str) -> str:
    """How tables call a metric: "ndcg@10" is "NDCG@10", "category_diversity@10" is "category diversity@10"."""
    kind, at, k = metric.partition("@")
    return f"{HEADINGS.get(kind, kind.replace('_', ' '))}{at}{k}"


def varying(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the settings that are not the same everywhere, in order of first appearance."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({repr(each.get(name)) for each in settings}) > 1]


def _order(run: Run) -> tuple[Any, ...]:
    names, record = list(list_models()), run.record
    place = names.index(record.model) if record.model in names else len(names)
    return place, record.model, record.profile != "default", record.profile, fingerprint(_configuration(record))


def _configuration(record: Record) -> dict[str, Any]:
    """All that two trials of the same row share."""
    return {name: getattr(record, name) for name in ("model", "profile", "parameters", "phases", "features")}


def _label(record: Record, others: Sequence[Record]) -> str:
    notes = [] if record.profile == "default" else [f"{record.profile} profile"]
    same = [other for other in others if (other.model, other.profile) == (record.model, record.profile)]
    # Features of an untrained network and a control have notices of their own, which follow; and a digest says nothing
    # to a reader as long as something else tells the rows apart.
    told = ("features: random", "features: control")
    varied = [name for name in sorted(varying([_settings(other) for other in same])) if name not in told]
    telling = [name for name in varied if name != "features: weights_sha256"] or varied
    if SETS in telling:
        # Which sets of features a model was given says it all, as long as equal sets are equal in all else.
        notes.append(_settings(record).get(SETS, "pictures"))
        alike = [other for other in same if _settings(other).get(SETS) == _settings(record).get(SETS)]
        within = varying([_settings(other) for other in alike])
        telling = [name for name in telling if name != SETS and (name in within or not name.startswith("features: "))]
    for name in telling:
        value = _settings(record).get(name, "none")
        shared = sum(repr(_settings(other).get(name, "none")) == repr(value) for other in same)
        # Of a setting that was turned once, the rows in which it was not need not speak.
        if 2 * shared <= len(same):
            notes.append(f"{name} {value}")
    if _has_random_features(record):
        notes.append(RANDOM)
    if record.control:
        notes.append(record.control)
    if record.stage == "lists":
        notes.append(ELSEWHERE)
    if record.impersonal:
        notes.append("the same ranking for everybody")
    mark = f" {RECONSTRUCTION}" if record.fidelity == "reconstruction" else ""
    return record.title + mark + (f" ({'; '.join(notes)})" if notes else "")


def _settings(record: Record) -> dict[str, Any]:
    found = dict(record.parameters)
    for number, phase in enumerate(record.phases, 1):
        prefix = f"phase {number} " if len(record.phases) > 1 else ""
        found |= {f"{prefix}{name}": value for name, value in phase.items()}
    return found | {f"features: {name}": value for name, value in (record.features or {}).items()}


def _has_random_features(record: Record) -> bool:
    return (record.features or {}).get("random") == "yes" or record.parameters.get("weights") == "random"
