"""The run record: one folder a run, complete if and only if it holds `run.json`.

<run>/run.json                 parameters, versions, fingerprints, metrics, timings; written last, by rename
<run>/curve.csv                the learning curve, one row an epoch
<run>/per_user.parquet         what evaluation counted for each user
<run>/model.safetensors        the weights of the best validation
<run>/training.safetensors     only while training: where to go on after a crash
<run>/progress.json            only while training: the last epoch, for who watches
<run>/notebook.ipynb           the executed notebook, where a notebook made the run

A run is a trial or, in a grid, one configuration of a search (`stage` in `run.json`). A grid's run is validated and
never tested: it has no metrics, no per_user.parquet and no weights.
"""

from __future__ import annotations

import inspect
import json
import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from imgrec_lib.data import load_dataset
from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, one_line, unknown_name
from imgrec_lib.evaluation import PROTOCOLS, ValidationAUC, evaluate
from imgrec_lib.features import Features, extract_features
from imgrec_lib.features.controls import with_control
from imgrec_lib.files import fingerprint, make_folder, remove_abandoned, replacing, write_json
from imgrec_lib.models import build_model, list_models, model_card, resolve_profile
from imgrec_lib.models.base import InnerProduct, Recommender
from imgrec_lib.source import run_fingerprint
from imgrec_lib.training import distributed, fit, read_checkpoint, write_checkpoint

FORMAT = 1
STAGES = ("trial", "grid")
FILES = (
    "run.json",
    "curve.csv",
    "per_user.parquet",
    "model.safetensors",
    "training.safetensors",
    "progress.json",
    "notebook.ipynb",
)
Metrics = dict[str, dict[str, float | int | None]]

REQUESTED_ELSEWHERE = {"images", "backbone", "weights", "device", "progress"}
"""Arguments of `extract_features` that are no feature options."""

FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("identity", "model", "profile", "title", "family", "fidelity", "device", "finished"), (str,)),
    **dict.fromkeys(("dataset/name", "dataset/fingerprint"), (str,)),
    **dict.fromkeys(("seed", "dataset/users", "dataset/items", "dataset/training_interactions"), (int,)),
    **dict.fromkeys(("parameters", "requested", "cost", *(f"metrics/{name}" for name in PROTOCOLS)), (dict,)),
    **dict.fromkeys(("features", "oracle", "dataset/split"), (dict, type(None))),
    "phases": (list,),
    "validation/auc": (float, int),
    "validation/epoch": (int,),
}
"""What every record has, and of which type; a field inside another is written outer/inner."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        record: the content of `run.json`.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> Metrics:
        """Protocol -> metric -> value, on the test items; empty for a grid's run."""
        return self.record["metrics"]

    @cached_property
    def curve(self) -> pd.DataFrame:
        """The learning curve; columns as in `FitResult.curve`."""
        return self._table("curve.csv", pd.read_csv, ["phase", "epoch", "validation_auc"])

    @cached_property
    def per_user(self) -> pd.DataFrame:
        """What evaluation counted for each user; columns as in `Evaluation.per_user`."""
        return self._table("per_user.parquet", pd.read_parquet, ["user", "item", "history_length", "item_popularity"])

    def _table(self, name: str, read: Callable[[Path], pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
        path = self.folder / name
        try:
            table = read(path)
            missing = [column for column in columns if column not in table]
        # The engines of pandas raise many kinds of exception on damaged files.
        except Exception as error:
            raise InputError(
                f"{path} is missing or damaged ({one_line(error)}): delete the run's folder and train it again."
            ) from None
        if missing:
            raise InputError(f"{path} has no column {missing[0]!r}: delete the run's folder and train it again.")
        return table


def train_run(
    dataset: Dataset,
    model: str,
    out: Path,
    *,
    features: Features | None = None,
    profile: str = "default",
    seed: int = 0,
    parameters: Mapping[str, Any] | None = None,
    device: str = "cpu",
    requested: Mapping[str, Any] | None = None,
    stage: str = "trial",
    save_every: float = 30.0,
    progress: bool = True,
) -> Run:
    """Build, train and evaluate one model, and leave the record of it in `out`.

    A run that is complete is opened and not repeated; one that was stopped goes on from its last saved epoch and ends
    as if it had never stopped. In a process group (see `training.distributed`) every process calls this with the same
    arguments and its own device; the first one tests and writes the record.

    Args:
        dataset: what to train and test on.
        model: one of `list_models()`.
        out: the run's folder.
        features: visual features, for models that need them.
        profile, parameters: see `resolve_profile`.
        seed: seeds initial weights, batches and the sampled negatives of the test.
        device: "cpu", "cuda", ...
        requested: what the caller asked for, kept in the record as it is.
        stage: "trial", or "grid" for a configuration of a search: it is validated, and never tested.
        save_every: seconds between saves of the training state.
        progress: show progress bars.

    Returns:
        The finished run.

    Raises:
        InputError: bad names or values, data that lacks what the model needs, or a folder that holds another run or one
            that other code of this library made.
    """
    resolved = resolve_profile(model, profile, **(parameters or {}))
    card = model_card(model)
    uses_features = features is not None and "features" in card.uses
    what = {
        "model": model,
        "profile": profile,
        "parameters": dict(resolved.parameters),
        "phases": [asdict(phase) for phase in resolved.phases],
        "seed": seed,
        "dataset": dataset.fingerprint,
        "features": features.fingerprint if features is not None and uses_features else None,
    }
    if stage not in STAGES:
        raise unknown_name("stage", stage, STAGES)
    source = run_fingerprint(model)
    identity = fingerprint(what if stage == "trial" else what | {"stage": stage})
    if (out / "run.json").exists():
        remove_abandoned(out)  # it was perhaps killed just after its last file took its name
        run = open_run(out)
        if run.record["identity"] != identity:
            raise InputError(
                f"{out} holds another run ({run.record['title']}, seed {run.record['seed']}): choose another folder."
            )
        if run.record.get("source", source) != source:
            raise InputError(
                f"the run in {out} was made by other code of imgrec, which has changed since: delete the folder, or "
                "choose another."
            )
        return run
    distributed.barrier()  # all have looked for the record before the first one can write it
    data = dataset.training_data(features.values if features is not None and uses_features else None)
    recommender = build_model(model, data, profile=profile, seed=seed, **(parameters or {}))
    make_folder(out)
    began = time.perf_counter()
    result = fit(
        recommender,
        data,
        ValidationAUC(dataset, device=device),
        seed=seed,
        device=device,
        checkpoint=out / "training.safetensors",
        identity=f"{identity} by {source}",
        save_every=save_every,
        progress=progress,
        observe=_ProgressFile(out / "progress.json"),
    )
    trained = time.perf_counter()
    if distributed.rank() > 0:
        distributed.barrier()
        return open_run(out)
    with replacing(out / "curve.csv") as temporary:
        result.curve.to_csv(temporary, index=False)
    metrics: Metrics = {}
    if stage == "trial":
        evaluation = evaluate(recommender, dataset, protocols=tuple(PROTOCOLS), seed=seed, device=device)
        metrics = evaluation.metrics
        with replacing(out / "per_user.parquet") as temporary:
            evaluation.per_user.to_parquet(temporary, index=False)
        weights = {"model": recommender.state_dict()}
        write_checkpoint(out / "model.safetensors", weights, {}, _weights_of(dataset, model))
    evaluated = time.perf_counter()
    seconds = result.curve["seconds"]
    record = what | {
        "format": FORMAT,
        "identity": identity,
        "source": source,
        "title": card.title,
        "family": card.family,
        "fidelity": card.fidelity,
        "dataset": dataset_record(dataset),
        "features": None if features is None or not uses_features else dict(features.description),
        "stage": stage,
        "requested": dict(requested or {}),
        "metrics": metrics,
        "oracle": oracle_metrics(dataset, seed) if stage == "trial" else None,
        "validation": {"auc": result.best_auc, "phase": result.best_phase, "epoch": result.best_epoch},
        "cost": {
            "epochs": int((result.curve["epoch"] > 0).sum()),
            "seconds_training": float(seconds.sum()),
            "seconds_per_epoch": _finite(float(seconds[result.curve["epoch"] > 0].mean())),
            "seconds_fit": trained - began,
            "seconds_evaluation": evaluated - trained,
            "interactions_per_second": result.interactions_per_second,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
            "parameters": sum(p.numel() for p in recommender.parameters()),
        },
        "device": _device_name(device),
        "processes": distributed.world_size(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("imgrec", "torch", "torchvision", "numpy", "pandas", "pillow")},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (out / "progress.json").unlink(missing_ok=True)  # before the record, with which the run is complete
    write_json(out / "run.json", record)
    distributed.barrier()
    return Run(out, json.loads(json.dumps(record)))


class _ProgressFile:
    """Keeps the last epoch of a training in a file, written at most once a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = -math.inf

    def __call__(self, epoch: Mapping[str, Any]) -> None:
        if time.monotonic() - self.written >= 1:
            write_json(self.path, dict(epoch))
            self.written = time.monotonic()


def discard_run(folder: Path) -> None:
    """Delete a run's files, finished or not, so that it can be made anew; other files in the folder stay."""
    for name in FILES:
        (Path(folder) / name).unlink(missing_ok=True)


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """What a run keeps of its dataset: name, fingerprint, sizes and split."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "users": dataset.n_users,
        "items": dataset.n_items,
        "training_interactions": len(dataset.train),
        "split": dataset.split,
    }


def oracle_metrics(dataset: Dataset, seed: int) -> dict[str, dict[str, float | int | None]] | None:
    """The metrics of the true preferences, the ceiling of any model; None where they are unknown."""
    if dataset.oracle is None:
        return None
    oracle = InnerProduct(torch.as_tensor(dataset.oracle.users), torch.as_tensor(dataset.oracle.items))
    return evaluate(oracle, dataset, protocols=tuple(PROTOCOLS), seed=seed).metrics


def open_run(folder: Path) -> Run:
    """Open a finished run.

    Raises:
        InputError: no such run, an unfinished one, or a damaged record.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no finished run (no run.json): run the training again, it goes on where it stopped."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise InputError(f"{path} has format {record['format']}, not {FORMAT}: run it again with this version.")
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run the training again.") from error
    tested = record.get("stage", "trial") == "trial"
    for name, kinds in FIELDS.items():
        if name.startswith("metrics/") and not tested:
            continue
        value = record
        for key in name.split("/"):
            value = value.get(key) if isinstance(value, dict) else None
        if type(value) not in kinds:
            raise InputError(
                f"{path} is damaged (its field {name!r} is missing or of another type): delete it and run the "
                "training again."
            )
    return Run(folder, record)


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
    runs = [run for run in found if stage in (None, run.record.get("stage", "trial"))]
    if not runs:
        kind = "run" if stage != "grid" else "run of a grid"
        raise InputError(f"{folder} holds no finished {kind}: train one first with 'imgrec train'.")
    return sorted(runs, key=_order)


def load_inputs(run: Run, progress: bool = True) -> tuple[Dataset, Features | None]:
    """The dataset and the features of a run, loaded again as its record says.

    Raises:
        InputError: the run was not made by the training notebook, or its data is no longer where it was.
    """
    asked = run.record["requested"]
    if not {"dataset", "root", "dataset_options", "backbone", "weights", "feature_options"} <= asked.keys():
        raise InputError(
            f"run {run.name} does not say how its dataset was loaded: load it yourself and use load_model."
        )
    return requested_inputs(asked, with_features=run.record["features"] is not None, progress=progress)


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
    trained_on = record["dataset"]
    if dataset.fingerprint != trained_on["fingerprint"]:
        raise InputError(
            f"run {run.name} was trained on {trained_on['name']!r} ({trained_on['fingerprint']}), not on "
            f"{dataset.name!r} ({dataset.fingerprint}): load the dataset with the options in its run.json."
        )
    uses_features = record["features"] is not None
    if uses_features and (features is None or features.description != record["features"]):
        raise InputError(f"run {run.name} needs the features it was trained with: {record['features']}.")
    data = dataset.training_data(features.values if features is not None and uses_features else None)
    overrides = dict(record["parameters"])
    model = build_model(record["model"], data, profile=record["profile"], seed=record["seed"], **overrides)
    path = run.folder / "model.safetensors"
    checkpoint = read_checkpoint(path, _weights_of(dataset, record["model"]), device)
    try:
        model.load_state_dict(checkpoint.group("model"))
    except RuntimeError as error:
        raise InputError(
            f"{path} does not fit its run.json ({one_line(error)}): delete the run and train it again."
        ) from None
    return model.to(device).eval()


def _weights_of(dataset: Dataset, model: str) -> str:
    return f"{model} on {dataset.name} {dataset.fingerprint}"


def _order(run: Run) -> tuple[Any, ...]:
    names = list(list_models())
    model = run.record["model"]
    place = names.index(model) if model in names else len(names)
    return run.record["dataset"]["name"], place, run.record["profile"], run.record["seed"], run.name


def _device_name(device: str) -> str:
    kind = torch.device(device)
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else f"cpu ({platform.machine()})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
