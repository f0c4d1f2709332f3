"""The run record: one folder a run, complete if and only if it holds `run.json`.

<run>/run.json                 parameters, versions, fingerprints, metrics, timings; written last, by rename
<run>/curve.csv                the learning curve, one row an epoch
<run>/per_user.parquet         what evaluation counted for each user
<run>/model.safetensors        the weights that training kept: of the best validation, or the last; and what the options
                               of the features had learnt (means, principal components), and a sketch of these
<run>/training.safetensors     only while training: where to go on after a crash
<run>/state.safetensors        how training ended, weights and optimiser, from where more epochs go on
<run>/progress.json            only while training: the last epoch, for who watches
<run>/notebook.ipynb           the executed notebook, where a notebook made the run
<run>/ids.parquet              whose the rows of the weights are: users, items and categories by id
<run>/lists.parquet            of lists from elsewhere: user and item (ids) and value, in place of curve and weights

A run is a trial, one configuration of a search ("search"), a model for use ("refit") or no model's at all but the lists
of another program ("lists"), as `stage` in `run.json` says. A search's run is validated and never tested: it has no
metrics, no per_user.parquet and no weights. A refitted one is trained on the held-out items too: it has weights, and
nothing that could be reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.errors import InputError, one_line
from imgrec_lib.evaluation import IMPERSONAL, PROTOCOLS
from imgrec_lib.files import fingerprint
from imgrec_lib.request import Request

FORMAT = 1
LATER_SETTINGS = {"weight_decay": 0.0, "warm_up": 0, "validation_users": 0, "shard_tables": False}
"""Settings of a phase that earlier versions did not know, and what they did. A record names such a setting only where
it differs from that: a row of a table is of one configuration, to which runs of an earlier version may belong."""
PREPARATIONS = "preparations"
"""The group of a run's weights that holds what the options of its features had learnt."""
SKETCH = "sketch"
"""The group that holds `runs.sketch` of what the model was given, as "features"."""
STAGES = ("trial", "search", "refit", "lists")
TESTED = ("trial", "lists")
"""The stages of what was evaluated on the test items."""
FORMER_STAGES = {"grid": "search"}
"""What earlier versions called a stage."""
FILES = (
    "run.json",
    "curve.csv",
    "per_user.parquet",
    "model.safetensors",
    "training.safetensors",
    "state.safetensors",
    "progress.json",
    "notebook.ipynb",
    "ids.parquet",
    "lists.parquet",
)
Metrics = dict[str, dict[str, float | int | None]]
"""Protocol -> metric -> value."""


@dataclass(frozen=True)
class DatasetRecord:
    """What a run keeps of its dataset.

    Attributes:
        name, fingerprint: see `Dataset`.
        users, items, training_interactions: how many there are.
        split: how the interactions were divided, see `Dataset.split`; None where that is unknown.
        parts: a fingerprint of each part of the data by what it is called in sentences ("users", "pictures", "column
            'colour'", ...), by which `changes` tells what has changed; empty in records of versions without.
    """

    name: str
    fingerprint: str
    users: int
    items: int
    training_interactions: int
    split: dict[str, Any] | None
    parts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetRecord:
        """The record of a dataset."""
        return cls(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            users=dataset.n_users,
            items=dataset.n_items,
            training_interactions=len(dataset.train),
            split=dataset.split,
            parts=_parts(dataset),
        )

    def changes(self, dataset: Dataset) -> str:
        """What of other data differs from that of this record, for a sentence: "61 users (60 then); the pictures"."""
        now = DatasetRecord.of(dataset)
        counts = {"users": "users", "items": "items", "training_interactions": "training interactions"}
        found = [
            f"{getattr(now, name):,} {words} ({getattr(self, name):,} then)"
            for name, words in counts.items()
            if getattr(now, name) != getattr(self, name)
        ]
        then, split = self.split or {}, now.split or {}
        found += [
            f"{name} {split.get(name)!r} of the split ({then.get(name)!r} then)"
            for name in {**then, **split}
            if then.get(name) != split.get(name)
        ]
        told = {words for words in counts.values() if any(f" {words} (" in each for each in found)}
        if self.parts:
            found += [
                f"the {part}"
                for part in {**self.parts, **now.parts}
                # Pictures that nobody has looked at cannot have changed what was made without them.
                if (part != "pictures" or (part in self.parts and part in now.parts))
                and part not in told
                and self.parts.get(part) != now.parts.get(part)
            ]
        return "; ".join(found) or "ids, interactions, the item table or pictures, in the same numbers"

    def has_pictures_of(self, dataset: Dataset) -> bool:
        """Whether the pictures are those of the record, as far as it says."""
        then = self.parts.get("pictures")
        if then is None or dataset.images is None:
            return not then
        return dataset.images.is_known_as(then)


def _parts(dataset: Dataset) -> dict[str, str]:
    """See `DatasetRecord.parts`; together they are all that `Dataset.fingerprint` counts, and the pictures, if somebody
    has looked at them."""
    train, items, images = dataset.train, dataset.items, dataset.images
    columns = [column for column in items.columns if column not in (Columns.ITEM, Columns.NAME)]
    return {
        "users": fingerprint(dataset.user_ids),
        "items": fingerprint(items[Columns.ITEM].to_numpy()),
        "training interactions": fingerprint(
            train.indptr, train.items, *([] if train.times is None else [train.times])
        ),
        "validation items": fingerprint(dataset.validation.users, dataset.validation.flat),
        "test items": fingerprint(dataset.test.users, dataset.test.flat),
        **({"pictures": ""} if images is None else {"pictures": images.fingerprint} if images.prepared else {}),
        **{f"column {column!r}": fingerprint(items[column].astype(str).to_numpy(dtype=object)) for column in columns},
    }


@dataclass(frozen=True)
class Validation:
    """The weights that training kept, ranked exactly on the validation items.

    Attributes:
        auc: exact AUC; None where there were no validation items, so that nothing was chosen.
        phase, epoch: when they were reached, from 1; both are 0 for a model that is not trained.
        choose_by: the metric by which they are the best (`TrainSettings.choose_by`).
        metrics: every metric by which one may choose, by name ("auc", "ndcg@10", ...); empty in records of versions
            that knew AUC alone.
        users: on how many users' items they were ranked (`TrainSettings.validation_users`); 0 in records that do not
            say, where it was all.
    """

    auc: float | None
    phase: int
    epoch: int
    choose_by: str = "auc"
    metrics: dict[str, float] = field(default_factory=dict)
    users: int = 0

    def value(self, metric: str = "auc") -> float:
        """A metric of the validation items; NaN where there were none, minus infinity where the record does not know
        it, so that it never wins."""
        if self.auc is None:
            return math.nan
        return self.auc if metric == "auc" else self.metrics.get(metric, -math.inf)


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        epochs: epochs trained, over all phases.
        seconds_training: of all epochs, validation excluded; seconds_per_epoch: their mean, None without an epoch.
        seconds_fit: building the model, which is all that one without training takes, then training with validation and
            saves; seconds_evaluation: the test.
        interactions_per_second: positives drawn a second of training.
        peak_memory_bytes: most that the process held; None where the system does not say.
        parameters: numbers that the model learns.
    """

    epochs: int
    seconds_training: float
    seconds_per_epoch: float | None
    seconds_fit: float
    seconds_evaluation: float
    interactions_per_second: float
    peak_memory_bytes: int | None
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came out of a run, and of what: the content of `run.json`.

    Attributes:
        model, profile, parameters, phases: the model by its name, its hyper-parameters, and the settings of each phase
            of training as they were used, without those of `LATER_SETTINGS` that have the value there.
        seed: of the initial weights, the batches and the sampled negatives of the test.
        dataset: what the model was trained on.
        features: `Features.identity` of the visual features; None for a model that uses none.
        identity: fingerprint of all of the above.
        source: fingerprint of the code that made the run; None in records of versions that did not keep it.
        title, family, fidelity: see `ModelCard`.
        stage: one of `STAGES`.
        requested: what the caller asked for, as it was given.
        metrics: on the test items; empty for a search's run.
        oracle: the same of the true preferences; None where they are unknown.
        validation, cost: see there.
        personal: the share of the ranking that depends on the user (`evaluation.personal_share`); None for a model
            that is not trained, for a search's run, and in records of versions that did not measure it.
        pruned: whether a search ended the training early, because it lagged behind others.
        started_from: the run whose weights training started from, and how many users and items had some
            (`runs.warm.start_from`); None for initial weights.
        device: where the model was trained, in words.
        processes, threads: how many processes trained it, with how many threads each.
        versions: of Python and the packages that make numbers, by name.
        finished: when, in ISO 8601 (UTC).
        format: `FORMAT`.
    """

    model: str
    profile: str
    parameters: dict[str, Any]
    phases: list[dict[str, Any]]
    seed: int
    dataset: DatasetRecord
    features: dict[str, Any] | None
    format: int = FORMAT
    identity: str
    source: str | None = None
    title: str
    family: str
    fidelity: str
    stage: str = "trial"
    requested: dict[str, Any]
    metrics: Metrics
    oracle: Metrics | None
    validation: Validation
    cost: Cost
    device: str
    processes: int = 1
    threads: int = 1
    personal: float | None = None
    pruned: bool = False
    started_from: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    finished: str

    @property
    def control(self) -> str | None:
        """The control that changed the features (`features.controls`), or None."""
        return (self.features or {}).get("control") or None

    @property
    def searched(self) -> bool:
        """Whether a search on this data chose hyper-parameters or settings of training by validation."""
        return bool(self.requested.get("searched"))

    @property
    def impersonal(self) -> bool:
        """Whether training has left a ranking that is the same for everybody."""
        return self.personal is not None and self.personal < IMPERSONAL

    @property
    def tested(self) -> bool:
        """Whether the run was evaluated on the test items; a search's run never is."""
        return self.stage in TESTED

    def to_json(self) -> dict[str, Any]:
        """The content of `run.json`; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: bytes, path: Path) -> Record:
        """Read the content of a `run.json`. Of each field the type is checked; unknown fields are ignored.

        Args:
            content: the file's bytes.
            path: the file, for the sentence about what is wrong with it.

        Raises:
            InputError: the record is damaged, or of another format.
        """
        try:
            number = json.loads(content)["format"]
            if number != FORMAT:
                raise InputError(f"{path} has format {number}, not {FORMAT}: run it again with this version.")
            record = _RECORD.validate_json(content, strict=True)
            record = replace(record, stage=FORMER_STAGES.get(record.stage, record.stage))
        except ValidationError as error:
            raise _damaged(path, error.errors()[0]["loc"]) from None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged ({error}): delete it and run the training again.") from error
        for protocol in PROTOCOLS if record.tested else ():
            if protocol not in record.metrics:
                raise _damaged(path, ("metrics", protocol))
        return record


_RECORD = TypeAdapter(Record)


def _damaged(path: Path, place: Sequence[str | int]) -> InputError:
    return InputError(
        f"{path} is damaged (its field {'/'.join(map(str, place))!r} is missing or of another type): delete it and run "
        "the training again."
    )


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        record: the content of `run.json`.
    """

    folder: Path
    record: Record

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> Metrics:
        """Protocol -> metric -> value, on the test items; empty for a search's run."""
        return self.record.metrics

    @cached_property
    def request(self) -> Request:
        """What was asked for; its `dataset` is None where the record does not say how the data was loaded.

        Raises:
            InputError: the record holds another request than this version makes.
        """
        record = self.record
        known = {"model": record.model, "profile": record.profile, "parameters": record.parameters, "seed": record.seed}
        return Request.from_parameters(known | record.requested)

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

    Example:
        >>> from pathlib import Path
        >>> from imgrec_lib import load_dataset, open_run, train_run
        >>> dataset = load_dataset("wardrobe", n_users=40, n_items=50, image_size=32, progress=False)
        >>> run = train_run(dataset, "poprank", Path("runs/pop"), progress=False)
        >>> open_run(Path("runs/pop")).record.title
        'PopRank'
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no finished run (no run.json): run the training again, it goes on where it stopped."
        )
    return Run(folder, Record.from_json(path.read_bytes(), path))


def discard_run(folder: Path) -> None:
    """Delete a run's files, finished or not, so that it can be made anew; other files in the folder stay."""
    for name in FILES:
        (Path(folder) / name).unlink(missing_ok=True)


def weights_of(dataset: Dataset, model: str) -> str:
    """What a run's file of weights says that it holds, so that no other run's is taken for it."""
    return f"{model} on {dataset.name} {dataset.fingerprint}"
