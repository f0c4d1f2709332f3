"""Opening what runs left: which there are, the data and features they were made from, the trained model."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.devices import DeviceName
from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.features import Features
from imgrec_lib.features.controls import with_control
from imgrec_lib.features.preparation import learnt_from
from imgrec_lib.files import fingerprint
from imgrec_lib.models import build_model, list_models, model_card
from imgrec_lib.models.base import Recommender
from imgrec_lib.request import Moved, Request
from imgrec_lib.runs.record import PREPARATIONS, SKETCH, Run, open_run, weights_of
from imgrec_lib.runs.sketch import MOST_MOVED, moved, sketch
from imgrec_lib.training import read_checkpoint


def find_runs(folder: Path, stage: str | Collection[str] | None = "trial") -> list[Run]:
    """All finished runs below a folder, ordered by dataset, model in registry order, profile and seed.

    Args:
        folder: where they lie.
        stage: "trial", "search" for the configurations that searches tried, "lists" for lists from elsewhere, several
            of these, or None for all.

    Raises:
        InputError: the folder does not exist or holds no finished run.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import find_runs, load_dataset, train_run
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> run = train_run(dataset, "poprank", Path("runs/pop"), progress=False)
        >>> [found.name for found in find_runs(Path("runs"))]
        ['pop']
    """
    folder = Path(folder)
    found = [open_run(path.parent) for path in sorted(folder.glob("**/run.json"))]
    stages = {stage} if isinstance(stage, str) else stage
    runs = [run for run in found if stages is None or run.record.stage in stages]
    if not runs:
        kind = "run" if stage != "search" else "run of a search"
        raise InputError(f"{folder} holds no finished {kind}: train one first with 'imgrec train'.")
    return sorted(runs, key=_order)


def check_roots(root: Moved, runs: Iterable[Run]) -> None:
    """Refuse a place for a dataset that no run was made on.

    Args:
        root: see `Request.at`.
        runs: the runs.

    Raises:
        InputError: a name that is none of their datasets'.
    """
    known = dict.fromkeys(name for run in runs for name in run.request.data_names)
    for name in root if isinstance(root, Mapping) else ():
        if name and name not in known:
            raise unknown_name("dataset of these runs", name, known)


class Inputs:
    """What runs were made of, loaded as their records say, and once for all runs that were made of the same.

    Args:
        root: where the data lie now, if they were moved: see `Request.at`.
        progress: show progress bars.
    """

    def __init__(self, root: Moved = None, progress: bool = True) -> None:
        self.root, self.progress = root, progress
        self._datasets: dict[str, Dataset] = {}
        self._features: dict[str, Features] = {}

    def of(self, run: Run, *, pictures: bool = False) -> tuple[Dataset, Features | None]:
        """The dataset of a run, and the visual features of its catalogue, each item's own whatever the run's control.

        Args:
            run: a finished run.
            pictures: features of the pictures also where the run used none. Without it such a run gets None.

        Raises:
            InputError: the run was not made by the training notebook, or its data is no longer where it was.
        """
        if run.request.dataset is None:
            raise InputError(
                f"run {run.name} does not say how its dataset was loaded: load it yourself and use load_model."
            )
        # Where the run was trained says nothing of the machine that opens it.
        request = replace(run.request.at(self.root), control=None, device="cpu")
        if request.root is not None and not Path(request.root).expanduser().exists():
            raise InputError(
                f"the data of run {run.name} are not at {request.root}: say where they lie now with --root (in Python, "
                "root=)."
            )
        dataset = _once(self._datasets, request, _DATA, lambda: request.load_dataset(progress=self.progress))
        features = None
        if (pictures or run.record.features is not None) and request.has_features(dataset):
            learnt = _kept(run, PREPARATIONS)
            load = partial(request.load_features, dataset, progress=self.progress, learnt=learnt_from(learnt))
            digits = fingerprint({name: values.numpy() for name, values in learnt.items()})
            features = _once(self._features, request, (*_DATA, *_FEATURES), load, digits)
        dataset = dataset.undivided() if run.record.stage == "refit" else dataset
        return _as_trained_on(dataset, run), features


def _as_trained_on(dataset: Dataset, run: Run) -> Dataset:
    """The dataset as versions knew it that did not read groups, or counted all pictures, where the run is of one."""
    record = run.record.dataset
    alike = [dataset] if dataset.groups is None else [dataset, dataset.without_groups()]
    if dataset.images is not None and (not record.parts or "pictures" in record.parts):
        alike += [replace(each, pictures_count=True) for each in alike if not each.pictures_count]
    return next((each for each in alike if each.fingerprint == record.fingerprint), dataset)


_DATA = ("dataset", "root", "dataset_options")
_FEATURES = ("backbone", "weights", "feature_options", "feature_files")
"""What of a request says which dataset, and which features, are loaded."""


def _kept(run: Run, group: str) -> dict[str, Tensor]:
    """What a run's file of weights keeps of its features, see `PREPARATIONS` and `SKETCH`."""
    path = run.folder / "model.safetensors"
    return read_checkpoint(path, group=group).group(group) if path.is_file() else {}


def _once(
    loaded: dict[str, Any], request: Request, names: Sequence[str], load: Callable[[], Any], digits: str = ""
) -> Any:
    """What was loaded for the same values of a request, and the same digits, or is loaded now."""
    asked = request.to_json()
    key = json.dumps([digits, *(asked[name] for name in names)], sort_keys=True)
    if key not in loaded:
        loaded[key] = load()
    return loaded[key]


def load_inputs(run: Run, progress: bool = True, root: Moved = None) -> tuple[Dataset, Features | None]:
    """The dataset and the features of a run, loaded again as its record says.

    Args:
        run: a finished run.
        progress: show progress bars.
        root: where the data lie now, if they were moved: see `Request.at`.

    Returns:
        The dataset, and the features as the model was given them, under the run's control; None for a model without.

    Raises:
        InputError: see `Inputs.of`.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import Request, load_inputs, train_run
        >>> tiny = {"n_users": 40, "n_items": 50, "image_size": 32}
        >>> request = Request("poprank", dataset="wardrobe", dataset_options=tiny)
        >>> dataset, features = request.load(progress=False)
        >>> run = train_run(dataset, request, Path("runs/asked"), progress=False)
        >>> load_inputs(run, progress=False)[0].fingerprint == dataset.fingerprint
        True
    """
    check_roots(root, [run])
    dataset, features = Inputs(root, progress).of(run)
    return dataset, None if features is None else with_control(features, run.request.control)


def load_model(run: Run, dataset: Dataset, features: Features | None = None, device: DeviceName = "cpu") -> Recommender:
    """The trained model of a run, in evaluation mode.

    Args:
        run: a finished run.
        dataset: the dataset that it was trained on.
        features: the features that it was trained with, where it used any.
        device: where to put it.

    Raises:
        InputError: the dataset is another one, or the features are missing.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import load_dataset, load_model, train_run
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> run = train_run(dataset, "poprank", Path("runs/pop"), progress=False)
        >>> load_model(run, dataset).training
        False
    """
    record = run.record
    trained_on = record.dataset
    dataset = _as_trained_on(dataset, run)
    sees = record.features is not None or "images" in model_card(record.model).uses
    if dataset.fingerprint != trained_on.fingerprint or (sees and not trained_on.has_pictures_of(dataset)):
        raise InputError(
            f"run {run.name} was trained on {trained_on.name!r} with other data than {dataset.name!r} has now: "
            f"{trained_on.changes(dataset)}. Load the data as they were then, or train again."
        )
    used = None if record.features is None else features
    if changes := changed_features(run, used):
        raise InputError(f"run {run.name} needs the features it was trained with: {changes}.")
    data = dataset.training_data(used)
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


def changed_features(run: Run, features: Features | None) -> str:
    """In what features differ from those that a run was trained with, for a sentence; empty: in rounding at most.

    What counts are the vectors. A run of a version that kept no sketch of them goes by how they are described.
    """
    then, now = run.record.features or {}, {} if features is None else features.identity
    differing = [
        f"{name} {then.get(name)!r}, not {now.get(name)!r}"
        for name in {**then, **now}
        if name != "precision" and then.get(name) != now.get(name)
    ]
    kept = _kept(run, SKETCH).get("features")
    if features is not None and kept is not None:
        others = moved(kept.numpy(), sketch(features.values))
        rounded = "bfloat16" in (then.get("precision"), now.get("precision"))
        if others.mean() <= (MOST_MOVED if rounded else 0):
            return ""
        differing.append(f"{others.sum():,} of {len(others):,} items have other vectors")
    return ", ".join(differing)


def _order(run: Run) -> tuple[Any, ...]:
    names = list(list_models())
    model = run.record.model
    place = names.index(model) if model in names else len(names)
    return run.record.dataset.name, place, run.record.profile, run.record.seed, run.name
