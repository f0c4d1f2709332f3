"""Finished runs, opened for looking, each once; and the users and items in them, found by what people write."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from imgrec_lib.data.dataset import Columns, Dataset
from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.explorer.state import USER_ORDERS
from imgrec_lib.features import Features
from imgrec_lib.models import list_models
from imgrec_lib.runs import TESTED, Inputs, Run, check_roots, find_runs
from imgrec_lib.serving import Trained


class Runs:
    """The finished runs below a folder; a run is opened when first asked for, and runs on the same data share it.

    Args:
        folder: see `find_runs`.
        only: names of run folders; empty: all.
        root: where their data lie now, if they were moved, by the dataset's name: see `Request.at`.

    Raises:
        InputError: there is no finished run.
    """

    def __init__(self, folder: str | Path, only: Sequence[str] = (), root: Mapping[str, str] | None = None) -> None:
        self.folder, self.root = Path(folder), dict(root or {})
        found = find_runs(self.folder, TESTED)
        self.by_name = {run.name: run for run in found if not only or run.name in only}
        for name in only:
            if name not in self.by_name:
                raise unknown_name(f"run in {self.folder}", name, [run.name for run in found])
        check_roots(root, self.by_name.values())
        self._opened: dict[str, Trained] = {}
        self._lock = threading.RLock()  # a page asks from several threads
        self._inputs = Inputs(root)

    @property
    def datasets(self) -> dict[str, list[Run]]:
        """The runs by the dataset they were made on: its name and sizes."""
        groups: dict[str, list[Run]] = {}
        for run in self.by_name.values():
            data = run.record.dataset
            name = f"{data.name}, {data.users:,} users, {data.items:,} items ({data.fingerprint[:6]})"
            groups.setdefault(name, []).append(run)
        return groups

    def best_first(self, runs: Sequence[Run]) -> list[Run]:
        """Runs in the order in which one looks at them: those that see pictures, by their validation, then the others.

        A run with shuffled pictures is a control, and comes last. Validation decides, for whoever looks at the runs
        that are best in the test will find the test too good.
        """
        cards = list_models()

        def key(run: Run) -> tuple[bool, bool, float]:
            record = run.record
            sees = record.features is not None or (record.model in cards and "images" in cards[record.model].uses)
            value = record.validation.auc
            return record.control is not None, not sees, -1.0 if value is None else -value

        return sorted(runs, key=key)

    @cached_property
    def best(self) -> str:
        """Name of the best run that sees pictures, on the dataset of which there are most runs."""
        return self.best_first(max(self.datasets.values(), key=len))[0].name

    def on_the_same_data(self, name: str) -> list[Run]:
        """The runs on the same data as one, itself included, see `best_first`."""
        digits = self._named(name).record.dataset.fingerprint
        return self.best_first([run for run in self.by_name.values() if run.record.dataset.fingerprint == digits])

    def is_open(self, name: str) -> bool:
        """Whether a run is in memory already."""
        return name in self._opened

    def open(self, name: str) -> Trained:
        """One run, opened; the best one that sees pictures when `name` is empty.

        Raises:
            InputError: no run has that name, or its data is no longer where it was.
        """
        name = name or self.best
        run = self._named(name)
        with self._lock:
            if name not in self._opened:
                dataset, features = self._inputs.of(run)
                # A run without any has them for neighbours by picture; a network may have to look at every picture.
                later = partial(self._features_of, run) if run.record.features is None else features
                self._opened[name] = Trained.of(run, dataset, later)
            return self._opened[name]

    def _features_of(self, run: Run) -> Features | None:
        with self._lock:
            return self._inputs.of(run, pictures=True)[1]

    def _named(self, name: str) -> Run:
        if name not in self.by_name:
            raise unknown_name("run", name, self.by_name)
        return self.by_name[name]

    def before_fine_tuning(self, name: str) -> str:
        """The run that stopped where this one began to train its network: all else equal, its last phases unused.

        Returns:
            Its name, or "" where there is none.
        """
        record = self._named(name).record
        for other, run in self.by_name.items():
            same = all(getattr(run.record, name) == getattr(record, name) for name in ("model", "parameters", "seed"))
            if not same or run.record.dataset.fingerprint != record.dataset.fingerprint:
                continue
            mine, theirs = record.phases, run.record.phases
            later, unused = ([phase["epochs"] for phase in phases[1:]] for phases in (mine, theirs))
            if any(later) and mine[0] == theirs[0] and not any(unused):
                return other
        return ""


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
def _random_order(n_users: int, seed: int = 0) -> np.ndarray:
    """The users in a random order, the same each time."""
    return np.random.default_rng(seed).permutation(n_users)


@lru_cache(8)
def _worst_served(opened: Trained) -> np.ndarray:
    """Users with a test item, the one for whom most items rank above one of his first; equal ones by index."""
    order = opened.run.per_user.sort_values("exact/higher", ascending=False, kind="stable")
    return order["user"].drop_duplicates().to_numpy()


def user_order(opened: Trained, by: str) -> np.ndarray:
    """User indices in one of `USER_ORDERS`; "served" orders hold the users with a test item only.

    Raises:
        InputError: unknown order.
    """
    lengths = opened.dataset.train.history_lengths
    if by == "as listed":
        return np.arange(opened.dataset.n_users)
    if by == "random":
        return _random_order(opened.dataset.n_users)
    if by == "longest history":
        return np.argsort(-lengths, kind="stable")
    if by == "shortest history":
        return np.argsort(lengths, kind="stable")
    if by == "worst served":
        return _worst_served(opened)
    if by == "best served":
        return _worst_served(opened)[::-1]
    raise unknown_name("order of users", by, USER_ORDERS)
