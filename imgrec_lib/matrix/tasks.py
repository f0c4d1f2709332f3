"""The plan: which notebooks a matrix makes, what each depends on, and where each of them stands.

A run is done when its status says so for its address: the fingerprint of the notebook's code, its parameters, the
library's version, the source of every module that makes its numbers, and the data. When one of them changes, the run is
stale: it is done anew in the same folder, whose name follows from the parameters alone. The configurations that a
search draws, and the journals of searches, lie in `<runs>/search`; the trials of a winner are planned when its search
has spent its budget and all of its configurations have ended.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.files import fingerprint, write_json
from imgrec_lib.matrix.definition import Data, Matrix, control_of, features_of, of_pictures
from imgrec_lib.matrix.facts import Facts, known_facts
from imgrec_lib.models import model_card
from imgrec_lib.notebooks import notebook_address, notebook_options, notebook_parts
from imgrec_lib.request import Request
from imgrec_lib.runs import discard_run, open_run
from imgrec_lib.search import Search, Study
from imgrec_lib.source import run_fingerprint, source_fingerprint

State = Literal["done", "running", "failed", "interrupted", "stale", "to do", "waiting"]
Stage = Literal["data", "search", "trial", "comparison"]

HEARTBEAT = 5.0
"""Seconds between the signs of life of a running notebook."""
SILENCE = 60.0
"""Seconds without a sign of life after which it counts as interrupted."""

UNREAD = "unread"
"""Stands for the fingerprint of data that were not read yet."""

CHANGES = {
    "data": "the data",
    "code": "code that makes its numbers",
    "notebook": "the notebook",
    "parameters": "its parameters",
    "files": "a file that its parameters name",
    "runs": "the runs that it reads",
    "version": "the version of imgrec",
}
"""The parts of an address, in the words that say that one of them has changed."""


@dataclass(frozen=True)
class Status:
    """How the execution of a notebook went; kept beside it as `<notebook>.status.json`.

    Attributes:
        state: "running", "done", "failed" or "interrupted".
        address: of what was executed.
        labels: those of its task.
        began: Unix seconds.
        seconds: how long it took, once it has ended.
        error: one sentence, when it failed.
        parts: fingerprints of what the address is made of, by the keys of `CHANGES`; None in those of versions that did
            not keep them.
    """

    state: str
    address: str
    labels: Mapping[str, str]
    began: float
    seconds: float | None = None
    error: str = ""
    parts: Mapping[str, str] | None = None

    @classmethod
    def read(cls, path: Path) -> Status | None:
        """The status in a file; None where there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Task:
    """One notebook to execute, or one configuration of a search, which needs none.

    Attributes:
        stage: "data" (prepares a dataset), "search" (a configuration), "trial" or "comparison".
        labels: what it is, for tables and `--only`: dataset, model, profile, seed, and control, ablation or setting
            (of a search) of a run; dataset and notebook of any other.
        notebook: name of the notebook; empty for a configuration.
        parameters: its parameters; `device` is the kind of device, the driver says which.
        output: where the executed copy goes; of a configuration, its record.
        address: see `notebook_address`.
        parts: see `Status`.
        study, number: of a configuration, the study that drew it, and its number there.
    """

    stage: Stage
    labels: Mapping[str, str]
    notebook: str
    parameters: Mapping[str, Any]
    output: Path
    address: str
    parts: Mapping[str, str] = field(default_factory=dict)
    study: Study | None = None
    number: int = 0

    @property
    def folder(self) -> Path:
        return self.output.parent

    @property
    def is_run(self) -> bool:
        """Whether it makes a run: a trial, or a configuration of a search."""
        return self.stage in ("search", "trial")

    @property
    def name(self) -> str:
        """What to call it in a sentence: the run's folder, or the notebook and its dataset."""
        return self.folder.name if self.is_run else f"{self.notebook} of {self.labels['dataset']}"

    @property
    def status_path(self) -> Path:
        return self.output.with_suffix(".status.json")

    @property
    def status(self) -> Status | None:
        """What is known of its last execution; None where there was none."""
        return Status.read(self.status_path)

    @property
    def state(self) -> State:
        status = self.status
        if status is None:
            return "stale" if self.output.exists() or (self.is_run and (self.folder / "run.json").exists()) else "to do"
        if status.address != self.address:
            return "stale"
        if status.state == "running":
            return "running" if self._silent_for() < SILENCE else "interrupted"
        if status.state == "done":
            return "done" if self.output.exists() else "to do"
        return "failed" if status.state == "failed" else "interrupted"

    @property
    def changes(self) -> str:
        """Of a stale one: what has changed since it was executed; empty where nothing says so."""
        status = self.status
        if status is None:
            return "not made by this matrix"
        before = status.parts or {}
        changed = [words for part, words in CHANGES.items() if part in before and before[part] != self.parts.get(part)]
        if CHANGES["data"] in changed and "data" not in self.parts:
            changed[0] += ", or they were not read yet"
        return f"changed: {', '.join(changed)}" if changed else ""

    def _silent_for(self) -> float:
        """Seconds since its last sign of life."""
        try:
            return time.time() - self.status_path.stat().st_mtime
        except OSError:
            return float("inf")

    def record(self, state: Literal["running", "done", "failed", "interrupted"], error: str = "") -> None:
        """Write its status; `running` starts the clock, anything else stops it."""
        now, before = time.time(), self.status
        began = now if before is None or state == "running" else before.began
        seconds = None if state == "running" else now - began
        status = Status(state, self.address, dict(self.labels), began, seconds, error, dict(self.parts))
        write_json(self.status_path, vars(status))

    def sign_of_life(self) -> None:
        """Called every `HEARTBEAT` seconds while it runs."""
        with suppress(FileNotFoundError):
            os.utime(self.status_path)

    def forget(self) -> None:
        """Count it as never executed."""
        self.status_path.unlink(missing_ok=True)
        if self.is_run:
            discard_run(self.folder)
        else:
            self.output.unlink(missing_ok=True)


@dataclass(frozen=True)
class Waiting:
    """A trial that cannot be planned yet: the search that chooses its hyper-parameters has not ended.

    Attributes:
        labels: as of a task.
        problem: a sentence where the search ended without a winner, else empty.
    """

    labels: Mapping[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Searching:
    """The search of one model, around one profile, on one dataset.

    Attributes:
        labels: dataset, model, profile and seed.
        study: its journal.
        tasks: the configurations drawn so far, by number; one that was drawn twice is one run.
        left: how many are still to be drawn; None where nobody knows, for minutes are the limit.
    """

    labels: Mapping[str, str]
    study: Study
    tasks: list[Task]
    left: int | None


@dataclass(frozen=True)
class Plan:
    """The notebooks of a matrix, in the order of the file.

    Attributes:
        data: those that prepare the datasets.
        searches: the searches, with the configurations that they have drawn.
        trials: the runs that tables are made of.
        waiting: trials that wait for a search.
        comparisons: those that read the finished trials of a dataset; planned anew as trials finish.
        unread: datasets that were never read or have changed: all that depends on them counts as not done.
    """

    data: list[Task] = field(default_factory=list)
    searches: list[Searching] = field(default_factory=list)
    trials: list[Task] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    comparisons: list[Task] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Task]:
        """Configurations of searches, and trials."""
        drawn = {task.output: task for each in self.searches for task in reversed(each.tasks)}
        return [*reversed(drawn.values()), *self.trials]

    @property
    def tasks(self) -> list[Task]:
        return [*self.data, *self.runs, *self.comparisons]


def plan(
    matrix: Matrix,
    runs: Path,
    reports: Path,
    facts: Mapping[str, Facts | None] | None = None,
    only: Mapping[str, Iterable[str]] | None = None,
) -> Plan:
    """The notebooks of a matrix, and their addresses as things stand on disk now.

    Args:
        matrix: what to run.
        runs: folder of the run folders.
        reports: folder of the other executed notebooks.
        facts: what is known of each dataset, from `all_facts`; looked up when not given.
        only: label -> admissible values; other runs, and all comparisons, are left out.

    Raises:
        InputError: `only` names what no run of the matrix has.
    """
    facts = all_facts(matrix, runs) if facts is None else facts
    made = Plan(unread=[name for name in matrix.datasets if facts.get(name) is None])
    for name, data in matrix.datasets.items():
        _plan_dataset(made, matrix, name, data, facts.get(name), runs.resolve(), _beside(reports, matrix, name))
    return _chosen_only(made, only) if only else made


def all_facts(matrix: Matrix, runs: Path) -> dict[str, Facts | None]:
    """What is known of each dataset of a matrix without reading it."""
    return {name: known_facts(data, runs, matrix.sees_pictures(data)) for name, data in matrix.datasets.items()}


def _beside(reports: Path, matrix: Matrix, name: str) -> Path:
    """With several datasets each has a folder of its own in the reports."""
    return (reports / name if len(matrix.datasets) > 1 else reports).resolve()


def _plan_dataset(
    made: Plan, matrix: Matrix, name: str, data: Data, facts: Facts | None, runs: Path, reports: Path
) -> None:
    labels = {"dataset": name}
    known = facts.fingerprint if facts else UNREAD
    source: dict[str, Any] = {"dataset": data.dataset, "root": data.root, "dataset_options": data.options}
    device = {"device": matrix.devices[0].partition(":")[0]}
    shown = source_fingerprint(["imgrec_lib.report"])
    pairs, controls = matrix.profiles_of(matrix.models, data), matrix.profiles_of(matrix.controls, data)
    seen = matrix.sees_pictures(data)
    preparing = {"01_data": source | _of_pictures("01_data", seen)}
    used = [model for model, _ in [*pairs, *controls] if "features" in model_card(model).uses]
    sets = [files for model in used for files in matrix.features_of(model).values()]
    shown_sets = [files for files in sets if of_pictures(files)]
    if shown_sets and (facts is None or facts.pictures):
        preparing["02_features"] = source | features_of(matrix, shown_sets[0]) | device
    for notebook, parameters in preparing.items():
        made.data.append(_notebook_task("data", labels, notebook, parameters, reports, data=[known], code=[shown]))

    own_trials: list[Task] = []
    both = list(dict.fromkeys([*pairs, *controls]))
    for model, profile, (part, files) in [
        (*pair, each) for pair in both for each in matrix.features_of(pair[0]).items()
    ]:
        of_model = labels | {"model": model, "profile": profile} | ({"features": part} if part else {})
        given = matrix.parameters_of(model, profile)
        features = features_of(matrix, files)
        request = Request.from_parameters(source | features | device | {"model": model, "profile": profile})
        variants: list[tuple[dict[str, Any], dict[str, str]]] = []
        if (model, profile) in pairs:
            variants += [({}, {}), *((each, {"ablation": _words(each)}) for each in matrix.ablations.get(model, []))]
        if (model, profile) in controls:
            variants += [({}, {"control": control_of(files)})]
        search = matrix.search_of(model, profile)
        winner: dict[str, Any] = {}
        journal = ""
        if search is not None:
            asked = replace(request, parameters=given, seed=matrix.seeds[0])
            found = _searching(of_model, asked, search, matrix.choose_by or "auc", runs / "search", known)
            made.searches.append(found)
            best, problem = winning(found)
            if best is None:
                each = [of_model | label | {"seed": str(seed)} for _, label in variants for seed in matrix.seeds]
                made.waiting.extend(Waiting(labels_of_trial, problem) for labels_of_trial in each)
                continue
            winner, journal = dict(best.parameters["varied"]), str(found.study.path)
        for changed, label in variants:
            for seed in matrix.seeds:
                trial = replace(
                    request,
                    parameters=given | winner | changed,
                    searched=winner,
                    seed=seed,
                    control=label.get("control"),
                )
                labels_of_trial = of_model | label | {"seed": str(seed)}
                own_trials.append(_run_task("trial", labels_of_trial, trial, runs, known, journal))
    made.trials.extend({task.output: task for task in own_trials}.values())

    finished = [task for task in own_trials if task.state == "done"]
    if finished:
        for notebook, chosen in matrix.compare.items():
            parameters = {"runs": str(runs), "only": [task.folder.name for task in finished]}
            parameters |= _of_pictures(notebook, seen) | chosen
            addresses = [task.address for task in finished]
            made.comparisons.append(
                _notebook_task("comparison", labels, notebook, parameters, reports, code=[shown], runs=addresses)
            )


def _of_pictures(notebook: str, seen: bool) -> dict[str, Any]:
    """What tells a notebook that would prepare all pictures that no model sees any."""
    return {} if seen or "pictures" not in notebook_options(notebook) else {"pictures": False}


def _words(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items()
    )


def _searching(
    labels: Mapping[str, str], request: Request, search: Search, choose_by: str, folder: Path, data: str
) -> Searching:
    """A search as its journal says that it stands.

    Args:
        labels: dataset, model and profile.
        request: what all configurations share.
        search, choose_by: see `Study`.
        folder: of journals and runs.
        data: the data's fingerprint.
    """
    labels = {**labels, "seed": str(request.seed)}
    asked = [_asked(request.to_parameters()), search.to_json(), choose_by]
    name = fingerprint(asked, data, _code(request), version("imgrec"), _contents(asked[0]))
    what = [labels["dataset"], labels["model"], labels["profile"], fingerprint(asked)[:8]]
    path = folder / f"{'-'.join(what)}.journal"
    study = Study(path, name, labels["model"], labels["profile"], search, choose_by)
    tasks = []
    for trial in [] if data == UNREAD else study.drawn():
        point = dict(trial.params)
        of_trial = replace(request, parameters=request.parameters | point, varied=point)
        made = _run_task("search", labels | {"setting": _words(point)}, of_trial, folder, data)
        tasks.append(replace(made, study=study, number=trial.number))
    statuses = {task.output: task.status for task in tasks}
    seconds = sum(status.seconds or 0.0 for status in statuses.values() if status is not None)
    return Searching(labels, study, tasks, search.left(len(tasks), seconds))


def winning(search: Searching) -> tuple[Task | None, str]:
    """The configuration of a search that is best on the validation items by its metric; of equal ones the first.

    Nothing else of a run is looked at, and a search's runs are never tested (`train_run`): the choice cannot depend on
    a test item. Runs that failed, or were ended early, take no part.

    Returns:
        The winner, or None while the search goes on; and a sentence where no run could win.
    """
    states = [task.state for task in search.tasks]
    if search.left != 0 or any(state not in ("done", "failed") for state in states):
        return None, ""
    ended = [task for task, state in zip(search.tasks, states, strict=True) if state == "done"]
    if not ended:
        return None, f"all {len(states)} runs of its search failed"
    records = [(task, open_run(task.folder).record) for task in ended]
    values = {
        task.output: record.validation.value(search.study.choose_by) for task, record in records if not record.pruned
    }
    if any(map(math.isnan, values.values())):
        return None, "nothing tells the runs of its search apart: the split has no validation items"
    if not values:
        return None, f"all {len(ended)} runs of its search were ended early"
    best = max(values, key=values.__getitem__)
    return next(task for task in ended if task.output == best), ""


def _notebook_task(
    stage: Stage,
    labels: Mapping[str, str],
    notebook: str,
    parameters: Mapping[str, Any],
    reports: Path,
    **inputs: list[str],
) -> Task:
    address, parts = _address(notebook, parameters, **inputs)
    labels = {**labels, "notebook": notebook}
    return Task(stage, labels, notebook, parameters, reports / f"{notebook}.ipynb", address, parts)


def _run_task(
    stage: Stage, labels: Mapping[str, str], request: Request, runs: Path, data: str, journal: str = ""
) -> Task:
    notebook = "" if stage == "search" else "03_train"
    unused = ("warm_start", *(("searched", "control") if stage == "search" else ("varied",)))
    parameters = {key: value for key, value in request.to_parameters().items() if key not in unused}
    asked = _asked(parameters)
    address, parts = _address(notebook, asked, data=[data], code=_code(request))
    what = [labels["dataset"], labels["model"], labels["profile"], *re.findall(r"\w+", labels.get("features", ""))]
    what += labels.get("control", "").split()
    folder = runs / "-".join([*what, f"seed{labels['seed']}", fingerprint(asked)[:8]])
    if stage == "search":
        return Task(stage, labels, notebook, parameters, folder / "run.json", address, parts)
    # These say where things lie, and what the notebook shows beside the run: none of them makes another run.
    parameters |= {"search": {}, "journal": journal, "out": str(folder)}
    return Task(stage, labels, notebook, parameters, folder / "notebook.ipynb", address, parts)


def _code(request: Request) -> list[str]:
    """Fingerprints of the source that makes a run's numbers."""
    sets = [source_fingerprint(["imgrec_lib.features.sets"])] if request.feature_files else []
    return [run_fingerprint(request.model), *sets]


def _asked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What tells one run from another: the data's fingerprint stands for where the data lies, for moved data is the
    same data."""
    return {key: value for key, value in parameters.items() if key != "root" and (key != "feature_files" or value)}


def _address(notebook: str, parameters: Mapping[str, Any], **inputs: list[str]) -> tuple[str, dict[str, str]]:
    """The address of a notebook, and the parts that it is made of; of the inputs by the keys of `CHANGES`."""
    inputs["files"] = _contents(parameters)
    digits = [each for given in inputs.values() for each in given]
    known = {part: fingerprint(each) for part, each in inputs.items() if each != [UNREAD]}
    if not notebook:
        own = {"parameters": fingerprint(dict(parameters)), "version": version("imgrec")}
        return fingerprint(own, digits), own | known
    return notebook_address(notebook, parameters, *digits), notebook_parts(notebook, parameters) | known


def _contents(value: Any) -> list[str]:
    """Fingerprints of the files, and of the weights in folders, that parameters name, such as a backbone's."""
    if isinstance(value, Mapping):
        return [digits for key, each in value.items() if key not in ("root", "runs") for digits in _contents(each)]
    if not isinstance(value, str) or not value:
        return []
    files = [Path(value)] if Path(value).is_file() else sorted(Path(value).glob("*.safetensors"))
    return [fingerprint(file.read_bytes()) for file in files]


def _chosen_only(made: Plan, only: Mapping[str, Iterable[str]]) -> Plan:
    wanted = {key: set(values) for key, values in only.items()}
    everything = [
        *(dict(task.labels) | {"stage": task.stage} for task in made.runs),
        *(dict(each.labels) | {"stage": "search"} for each in made.searches),
        *(dict(each.labels) | {"stage": "trial"} for each in made.waiting),
    ]
    for key, values in wanted.items():
        known = {labels[key] for labels in everything if key in labels}
        if not known:
            raise unknown_name("label", key, sorted({key for labels in everything for key in labels}))
        for value in sorted(values - known):
            raise unknown_name(f"{key} of this matrix", value, known)

    def fits(labels: Mapping[str, str], stage: str) -> bool:
        # A search has one seed, whatever the trials' are: it is wanted wherever one of its trials is.
        asked = {key: value for key, value in wanted.items() if not (key == "seed" and stage != "trial")}
        return all(({**labels, "stage": stage}).get(key) in values for key, values in asked.items())

    searches = [each for each in made.searches if fits(each.labels, "search")]
    trials = [task for task in made.trials if fits(task.labels, "trial")]
    waiting = [each for each in made.waiting if fits(each.labels, "trial")]
    labelled: list[Searching | Task | Waiting] = [*searches, *trials, *waiting]
    datasets = {each.labels["dataset"] for each in labelled}
    if not datasets:
        raise InputError("no run of this matrix fits all of --only: leave one of its conditions out.")
    data = [task for task in made.data if task.labels["dataset"] in datasets]
    unread = [name for name in made.unread if name in datasets]
    return Plan(data, searches, trials, waiting, [], unread)
