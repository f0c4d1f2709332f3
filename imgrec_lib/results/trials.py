"""The rows of every table: runs that differ by seed alone, and how tables and figures call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from imgrec_lib.errors import InputError
from imgrec_lib.files import fingerprint
from imgrec_lib.models import list_models
from imgrec_lib.runs import Run

ORACLE = "Oracle (the simulated tastes; the ceiling)"
"""Label of the row of the true preferences; it takes part in no comparison."""
RECONSTRUCTION = "†"
RANDOM = "random weights"


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


def sees_pictures(run: Run) -> bool:
    """Whether the run's model was given pictures, or features of them."""
    card = list_models().get(run.record.model)
    return run.record.features is not None or (card is not None and "images" in card.uses)
