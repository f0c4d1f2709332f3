"""Opening what runs left: which there are, the data and features they were made from, the trained model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgrec_lib.data import load_dataset
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.features import Features, extract_features
from imgrec_lib.features.controls import with_control
from imgrec_lib.models import build_model, list_models
from imgrec_lib.models.base import Recommender
from imgrec_lib.runs.record import Run, open_run, weights_of
from imgrec_lib.training import read_checkpoint

REQUESTED_ELSEWHERE = {"images", "backbone", "weights", "device", "progress"}
"""Arguments of `extract_features` that are no feature options."""


def find_runs(folder: Path, stage: str | None = "trial") -> list[Run]:
    """All finished runs below a folder, ordered by dataset, model in registry order, profile and seed.

    Args:
        folder: where they lie.
        stage: "trial", "grid" for the configurations that searches tried, or None for both.

    Raises:
        InputError: the folder does not exist or holds no finished run.
    """
    folder = Path(folder)
    found = [open_run(path.parent) for path in sorted(folder.glob("**/run.json"))]
    runs = [run for run in found if stage in (None, run.record.stage)]
    if not runs:
        kind = "run" if stage != "grid" else "run of a grid"
        raise InputError(f"{folder} holds no finished {kind}: train one first with 'imgrec train'.")
    return sorted(runs, key=_order)


def load_inputs(run: Run, progress: bool = True) -> tuple[Dataset, Features | None]:
    """The dataset and the features of a run, loaded again as its record says.

    Raises:
        InputError: the run was not made by the training notebook, or its data is no longer where it was.
    """
    asked = run.record.requested
    if not {"dataset", "root", "dataset_options", "backbone", "weights", "feature_options"} <= asked.keys():
        raise InputError(
            f"run {run.name} does not say how its dataset was loaded: load it yourself and use load_model."
        )
    return requested_inputs(asked, with_features=run.record.features is not None, progress=progress)


def requested_inputs(
    requested: Mapping[str, Any], *, with_features: bool, device: str = "cpu", progress: bool = True
) -> tuple[Dataset, Features | None]:
    """Load a dataset and, where it has pictures, their features.

    Args:
        requested: parameters of the training notebook: `dataset`, `root`, `dataset_options`, `backbone`, `weights`,
            `feature_options` and `control`.
        with_features: whether features are wanted.
        device: where they are computed.
        progress: show progress bars.
    """
    dataset = load_dataset(requested["dataset"], requested["root"] or None, **requested["dataset_options"])
    if not with_features or dataset.images is None:
        return dataset, None
    known = inspect.signature(extract_features).parameters
    for name in requested["feature_options"]:
        if name not in known or name in REQUESTED_ELSEWHERE:
            raise unknown_name("feature option", name, known.keys() - REQUESTED_ELSEWHERE)
    options = {"backbone": requested["backbone"], "weights": requested["weights"], **requested["feature_options"]}
    features = extract_features(dataset.images, device=device, progress=progress, **options)
    return dataset, with_control(features, requested.get("control", ""))


def load_model(run: Run, dataset: Dataset, features: Features | None = None, device: str = "cpu") -> Recommender:
    """The trained model of a run, in evaluation mode.

    Args:
        run: a finished run.
        dataset: the dataset that it was trained on.
        features: the features that it was trained with, where it used any.
        device: where to put it.

    Raises:
        InputError: the dataset is another one, or the features are missing.
    """
    record = run.record
    trained_on = record.dataset
    if dataset.fingerprint != trained_on.fingerprint:
        raise InputError(
            f"run {run.name} was trained on {trained_on.name!r} ({trained_on.fingerprint}), not on "
            f"{dataset.name!r} ({dataset.fingerprint}): load the dataset with the options in its run.json."
        )
    uses_features = record.features is not None
    if uses_features and (features is None or features.description != record.features):
        raise InputError(f"run {run.name} needs the features it was trained with: {record.features}.")
    data = dataset.training_data(features.values if features is not None and uses_features else None)
    overrides = dict(record.parameters)
    model = build_model(record.model, data, profile=record.profile, seed=record.seed, **overrides)
    path = run.folder / "model.safetensors"
    checkpoint = read_checkpoint(path, weights_of(dataset, record.model), device)
    try:
        model.load_state_dict(checkpoint.group("model"))
    except RuntimeError as error:
        raise InputError(
            f"{path} does not fit its run.json ({one_line(error)}): delete the run and train it again."
        ) from None
    return model.to(device).eval()


def _order(run: Run) -> tuple[Any, ...]:
    names = list(list_models())
    model = run.record.model
    place = names.index(model) if model in names else len(names)
    return run.record.dataset.name, place, run.record.profile, run.record.seed, run.name
