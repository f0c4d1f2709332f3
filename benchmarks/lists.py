"""How long everybody's list takes, by step: vectors to 10 of 33,000 items for each of 180,000 users, and the files.

    OMP_NUM_THREADS=2 python benchmarks/lists.py
    OMP_NUM_THREADS=2 python benchmarks/lists.py --users 18000 --repeats 5

BPR-MF with 64 random factors on random purchases: what is timed does not depend on what was learnt. The answer holds
the seconds of each repetition, those of the bare products of that shape in the same minutes, and the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from imgrec_lib import build_model
from imgrec_lib.data.dataset import Columns, Dataset, HeldOut, Interactions
from imgrec_lib.serving import Trained
from imgrec_lib.serving.ids import write_table

PURCHASES = 8
"""Of each user."""

TOGETHER = 64
"""Users of each of the bare products."""


def random_model(users: int, items: int, factors: int) -> Trained:
    """BPR-MF as it is before training, on random purchases."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(users), PURCHASES)
    pairs = np.unique(np.c_[who, rng.integers(items, size=len(who))], axis=0)
    train = Interactions.from_pairs(pairs[:, 0], pairs[:, 1], users, items)
    ids = np.array([f"{item:010d}" for item in range(items)])
    table = pd.DataFrame({Columns.ITEM: ids, Columns.NAME: [f"garment number {item}" for item in range(items)]})
    nobody = HeldOut(np.full(users, -1))
    dataset = Dataset("random", np.array([f"u{user}" for user in range(users)]), table, train, nobody, nobody)
    model = build_model("bpr-mf", dataset.training_data(), factors=factors).eval()
    return Trained(model, dataset, None, None, "BPR-MF")


def seconds(of: Callable[[], object], repeats: int) -> dict[str, list[float]]:
    """Seconds that passed, and those of the processor in all threads; of the same repetitions, the fastest first."""
    found = []
    for _ in range(repeats):
        began, spent = time.perf_counter(), time.process_time()
        of()
        found.append((round(time.perf_counter() - began, 2), round(time.process_time() - spent, 2)))
    passed, processor = zip(*sorted(found), strict=True)
    return {"passed": list(passed), "processor": list(processor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=180_000)
    parser.add_argument("--items", type=int, default=33_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    trained = random_model(options.users, options.items, options.factors)
    few = trained.dataset.user_ids[:100]
    trained.recommend(few, options.k)  # what is made once, the compiled loop included
    left, right = torch.randn(options.users, options.factors), torch.randn(options.items, options.factors)
    memory = torch.empty(TOGETHER, options.items)

    def products() -> None:
        for rows in left.split(TOGETHER):
            torch.mm(rows, right.T, out=memory[: len(rows)])

    bare = seconds(products, options.repeats)
    lists = seconds(lambda: trained.recommend(k=options.k), options.repeats)
    table = trained.recommend(k=options.k)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            ending: seconds(lambda to=Path(folder) / f"lists.{ending}": write_table(table, to), options.repeats)  # type: ignore[misc]
            for ending in ("parquet", "csv", "jsonl")
        }
    answer = {
        "users": options.users,
        "items": options.items,
        "rows": len(table),
        "lists_s": lists,
        "files_s": files,
        "bare_products_s": bare,
        "threads": torch.get_num_threads(),
        "load_of_the_machine": os.getloadavg()[0],
    }
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
