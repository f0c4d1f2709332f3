"""Finished runs in the experiment tracker that people have: parameters, learning curve and metrics, by its own client.

A run is written when it has finished, from its record: training knows nothing of trackers, and a tracker that fails
costs no run. What a tracker has already of a run is not written again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from imgrec_lib.errors import unknown_name
from imgrec_lib.extras import require
from imgrec_lib.files import replacing_folder
from imgrec_lib.runs import Run

TAG = "imgrec.identity"
"""By this tag of MLflow a run is known again: what was asked for, and when it finished."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuse, before any work, a tracker that is unknown or not installed.

    Raises:
        InputError: says which, and how to install it.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
        require(name)


def track(run: Run, tracker: str) -> str:
    """Write a finished run to an experiment tracker.

    - mlflow: an experiment for each dataset, where `MLFLOW_TRACKING_URI` says (by default `mlruns` in this folder).
    - wandb: project "imgrec", group by dataset, where and as whom wandb's own settings say.
    - tensorboard: event files in `tensorboard/<run>` beside the run's folder.

    Args:
        run: a finished run.
        tracker: a key of `TRACKERS`.

    Returns:
        Where it was written.

    Raises:
        InputError: the tracker is unknown or not installed. What its client raises goes through.

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import load_dataset, train_run
        >>> from imgrec_lib.tracking import track
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> run = train_run(dataset, "poprank", Path("runs/pop"), progress=False)
        >>> track(run, "tensorboard")
        'runs/tensorboard/pop'
    """
    check_trackers([tracker])
    return TRACKERS[tracker](run)


def parameters_of(run: Run) -> dict[str, Any]:
    """What a run was made with, one value a name: hyper-parameters, settings of each phase, data, features."""
    record = run.record
    flat: dict[str, Any] = {
        "model": record.model, "profile": record.profile, "seed": record.seed, "dataset": record.dataset.name,
        "dataset_fingerprint": record.dataset.fingerprint, "users": record.dataset.users, "items": record.dataset.items,
        "imgrec": record.versions.get("imgrec"), "device": record.device, **record.parameters,
    }  # fmt: skip
    for number, phase in enumerate(record.phases, 1):
        flat |= {f"phase{number}.{name}": value for name, value in phase.items()}
    return flat | {f"features.{name}": value for name, value in (record.features or {}).items()}


def metrics_of(run: Run) -> dict[str, float]:
    """The numbers of a run, one a name: "exact/auc", "validation/auc", "cost/seconds_fit"; no unknown ones."""
    record = run.record
    groups: dict[str, Mapping[str, Any]] = {
        **record.metrics,
        "validation": {"auc": record.validation.auc, **record.validation.metrics},
        "cost": vars(record.cost),
    }
    return {f"{group}/{name}": value for group, part in groups.items() for name, value in _numbers(part).items()}


def _curve_of(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """The learning curve: epochs counted over all phases, and the numbers of each."""
    for step, row in enumerate(run.curve.to_dict("records")):
        yield step, _numbers({f"curve/{name}": value for name, value in row.items()})


def _numbers(values: Mapping[Any, Any]) -> dict[str, float]:
    return {
        str(name): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _identity(run: Run) -> str:
    return f"{run.record.identity} {run.record.finished}"


def _mlflow(run: Run) -> str:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client, name = MlflowClient(), f"imgrec {run.record.dataset.name}"
    known = f"tags.`{TAG}` = '{_identity(run)}' and attributes.status = 'FINISHED'"
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    written = client.search_runs([experiment_id], known)
    if written:
        return f"{name}, run {written[0].info.run_id}"
    begun = client.create_run(experiment_id, tags={"mlflow.runName": run.name}).info.run_id
    parameters = [Param(key, str(value)) for key, value in parameters_of(run).items()]
    metrics = [Metric(_plain(key), value, 0, 0) for key, value in metrics_of(run).items()]
    metrics += [Metric(_plain(key), value, 0, step) for step, row in _curve_of(run) for key, value in row.items()]
    for start in range(0, len(parameters), 100):  # what the tracking server takes at a time
        client.log_batch(begun, params=parameters[start : start + 100])
    for start in range(0, len(metrics), 1000):
        client.log_batch(begun, metrics=metrics[start : start + 1000])
    client.log_batch(begun, tags=[RunTag(TAG, _identity(run))])
    client.set_terminated(begun)
    return f"{name}, run {begun}"


def _plain(name: str) -> str:
    """A metric's name as MLflow takes it, which knows no @."""
    return name.replace("@", "_at_")


def _wandb(run: Run) -> str:
    import wandb

    written = wandb.init(
        project="imgrec",
        name=run.name,
        group=run.record.dataset.name,
        id="".join(c if c.isalnum() else "-" for c in _identity(run)),
        config=parameters_of(run),
        resume="allow",
        reinit=True,
    )
    if not written.resumed:
        for step, row in _curve_of(run):
            written.log(row, step=step)
        written.summary.update(metrics_of(run))
    written.finish()
    return f"project imgrec, run {run.name}"


def _tensorboard(run: Run) -> str:
    from torch.utils.tensorboard import SummaryWriter

    folder = run.folder.parent / "tensorboard" / run.name
    with replacing_folder(folder) as temporary, SummaryWriter(str(temporary)) as writer:
        for step, row in _curve_of(run):
            for name, value in row.items():
                writer.add_scalar(name, value, step)
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in parameters_of(run).items()
        }
        writer.add_hparams(plain, metrics_of(run), run_name=".")
    return str(folder)


TRACKERS: dict[str, Callable[[Run], str]] = {"mlflow": _mlflow, "wandb": _wandb, "tensorboard": _tensorboard}
"""How each tracker is written to."""
