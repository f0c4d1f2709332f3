"""Making a run: build, train and evaluate one model, and leave the record of it."""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch

from imgrec_lib.data.dataset import Dataset, check_features
from imgrec_lib.devices import DeviceName
from imgrec_lib.errors import InputError, tell, unknown_name
from imgrec_lib.evaluation import IMPERSONAL, ValidationMetrics, evaluate, personal_share
from imgrec_lib.files import fingerprint, make_folder, plain_path, remove_abandoned, replacing, write_json
from imgrec_lib.models import build_model, model_card
from imgrec_lib.models.base import InnerProduct, TrainSettings
from imgrec_lib.options import CountOrNone, NotNegative
from imgrec_lib.request import Request
from imgrec_lib.runs.record import (
    LATER_SETTINGS,
    PREPARATIONS,
    SKETCH,
    Cost,
    DatasetRecord,
    Metrics,
    Record,
    Run,
    Validation,
    open_run,
    weights_of,
)
from imgrec_lib.runs.sketch import sketch
from imgrec_lib.runs.warm import STATE, continue_from, may_continue, moments_from, start_from, write_ids
from imgrec_lib.source import run_fingerprint
from imgrec_lib.training import distributed, fit, write_checkpoint

if TYPE_CHECKING:
    from imgrec_lib.features import Features  # what extracts them makes no number of a model without

TRAINED = ("trial", "search", "refit")
"""The stages of runs that train a model."""

UNKNOWN_AT_FIRST = {"restore": "best", "choose_by": "auc"} | LATER_SETTINGS
"""Settings that the first runs did not know, and what was done then."""


def train_run(
    dataset: Dataset,
    model: str | Request,
    out: str | Path,
    *,
    features: Annotated[Features | None, check_features] = None,
    profile: str = "default",
    seed: CountOrNone = 0,
    parameters: Mapping[str, Any] | None = None,
    device: DeviceName = "cpu",
    stage: str = "trial",
    save_every: NotNegative = 30.0,
    progress: bool = True,
    observe: Callable[[dict[str, Any]], bool | None] | None = None,
) -> Run:
    """Build, train and evaluate one model, and leave the record of it in `out`.

    A run that is complete is opened and not repeated; one that was stopped goes on from its last saved epoch and ends
    as if it had never stopped. In a process group (see `training.distributed`) every process calls this with the same
    arguments and its own device; the first one tests and writes the record.

    Args:
        dataset: what to train and test on.
        model: what is asked for: a request, which the record keeps and from which the run's data can be loaded
            again; or a model's name, with the four arguments that are marked below.
        out: the run's folder.
        features: visual features, for models that need them; of any model's recommendations they tell how alike they
            look.
        profile, seed, parameters, device: see `Request`; not beside one.
        stage: "trial"; "search" for a configuration of a search: it is validated, and never tested; or "refit" for a
            model that is trained for use: see `runs.refit`.
        save_every: seconds between saves of the training state.
        progress: show progress bars.
        observe: see `fit`.

    Returns:
        The finished run.

    Raises:
        InputError: bad names or values, data that lacks what the model needs, or a folder that holds another run or one
            that other code of this library made.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import load_dataset, train_run
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> run = train_run(dataset, "poprank", Path("runs/pop"), progress=False)
        >>> run.metrics["exact"]["users"]
        40
        >>> sorted(path.name for path in run.folder.iterdir())
        ['curve.csv', 'model.safetensors', 'per_user.parquet', 'run.json']
    """
    out, request = plain_path(out), model
    if not isinstance(request, Request):
        request = Request(str(model), profile, dict(parameters or {}), seed, device)
    resolved, card = request.resolved, model_card(request.model)
    used = features if "features" in card.uses else None
    what = {
        "model": request.model,
        "profile": request.profile,
        "parameters": dict(resolved.parameters),
        "phases": [_without(UNKNOWN_AT_FIRST, phase) for phase in resolved.phases],
        "seed": request.seed,
        "dataset": dataset.fingerprint,
        "features": None if used is None else used.fingerprint,
    }
    if "images" in card.uses and dataset.images is not None and not dataset.pictures_count:
        what |= {"pictures": dataset.images.fingerprint}
    if stage not in TRAINED:
        raise unknown_name("stage", stage, TRAINED)
    source = run_fingerprint(request.model)
    started = None if request.warm_start is None else open_run(Path(request.warm_start))
    if started is not None:
        if started.record.model != request.model:
            raise InputError(
                f"run {started.name} is of {started.record.title}, whose weights are of no use to {card.title}: name a "
                "run of the same model."
            )
        what |= {"started_from": started.record.identity}
    identity = fingerprint(what if stage == "trial" else what | {"stage": stage})
    if (out / "run.json").exists():
        remove_abandoned(out)  # it was perhaps killed just after its last file took its name
        run = open_run(out)
        if run.record.identity != identity:
            raise InputError(
                f"{out} holds another run ({run.record.title}, seed {run.record.seed}): choose another folder."
            )
        if run.record.source not in (None, source):
            raise InputError(
                f"the run in {out} was made by other code of imgrec, which has changed since: delete the folder, or "
                "choose another."
            )
        return run
    distributed.barrier()  # all have looked for the record before the first one can write it
    data = dataset.training_data(used)
    began = time.perf_counter()
    recommender = build_model(request.model, data, profile=request.profile, seed=request.seed, **request.overrides)
    started_from = None if started is None else start_from(recommender, started, dataset)
    make_folder(out)
    checkpoint, training = out / "training.safetensors", f"{identity} by {source}"
    moments = None
    if started is not None:
        if not (started.folder / STATE).exists():
            tell(f"run {started.name} kept no state of its training: its weights go on with a fresh optimiser.")
        elif may_continue(started, request, dataset, used):
            continue_from(recommender, started, checkpoint, training)
            distributed.barrier()
        else:
            moments = moments_from(recommender, started, dataset)
    validate = ValidationMetrics(dataset, device=request.device) if len(dataset.validation) else None
    result = fit(
        recommender,
        data,
        validate,
        seed=request.seed,
        device=request.device,
        checkpoint=checkpoint,
        keep=None if stage == "search" else out / STATE,
        moments=moments,
        identity=training,
        save_every=save_every,
        progress=progress,
        observe=_Observers(_ProgressFile(out / "progress.json"), observe),
    )
    trained = time.perf_counter()
    if distributed.rank() > 0:
        distributed.barrier()
        return open_run(out)
    with replacing(out / "curve.csv") as temporary:
        result.curve.to_csv(temporary, index=False)
    metrics: Metrics = {}
    personal = None
    if stage == "trial" and resolved.phases:
        personal = personal_share(recommender.scorer(), dataset.n_users, request.device)
        if personal < IMPERSONAL:
            tell(
                f"{card.title} ({request.profile} profile) has learnt a ranking that is the same for everybody: weaker "
                "penalties (its parameters l2...) leave something of the users."
            )
    if stage == "trial":
        # Another item's features, which a control gives the model, say nothing of how the lists look.
        looks = None if features is None or features.description.get("control") else features.of_pictures
        evaluation = evaluate(recommender, dataset, seed=request.seed, device=request.device, features=looks)
        metrics = evaluation.metrics
        with replacing(out / "per_user.parquet") as temporary:
            evaluation.per_user.to_parquet(temporary, index=False)
    if stage != "search":
        weights = {"model": recommender.state_dict()}
        if used is not None:
            weights |= {PREPARATIONS: used.learnt, SKETCH: {"features": torch.from_numpy(sketch(used.values))}}
        write_checkpoint(out / "model.safetensors", weights, {}, weights_of(dataset, request.model))
        if resolved.phases:
            write_ids(dataset, out)
    evaluated = time.perf_counter()
    seconds = result.curve["seconds"]
    record = Record(
        model=request.model,
        profile=request.profile,
        parameters=dict(resolved.parameters),
        phases=[_without(LATER_SETTINGS, phase) for phase in resolved.phases],
        seed=request.seed,
        dataset=DatasetRecord.of(dataset),
        features=None if used is None else used.identity,
        identity=identity,
        source=source,
        title=card.title,
        family=card.family,
        fidelity=card.fidelity,
        stage=stage,
        requested=request.to_json(),
        metrics=metrics,
        oracle=oracle_metrics(dataset, request.seed) if stage == "trial" else None,
        validation=Validation(
            result.best_auc,
            result.best_phase,
            result.best_epoch,
            result.choose_by,
            result.validation,
            0 if validate is None else len(np.unique(validate.ranked(recommender).users)),
        ),
        cost=Cost(
            epochs=int((result.curve["epoch"] > 0).sum()),
            seconds_training=float(seconds.sum()),
            seconds_per_epoch=_finite(float(seconds[result.curve["epoch"] > 0].mean())),
            seconds_fit=trained - began,
            seconds_evaluation=evaluated - trained,
            interactions_per_second=result.interactions_per_second,
            peak_memory_bytes=_peak_memory(),
            parameters=sum(p.numel() for p in recommender.parameters()),
        ),
        personal=personal,
        pruned=result.stopped,
        started_from=started_from,
        device=_device_name(request.device),
        processes=distributed.world_size(),
        threads=torch.get_num_threads(),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("imgrec", "torch", "torchvision", "numpy", "pandas", "pillow")},
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    (out / "progress.json").unlink(missing_ok=True)  # before the record, with which the run is complete
    write_json(out / "run.json", record.to_json())
    distributed.barrier()
    return open_run(out)


def _without(values: Mapping[str, Any], settings: TrainSettings) -> dict[str, Any]:
    """The settings but for those that have one of these values."""
    return {name: value for name, value in asdict(settings).items() if values.get(name, ...) != value}


@dataclass(frozen=True)
class _Observers:
    """Calls what keeps the progress, then the caller's own, which may end the training."""

    progress: _ProgressFile
    own: Callable[[dict[str, Any]], bool | None] | None

    def __call__(self, epoch: dict[str, Any]) -> bool:
        self.progress(epoch)
        return self.own is not None and bool(self.own(epoch))


class _ProgressFile:
    """Keeps the last epoch of a training in a file, written at most once a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = -math.inf

    def __call__(self, epoch: Mapping[str, Any]) -> None:
        if time.monotonic() - self.written >= 1:
            write_json(self.path, dict(epoch))
            self.written = time.monotonic()


def oracle_metrics(dataset: Dataset, seed: int) -> dict[str, dict[str, float | int | None]] | None:
    """The metrics of the true preferences, the ceiling of any model; None where they are unknown."""
    if dataset.oracle is None:
        return None
    oracle = InnerProduct(torch.as_tensor(dataset.oracle.users), torch.as_tensor(dataset.oracle.items))
    return evaluate(oracle, dataset, seed=seed).metrics


def _peak_memory() -> int | None:
    """The most memory that this process has had, in bytes; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_name(device: str) -> str:
    kind = torch.device(device)
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else f"cpu ({platform.machine()})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
