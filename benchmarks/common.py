"""What our measurements and the peers' share: the files, one AUC for all, timing. Needs NumPy alone."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

VALIDATION_USERS = 1000
"""Users, drawn once, by whom training curves are validated: every side by the same, outside of its time."""


class Files:
    """A rung's arrays: `train` (n, 2), `validation` and `test` (n_users,), all int64; `features` (n_items, 2048)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.train, self.validation, self.test = (self.array(name) for name in ("train", "validation", "test"))
        self.features = np.load(self.folder / "features.npy", mmap_mode="r")
        self.n_users, self.n_items = len(self.test), len(self.features)

    def array(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy")

    def validation_users(self) -> np.ndarray:
        return np.random.default_rng(0).permutation(self.n_users)[:VALIDATION_USERS]


def validation_auc(files: Files, users: np.ndarray, items: np.ndarray, offset: np.ndarray | float = 0.0) -> float:
    """Mean exact AUC, ties one half, of the validation items of `Files.validation_users`.

    Candidates are all items but the user's training items and the validation item itself.

    Args:
        files: the data.
        users, items: (n_users, k) and (n_items, k) factors.
        offset: (n_items,) item offsets.
    """
    order = np.argsort(files.train[:, 0], kind="stable")
    owned = files.train[order, 1]
    starts = np.searchsorted(files.train[order, 0], np.arange(files.n_users + 1))
    values = []
    for block in np.array_split(files.validation_users(), 20):
        scores = users[block] @ items.T + offset
        for user, row in zip(block, scores, strict=True):
            target = row[files.validation[user]]
            own = row[owned[starts[user] : starts[user + 1]]]
            higher = np.count_nonzero(row > target) - np.count_nonzero(own > target)
            tied = np.count_nonzero(row == target) - np.count_nonzero(own == target) - 1
            values.append(1 - (higher + tied / 2) / (len(row) - len(own) - 1))
    return float(np.mean(values))


def timed(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def answer(result: dict[str, Any]) -> None:
    """Print the result as the last line, for `run.py`."""
    print("\nRESULT " + json.dumps(result), flush=True)
