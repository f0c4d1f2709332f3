"""A warm start: the weights of a finished run, put by id into a model of other, grown data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.errors import InputError, one_line, tell
from imgrec_lib.files import replacing
from imgrec_lib.models import model_card
from imgrec_lib.models.base import Recommender
from imgrec_lib.request import Request
from imgrec_lib.runs.load import changed_features, load_inputs
from imgrec_lib.runs.record import LATER_SETTINGS, Run
from imgrec_lib.training import distributed, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from imgrec_lib.features import Features  # what extracts them makes no number of a model without

FILE = "ids.parquet"
STATE = "state.safetensors"
"""Where a run keeps its training's last state, from which more epochs go on."""

EPOCHS = {"epochs", "patience"}
"""Settings of training that may differ where more epochs of a run are trained."""

KINDS = {"user": "users", "item": "items", "category": "categories"}
"""What rows of weights may belong to, and how sentences call several."""


def _ids_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """Who and what the rows of weights belong to: the ids of each of `KINDS`, in the order of the rows."""
    categories = dataset.categories
    return {
        "user": dataset.user_ids.astype(str),
        "item": dataset.items[Columns.ITEM].to_numpy().astype(str),
        "category": np.array([] if categories is None else categories[1], str),
    }


def write_ids(dataset: Dataset, folder: Path) -> None:
    """Keep with a run what its rows belong to: its data may have grown when it is started from."""
    ids = _ids_of(dataset)
    table = pd.DataFrame(
        {"kind": np.repeat(list(ids), [len(each) for each in ids.values()]), "id": np.concatenate([*ids.values()])}
    )
    with replacing(folder / FILE) as temporary:
        table.to_parquet(temporary, index=False)


def read_ids(run: Run) -> dict[str, np.ndarray]:
    """What the rows of a run's weights belong to.

    Raises:
        InputError: the file is damaged; or the run is of a version that kept none, and its data have changed.
    """
    path = run.folder / FILE
    if path.exists():
        try:
            table = pd.read_parquet(path, columns=["kind", "id"])
        except Exception as error:  # the engines of pandas raise many kinds of exception on damaged files
            raise InputError(f"{path} is damaged ({one_line(error)}): train the run again.") from None
        return {kind: table["id"].to_numpy()[table["kind"].to_numpy() == kind].astype(str) for kind in KINDS}
    dataset, _ = load_inputs(run, progress=False)
    if dataset.fingerprint != run.record.dataset.fingerprint:
        raise InputError(
            f"run {run.name} does not say whose its weights are, and its data have changed since: "
            f"{run.record.dataset.changes(dataset)}. Train it anew."
        )
    return _ids_of(dataset)


def start_from(model: Recommender, run: Run, dataset: Dataset) -> dict[str, Any]:
    """Give a new model the weights of a finished run, by the ids of users, items and categories.

    What the run did not know keeps the new model's initial weights.

    Args:
        model: the new model, in place.
        run: a finished run of the same model, with the same hyper-parameters.
        dataset: what the new model will be trained on.

    Returns:
        For the record: "run" and its "identity", then of each of `KINDS` how many are "kept", "new" and "gone".

    Raises:
        InputError: the model is not trained in epochs, or the weights do not fit.
    """
    record = run.record
    if not model.phases:
        raise InputError(f"{record.title} is not trained in epochs: there is nothing to start from; train it anew.")
    before, now = read_ids(run), _ids_of(dataset)
    kinds = [kind for kind in KINDS if kind != "category" or "categories" in model_card(record.model).uses]
    sources = {kind: pd.Index(before[kind]).get_indexer(pd.Index(now[kind])) for kind in kinds}
    weights = read_checkpoint(run.folder / "model.safetensors").group("model")
    state = model.state_dict()
    for name, new in state.items():
        old = weights.get(name)
        places = (
            None
            if old is None or old.ndim != new.ndim
            else [_place(old.shape[axis], new.shape[axis], before, now, sources) for axis in range(new.ndim)]
        )
        if old is None or places is None or any(place is None for place in places):
            there = "none" if old is None else tuple(old.shape)
            raise InputError(
                f"the weights of run {run.name} do not fit: {name!r} is {tuple(new.shape)} here and {there} there; "
                f"repeat its hyper-parameters ({record.parameters}), or, where the item table has other attributes "
                "now, train anew."
            )
        state[name] = _filled(new, old, [place for place in places if place is not None])
    model.load_state_dict(state)
    kept = {kind: int((source >= 0).sum()) for kind, source in sources.items()}
    return {
        "run": str(run.folder.absolute()),
        "identity": record.identity,
        "kept": {KINDS[kind]: number for kind, number in kept.items()},
        "new": {KINDS[kind]: len(now[kind]) - number for kind, number in kept.items()},
        "gone": {KINDS[kind]: len(before[kind]) - number for kind, number in kept.items()},
    }


def may_continue(run: Run, request: Request, dataset: Dataset, features: Features | None) -> bool:
    """Whether what is asked for is more epochs of a finished run: the same data, settings and seed.

    Args:
        run: the finished run.
        request: what is asked for.
        dataset: what it is to be trained on.
        features: those that the model uses; None where it uses none.
    """
    record, resolved = run.record, request.resolved

    def settings(phases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        complete = [LATER_SETTINGS | dict(phase) for phase in phases]
        return [{name: value for name, value in phase.items() if name not in EPOCHS} for phase in complete]

    return (
        (record.seed, record.dataset.fingerprint) == (request.seed, dataset.fingerprint)
        and ("images" not in model_card(record.model).uses or record.dataset.has_pictures_of(dataset))
        and record.parameters == dict(resolved.parameters)
        and settings(record.phases) == settings(map(asdict, resolved.phases))
        and not changed_features(run, features)
    )


def continue_from(model: Recommender, run: Run, checkpoint: Path, identity: str) -> None:
    """Let training begin where that of a finished run ended: weights, optimiser, epoch and random streams.

    The last phase has so many more epochs as it is asked for; its early stopping begins to count anew where it had
    stopped the run. A run that was ended in an earlier phase goes on there.

    Args:
        model: the new model, whose `phases` are changed.
        run: the finished run.
        checkpoint: where `fit` looks for its state; one that is there already, of a training that was stopped, stays.
        identity: of the new training.

    Raises:
        InputError: the run's state is damaged.
    """
    state = read_checkpoint(run.folder / STATE)
    *before, last = model.phases
    epochs = int(state.progress["epoch"])
    if state.progress["phase"] == len(before):
        model.phases = (*before, replace(last, epochs=epochs + last.epochs))
        if last.schedule == "linear" and epochs:
            whole = epochs + last.epochs
            tell(
                f"the learning rate of run {run.name} has fallen to its end: epochs {epochs + 1} to {whole} have the "
                f"rates of a training of {whole}, which the first {epochs} had not."
            )
    if checkpoint.exists() or distributed.rank() > 0:
        return
    stale = int(state.progress["stale"])
    if last.patience and stale >= last.patience:
        stale = 0
    groups = {name: state.group(name) for name in ("model", "best", "optimiser", "random")}
    write_checkpoint(checkpoint, groups, state.progress | {"stale": stale}, identity)


def moments_from(model: Recommender, run: Run, dataset: Dataset) -> dict[str, Tensor] | None:
    """The optimiser's tensors of a finished run, by the ids of users, items and categories; new rows have zeros.

    Args:
        model: the new model, which `start_from` has given the run's weights.
        run: the finished run.
        dataset: what the new model will be trained on.

    Returns:
        For `fit`. None where the run kept none, or has several phases, of which the last one's would be no use to the
        first, or another optimiser.
    """
    path, settings = run.folder / STATE, model.phases[0]
    if not path.exists() or len(model.phases) > 1 or run.record.phases[0]["optimiser"] != settings.optimiser:
        return None
    before, now = read_ids(run), _ids_of(dataset)
    kinds = [kind for kind in KINDS if kind != "category" or "categories" in model_card(run.record.model).uses]
    sources = {kind: pd.Index(before[kind]).get_indexer(pd.Index(now[kind])) for kind in kinds}
    parameters, found = list(model.start_phase(0)), {}
    for name, old in read_checkpoint(path).group("optimiser").items():
        if old.ndim == 0:  # the number of steps
            found[name] = old
            continue
        new = torch.zeros_like(parameters[int(name.split(".")[0])], requires_grad=False)
        places = [_place(old.shape[axis], new.shape[axis], before, now, sources) for axis in range(new.ndim)]
        found[name] = _filled(new, old, [place for place in places if place is not None])
    return found


def started_in_words(started: dict[str, Any]) -> str:
    """What `start_from` did, as a sentence."""
    parts = [
        f"{started['kept'][what]:,} {what} have the weights of {started['run']}, {started['new'][what]:,} are new, "
        f"{started['gone'][what]:,} of its are gone"
        for what in ("users", "items")
    ]
    return "; ".join(parts) + "."


def _place(
    old: int, new: int, before: dict[str, np.ndarray], now: dict[str, np.ndarray], sources: dict[str, np.ndarray]
) -> np.ndarray | None:
    """(new,) int64: where along an axis each new row comes from, -1 for nowhere; None where the sizes fit nothing.

    The sizes tell whose rows they are: those of users are as many as there were users, and are now. An axis of another
    kind, such as that of factors, is as long as before.

    Raises:
        InputError: it could be the axis of two kinds that moved differently.
    """
    fitting = {
        kind: source for kind, source in sources.items() if old and old == len(before[kind]) and new == len(now[kind])
    }
    if not fitting:
        return np.arange(new) if old == new else None
    first, *others = fitting.values()
    if any((source != first).any() for source in others):
        raise InputError(
            f"there are {old:,} each of {' and '.join(KINDS[kind] for kind in fitting)} in the run and {new:,} now: "
            "the weights do not say whose they are; train anew."
        )
    return first


def _filled(new: Tensor, old: Tensor, places: list[np.ndarray]) -> Tensor:
    """The new weights with those of the old ones in their places."""
    if not places:
        return old.clone()
    target = np.ix_(*(np.flatnonzero(place >= 0) for place in places))
    source = np.ix_(*(place[place >= 0] for place in places))
    values = new.detach().cpu().clone().numpy()
    values[target] = old.cpu().numpy()[source]
    return torch.from_numpy(values)
