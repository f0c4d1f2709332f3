"""A matrix of runs: models x seeds on one dataset, each an executed notebook, and the notebooks that compare them.

What is done is not done again: a run's folder carries the address of its notebook (code, parameters, library version).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from imgrec_lib.data import list_datasets
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.models import list_models, resolve_profile
from imgrec_lib.notebooks import check_values, executed_address, notebook_address, run_notebook

DEEPEST = 20
"""Levels of lists and mappings that a matrix may have."""


@dataclass(frozen=True)
class Matrix:
    """What to run.

    Attributes:
        dataset, root, dataset_options: see `load_dataset`.
        models: names of models, or "name:profile"; "all" for every model in its default profile.
        seeds: one run of each model for each.
        controls: names of visual models that run once more with shuffled pictures: each item gets another item's.
        parameters: hyper-parameters by model, e.g. {"bpr-mf": {"factors": 32}}.
        backbone, weights, feature_options: see `extract_features`.
        device: "cpu", "cuda", ...
        compare: notebooks that read all the runs, executed at the end.
    """

    dataset: str = "wardrobe"
    root: str = ""
    dataset_options: dict[str, Any] = field(default_factory=dict)
    models: list[str] = field(default_factory=lambda: ["all"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    controls: list[str] = field(default_factory=list)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    backbone: str = "efficientnet-lite0"
    weights: str = "default"
    feature_options: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    compare: list[str] = field(default_factory=lambda: ["04_compare", "05_neighbours"])


@dataclass(frozen=True)
class Task:
    """One notebook to execute: it is done when the notebook at `output` carries `address`."""

    notebook: str
    parameters: dict[str, Any]
    output: Path
    address: str

    @property
    def done(self) -> bool:
        return executed_address(self.output) == self.address


def read_matrix(path: Path) -> Matrix:
    """Read a matrix from a YAML file whose keys are the attributes of `Matrix`.

    Raises:
        InputError: missing or malformed file, unknown key, model, profile or parameter, or a value of the wrong type.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        _require_plain(path, text)
        content = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"there is no matrix file {path} ({error.strerror}): check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must map names to values, such as 'dataset: wardrobe'.")
    types = {f.name: str(f.type).split("[")[0] for f in fields(Matrix)}
    check_values(f"matrix {path}", types, content)
    matrix = Matrix(**content)
    if matrix.dataset not in list_datasets():
        raise unknown_name("dataset", matrix.dataset, list_datasets())
    for model, profile in _models([*matrix.models, *matrix.controls]):
        resolve_profile(model, profile, **matrix.parameters.get(model, {}))
    for model in matrix.parameters:
        if model not in list_models():
            raise unknown_name("model", model, list_models())
    if not all(isinstance(seed, int) for seed in matrix.seeds):
        raise InputError(f"{path}: seeds must be whole numbers, not {matrix.seeds}.")
    return matrix


def _require_plain(path: Path, text: str) -> None:
    """Refuse what makes a small file cost as much as its writer likes: aliases of aliases, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path} uses a YAML alias (*name), which a matrix may not: write the value out.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(f"{path} is nested more than {DEEPEST} levels deep: a matrix is not.")


def plan(matrix: Matrix, runs: Path, reports: Path) -> tuple[list[Task], list[Task], list[Task]]:
    """The notebooks of a matrix: those that prepare the data, the runs, and those that compare the runs.

    Args:
        matrix: what to run.
        runs: folder of the run folders.
        reports: folder of the other executed notebooks.
    """
    data = {"dataset": matrix.dataset, "root": matrix.root, "dataset_options": matrix.dataset_options}
    features = {"backbone": matrix.backbone, "weights": matrix.weights, "feature_options": matrix.feature_options}
    device = {"device": matrix.device}
    prepare = [
        _task("01_data", data, reports / "01_data.ipynb"),
        _task("02_features", data | features | device, reports / "02_features.ipynb"),
    ]
    training = []
    wanted = [(model, profile, "") for model, profile in _models(matrix.models)]
    wanted += [(model, profile, "shuffled pictures") for model, profile in _models(matrix.controls)]
    for model, profile, control in wanted:
        for seed in matrix.seeds:
            parameters = data | features | device | {"model": model, "profile": profile, "seed": seed}
            parameters |= {"control": control, "parameters": dict(matrix.parameters.get(model, {}))}
            address = notebook_address("03_train", parameters)
            name = "-".join([matrix.dataset, model, profile, *control.split(), f"seed{seed}", address[:8]])
            folder = (runs / name).resolve()
            training.append(Task("03_train", parameters | {"out": str(folder)}, folder / "notebook.ipynb", address))
    addresses = [task.address for task in training]
    compare = []
    for name in matrix.compare:
        parameters = {"runs": str(runs.resolve()), "only": [task.output.parent.name for task in training]}
        compare.append(_task(name, parameters, reports / f"{name}.ipynb", *addresses))
    return prepare, training, compare


def run_matrix(
    matrix: Matrix, runs: Path, reports: Path, *, workers: int | None = None, progress: bool = True
) -> list[str]:
    """Execute what of a matrix is not done yet.

    One process a run, never threads (papermill's working directory belongs to the process); each worker gets
    cores / workers threads. A run that fails stops nothing else.

    Args:
        matrix, runs, reports: see `plan`.
        workers: processes at a time; by default one for each core.
        progress: show a progress bar.

    Returns:
        One sentence for each notebook that failed; empty when all went well.
    """
    prepare, training, compare = plan(matrix, runs, reports)
    todo = [task for group in (prepare, training, compare) for task in group if not task.done]
    workers = workers or os.cpu_count() or 1
    threads = max(1, (os.cpu_count() or 1) // workers)
    failures: list[str] = []
    bar = tqdm(total=len(todo), desc="notebooks", unit="notebook", disable=not progress)
    for group, at_once in ((prepare, 1), (training, workers), (compare, 1)):
        waiting = [task for task in group if not task.done]
        # The preparation has the machine to itself: it may use every core.
        environment = threads if at_once > 1 else os.cpu_count() or 1
        with ProcessPoolExecutor(at_once, get_context("spawn"), _set_threads, (environment,)) as pool:
            futures: dict[Future[None], Task] = {pool.submit(_execute, task): task for task in waiting}
            for future in as_completed(futures):
                task = futures[future]
                error = future.exception()
                if error is not None:
                    failures.append(f"{task.output.parent.name if task in training else task.notebook}: {error}")
                bar.set_postfix_str(task.output.parent.name if task in training else task.notebook)
                bar.update()
        if failures and group is prepare:
            break  # nothing can be trained without its data
    bar.close()
    return failures


def _models(names: list[str]) -> list[tuple[str, str]]:
    """Model and profile of each name "model" or "model:profile"; "all" stands for every model."""
    pairs = []
    for name in [each for n in names for each in (list_models() if n == "all" else [n])]:
        model, _, profile = name.partition(":")
        pairs.append((model, profile or "default"))
    return pairs


def _task(notebook: str, parameters: Mapping[str, Any], output: Path, *inputs: str) -> Task:
    return Task(notebook, dict(parameters), output.resolve(), notebook_address(notebook, parameters, *inputs))


def _set_threads(threads: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def _execute(task: Task) -> None:
    run_notebook(task.notebook, task.parameters, task.output, address=task.address, progress=False)
