"""How fast the explorer answers at 10,000 items, until its page of twenty pictures is handed on.

    python benchmarks/explorer.py
    python benchmarks/explorer.py --runs runs --run NAME

Without `--runs`, a small wardrobe's pictures are repeated up to 10,000 items and the model has random weights: what is
timed is the same. The time ends when the HTML is handed to the widget; the browser's share comes on top.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from imgrec_lib import build_model, load_dataset
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.data.images import ImageStore
from imgrec_lib.explorer import Runs, State, answer
from imgrec_lib.runs import Cost, DatasetRecord, Record, Run, Validation
from imgrec_lib.serving import Trained


class Synthetic(Runs):
    """One opened run that lies on no disk."""

    def __init__(self, opened: Trained) -> None:
        self.folder, self.by_name, self.root = opened.run.folder, {opened.run.name: opened.run}, {}
        self._opened, self._lock = {opened.run.name: opened}, threading.RLock()


def synthetic(n_users: int, n_items: int, factors: int, seed: int = 0) -> Synthetic:
    """Random purchases and ImgRec-FT with random weights over `n_items` pictures of 224 pixels."""
    rng = np.random.default_rng(seed)
    pictures = load_dataset("wardrobe", n_users=20, n_items=200, image_size=224, progress=False).images
    assert pictures is not None
    pixels = np.asarray(pictures.pixels)[np.arange(n_items) % len(pictures)]
    store = ImageStore(pixels, np.ones(n_items, bool), "synthetic")
    lengths = rng.integers(5, 40, n_users)
    items = np.concatenate([rng.choice(n_items, n, replace=False) for n in lengths])
    dataset = Dataset(
        name="synthetic",
        user_ids=np.array([f"user-{u}" for u in range(n_users)]),
        items=pd.DataFrame(
            {
                Columns.ITEM: [f"item-{i}" for i in range(n_items)],
                Columns.NAME: [f"Garment number {i}" for i in range(n_items)],
                Columns.CATEGORY: rng.choice(["tops", "bottoms", "shoes"], n_items),
            }
        ),
        train=Interactions.from_pairs(np.repeat(np.arange(n_users), lengths), items, n_users, n_items),
        validation=HeldOut(np.full(n_users, -1)),
        test=HeldOut(rng.integers(0, n_items, n_users)),
        images=store,
    )
    features = rng.random((n_items, 1280), dtype=np.float32)
    model = build_model("imgrec-ft", dataset.training_data(features, in_order=True), factors=factors).eval()
    record = Record(
        model="imgrec-ft", profile="default", parameters={}, phases=[{}], seed=0, dataset=DatasetRecord.of(dataset),
        features={}, identity="", title="ImgRec-FT", family="", fidelity="", requested={},
        metrics={"exact": {"auc": float("nan")}}, oracle=None, validation=Validation(float("nan"), 0, 0),
        cost=Cost(0, 0.0, None, 0.0, 0.0, 0.0, 0, 0), device="cpu", finished="",
    )  # fmt: skip
    return Synthetic(Trained(model, dataset, None, Run(Path("synthetic"), record), record.title))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", help="folder of finished runs")
    parser.add_argument("--run", default="", help="name of the run")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--changes", type=int, default=50, help="changes of user that are timed")
    options = parser.parse_args()
    runs = Runs(options.runs) if options.runs else synthetic(options.users, options.items, options.factors)
    opened = runs.open(options.run)
    state = State(run=opened.run.name)
    answer(runs, state)
    users = np.random.default_rng(0).permutation(opened.dataset.n_users)[: options.changes]
    asked = [replace(state, user=str(opened.dataset.user_ids[user])) for user in users]
    seconds = [_timed(runs, each) for each in asked]
    again = _timed(runs, asked[0])
    item = str(opened.item_ids[0])
    views = {}
    for name, each in {
        "neighbours": replace(state, view="neighbours"),
        "users": replace(state, view="users"),
        "map": replace(state, view="map", region=(0.2, 0.2, 0.8, 0.8)),
        "card": replace(state, item=item),
        "search": replace(state, search="garment number 7"),
    }.items():
        first, second = (_timed(runs, each) for _ in range(2))
        views[name] = {"first_ms": round(1e3 * first), "again_ms": round(1e3 * second)}
    print(
        json.dumps(
            {
                "run": opened.run.name,
                "users": opened.dataset.n_users,
                "items": opened.dataset.n_items,
                "change_of_user_ms": {
                    "median": round(1e3 * statistics.median(seconds), 1),
                    "largest": round(1e3 * max(seconds), 1),
                },
                "same_user_again_ms": round(1e3 * again, 1),
                "views": views,
                "page_bytes": len(answer(runs, state).html),
                "threads": torch.get_num_threads(),
                "machine": platform.machine(),
            },
            indent=2,
        )
    )


def _timed(runs: Runs, state: State) -> float:
    began = time.perf_counter()
    answer(runs, state)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
