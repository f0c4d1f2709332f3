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

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from imgrec_lib.data.dataset import Dataset
from imgrec_lib.errors import InputError, one_line
from imgrec_lib.evaluation import PROTOCOLS

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


def weights_of(dataset: Dataset, model: str) -> str:
    """What a run's file of weights says that it holds, so that no other run's is taken for it."""
    return f"{model} on {dataset.name} {dataset.fingerprint}"
