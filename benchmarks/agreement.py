"""Do EASE, iALS and LightGCN give the scores that RecTools, implicit and RecBole give on the same matrix?

    python benchmarks/run.py --setup      # once: the peers' environments
    python benchmarks/agreement.py        # a minute

The same interactions go to both sides, and where a model starts from random numbers, the same numbers too. The largest
difference of any score is printed; it ends with 1 if one is above a hundred-thousandth of the largest score, or if a
peer is not installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Files
from data import RUNGS, open_dataset, prepare

from imgrec_lib.files import default_cache
from imgrec_lib.models import build_model
from imgrec_lib.models.base import Recommender

HERE = Path(__file__).resolve().parent
WITHIN = 1e-5
"""Largest difference allowed, as a share of the largest score."""


def ease(files: Files) -> tuple[Recommender, dict[str, Any]]:
    asked: dict[str, Any] = {"l2": 20.0}
    return build_model("ease", open_dataset(files).training_data(), **asked), asked


def ials(files: Files) -> tuple[Recommender, dict[str, Any]]:
    asked: dict[str, Any] = {"alpha": 9.0, "l2": 2.0, "iterations": 3}
    model = build_model("ials", open_dataset(files).training_data(), factors=16, **asked)
    with torch.random.fork_rng():  # what the model started from
        torch.manual_seed(0)
        start = torch.randn(files.n_items, 16, dtype=torch.float64) * (0.1 / 4)
    return model, asked | {"items": start.numpy()}


def lightgcn(files: Files) -> tuple[Recommender, dict[str, Any]]:
    model = build_model("lightgcn", open_dataset(files).training_data(), factors=16, layers=3)
    tables = {name: model.get_parameter(name).detach().numpy() for name in ("users", "items")}
    return model, tables | {"layers": 3}


COMPARISONS: list[tuple[str, Callable[[Files], tuple[Recommender, dict[str, Any]]], str, str]] = [
    ("EASE", ease, "rectools", "ease"),
    ("iALS", ials, "rectools", "ials-implicit"),
    ("iALS", ials, "rectools", "ials-rectools"),
    ("LightGCN", lightgcn, "recbole", "lightgcn"),
]
"""A model's title, how ours is made, the environment of the peer, and the model as peers/scores.py knows it."""


def theirs(python: Path, name: str, files: Files, asked: dict[str, Any]) -> np.ndarray:
    """All scores of a peer's model.

    Raises:
        RuntimeError: with the peer's last line, if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "train.npy", files.train)
        np.savez(Path(folder) / "asked.npz", n_users=files.n_users, n_items=files.n_items, **asked)
        command = [str(python), str(HERE / "peers" / "scores.py"), name, folder]
        done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": "", "OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no answer"])[-1])
        return np.load(Path(folder) / "theirs.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--environments", type=Path, help="where the peers' environments are, if not in the cache")
    options = parser.parse_args()
    environments = options.environments or options.cache / "benchmarks" / "environments"
    files = prepare(RUNGS["1/64"], options.cache / "benchmarks")
    # RecTools would leave out the last items where nobody has bought them: so somebody has.
    items = files.train[:, 1]
    items[items == items.max()] = files.n_items - 1
    print(f"{files.n_users:,} users, {files.n_items:,} items, {len(files.train):,} interactions")
    failed = False
    for title, build, environment, name in COMPARISONS:
        model, asked = build(files)
        mine = model.scorer().block(torch.arange(files.n_users)).double().numpy()
        python = environments / environment / "bin" / "python"
        if not python.exists():
            print(f"{title} and {name}: not installed (`python benchmarks/run.py --setup`)")
            failed = True
            continue
        difference = np.abs(mine - theirs(python, name, files, asked)).max() / np.abs(mine).max()
        print(f"{title} and {name}: largest difference {difference:.1e} of the largest score")
        failed |= not difference <= WITHIN
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
