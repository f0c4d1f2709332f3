"""Finished runs, opened for looking: model, scores and item vectors in memory, each made once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.evaluation import scorer_of
from imgrec_lib.features import Features
from imgrec_lib.features.controls import with_control
from imgrec_lib.models.base import Recommender, Scorer, item_vectors
from imgrec_lib.runs import Run, find_runs, load_model


@dataclass(frozen=True, eq=False)
class Opened:
    """A finished run and what is needed to look into it, on the CPU.

    Attributes:
        run: the run.
        dataset: what it was trained on.
        features: the visual features of the catalogue, each item's own whatever the run's control; None without
            pictures.
        model: the trained model.
        scorer: its scorer, at the time of the test items where the model uses time.
    """

    run: Run
    dataset: Dataset
    features: Features | None
    model: Recommender
    scorer: Scorer

    @property
    def title(self) -> str:
        """The run in words: model, and what distinguishes it from others of that model."""
        record = self.run.record
        return record.title + (f" ({record.control})" if record.control else "")

    @cached_property
    def popularity(self) -> np.ndarray:
        """(n_items,) int64: training interactions of each item."""
        return self.dataset.train.popularity

    @cached_property
    def categories(self) -> tuple[np.ndarray, list[str]] | None:
        """`Dataset.categories`, kept."""
        return self.dataset.categories

    @cached_property
    def learned(self) -> Tensor | None:
        """The items as the model has learnt them, see `item_vectors`."""
        return item_vectors(self.scorer)

    @cached_property
    def purchases(self) -> sparse.csc_matrix:
        """(n_users, n_items): 1 for each training interaction."""
        train = self.dataset.train
        ones = np.ones(len(train), np.float32)
        return sparse.csr_matrix((ones, train.items, train.indptr), (train.n_users, train.n_items)).tocsc()

    @cached_property
    def worst_served(self) -> np.ndarray:
        """Users with a test item, the one for whom most items rank above one of his first; equal ones by index."""
        order = self.run.per_user.sort_values("exact/higher", ascending=False, kind="stable")
        return order["user"].drop_duplicates().to_numpy()

    @cached_property
    def _scores(self) -> dict[int, np.ndarray]:
        return {}

    @torch.no_grad()
    def scores(self, user: int) -> np.ndarray:
        """(n_items,) float32: the scores of one user; those of the users asked for last are kept."""
        if user not in self._scores:
            if len(self._scores) >= 64:
                del self._scores[next(iter(self._scores))]
            self._scores[user] = self.scorer.block(torch.tensor([user]))[0].float().numpy()
        return self._scores[user]


class Runs:
    """The finished runs below a folder; a run is opened when first asked for, and runs on the same data share it.

    Args:
        folder: see `find_runs`.
        only: names of run folders; empty: all.

    Raises:
        InputError: there is no finished run.
    """

    def __init__(self, folder: str | Path, only: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        found = find_runs(self.folder)
        self.by_name = {run.name: run for run in found if not only or run.name in only}
        for name in only:
            if name not in self.by_name:
                raise unknown_name(f"run in {self.folder}", name, [run.name for run in found])
        self._opened: dict[str, Opened] = {}
        self._inputs: dict[str, tuple[Dataset, Features | None]] = {}

    @property
    def datasets(self) -> dict[str, list[Run]]:
        """The runs by the dataset they were made on: its name and sizes."""
        groups: dict[str, list[Run]] = {}
        for run in self.by_name.values():
            data = run.record.dataset
            name = f"{data.name}, {data.users:,} users, {data.items:,} items ({data.fingerprint[:6]})"
            groups.setdefault(name, []).append(run)
        return groups

    def open(self, name: str) -> Opened:
        """One run, opened; the first one when `name` is empty.

        Raises:
            InputError: no run has that name, or its data is no longer where it was.
        """
        name = name or next(iter(self.by_name))
        if name not in self.by_name:
            raise unknown_name("run", name, self.by_name)
        if name not in self._opened:
            run = self.by_name[name]
            dataset, features = self._load(run)
            uses_features = features is not None and run.record.features is not None
            used = with_control(features, run.request.control) if uses_features and features else None
            model = load_model(run, dataset, used)
            self._opened[name] = Opened(run, dataset, features, model, scorer_of(model, dataset.test.times))
        return self._opened[name]

    def before_fine_tuning(self, name: str) -> str:
        """The run that stopped where this one began to train its network: all else equal, its last phases unused.

        Returns:
            Its name, or "" where there is none.
        """
        record = self.by_name[name].record
        for other, run in self.by_name.items():
            same = all(getattr(run.record, name) == getattr(record, name) for name in ("model", "parameters", "seed"))
            if not same or run.record.dataset.fingerprint != record.dataset.fingerprint:
                continue
            mine, theirs = record.phases, run.record.phases
            later, unused = ([phase["epochs"] for phase in phases[1:]] for phases in (mine, theirs))
            if any(later) and mine[0] == theirs[0] and not any(unused):
                return other
        return ""

    def _load(self, run: Run) -> tuple[Dataset, Features | None]:
        if run.request.dataset is None:
            raise InputError(
                f"run {run.name} does not say how its dataset was loaded: train it with 'imgrec train' to look into it."
            )
        # The features are loaded also for a run without any, and without the run's control: for neighbours by picture.
        request = replace(run.request, control=None, device="cpu")
        key = json.dumps({name: value for name, value in request.to_json().items() if name in INPUTS}, sort_keys=True)
        if key not in self._inputs:
            self._inputs[key] = request.load(with_features=True)
        return self._inputs[key]


INPUTS = ("dataset", "root", "dataset_options", "backbone", "weights", "feature_options", "feature_files")
"""What of a request says which dataset and which features are loaded."""


def find_user(dataset: Dataset, text: str) -> int:
    """The index of a user by its id, or by a part of it that no other id has.

    Raises:
        InputError: no user, or several, match.
    """
    return _find("user", dataset.user_ids, dataset.user_ids, text)


def find_item(dataset: Dataset, text: str) -> int:
    """The index of an item by its id, or by a part of its id or name that no other item has.

    Raises:
        InputError: no item, or several, match.
    """
    ids = dataset.items[Columns.ITEM].to_numpy().astype(str)
    names = dataset.items[Columns.NAME].astype(str).to_numpy() if Columns.NAME in dataset.items else ids
    return _find("item", ids, np.char.add(np.char.add(ids, " "), names.astype(str)), text)


def _find(kind: str, ids: np.ndarray, texts: np.ndarray, wanted: str) -> int:
    exact = np.flatnonzero(ids == wanted)
    if len(exact):
        return int(exact[0])
    part = wanted.strip().lower()
    hits = np.flatnonzero(np.char.find(np.char.lower(texts.astype(str)), part) >= 0)
    if len(hits) == 1:
        return int(hits[0])
    if not len(hits):
        raise InputError(f"no {kind} has {wanted!r} in its id: look up the {kind}'s id in the dataset's tables.")
    some = ", ".join(str(ids[hit]) for hit in hits[:3])
    raise InputError(f"{len(hits):,} {kind}s match {wanted!r} ({some}, ...): write more of the id.")


@cache
def random_order(n_users: int, seed: int = 0) -> np.ndarray:
    """The users in a random order, the same each time."""
    return np.random.default_rng(seed).permutation(n_users)


USER_ORDERS = ("as listed", "random", "longest history", "shortest history", "worst served", "best served")


def user_order(opened: Opened, by: str) -> np.ndarray:
    """User indices in one of `USER_ORDERS`; "served" orders hold the users with a test item only.

    Raises:
        InputError: unknown order.
    """
    lengths = opened.dataset.train.history_lengths
    if by == "as listed":
        return np.arange(opened.dataset.n_users)
    if by == "random":
        return random_order(opened.dataset.n_users)
    if by == "longest history":
        return np.argsort(-lengths, kind="stable")
    if by == "shortest history":
        return np.argsort(lengths, kind="stable")
    if by == "worst served":
        return opened.worst_served
    if by == "best served":
        return opened.worst_served[::-1]
    raise unknown_name("order of users", by, USER_ORDERS)
