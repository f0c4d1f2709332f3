"""What exact evaluation costs beside the bare matrix products, stage by stage: counting, lists, their diversity.

`python benchmarks/evaluation.py --rung 1` is the size of Amazon Fashion (45,184 users, 166,270 items, 64 factors).
Every stage is a whole evaluation, timed on the same users in turn, in parts, each part at its best of all rounds: the
speed of a shared machine changes within a minute. Where others load it all the time, `--threads 1 --cpu-time` leaves
them out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from data import RUNGS, open_dataset, prepare
from ours import USERS_AT_ONCE

from imgrec_lib import ValidationAUC, evaluate
from imgrec_lib.data.dataset import HeldOut
from imgrec_lib.evaluation.ranking import BLOCK_BYTES, TILE_BYTES, TILE_ITEMS
from imgrec_lib.models.base import InnerProduct, Recommender


class Fixed(Recommender):
    """A model around a scorer, for `ValidationAUC`."""

    def __init__(self, inner: InnerProduct) -> None:
        super().__init__()
        self.inner = inner

    def scorer(self, times: torch.Tensor | None = None) -> InnerProduct:
        return self.inner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rung", choices=RUNGS, default="1/4", help="size of the generated data")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--parts", type=int, default=0, help="time only so many parts of the users (0: all)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process instead of the clock's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "imgrec-benchmarks")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    files = prepare(RUNGS[o.rung], o.cache)
    dataset, generator = open_dataset(files), torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, o.factors, generator=generator).to(o.device) for n in (files.n_users, files.n_items))
    scorer = InnerProduct(users, items)
    size = (TILE_BYTES if o.device == "cpu" else BLOCK_BYTES) // (4 * TILE_ITEMS)
    buffer = torch.empty(size * TILE_ITEMS, device=o.device)

    def bare(chosen: np.ndarray) -> None:
        for some in users[torch.from_numpy(chosen)].split(size):
            for part in items.split(TILE_ITEMS):
                shape = len(some), len(part)
                torch.mm(some, part.T, out=buffer[: shape[0] * shape[1]].view(shape))
        if o.device != "cpu":
            torch.cuda.synchronize()

    def held(chosen: np.ndarray) -> HeldOut:
        targets = np.full_like(files.test, -1)
        targets[chosen] = files.test[chosen]
        return HeldOut(targets)

    def counting(chosen: np.ndarray) -> None:
        ValidationAUC(replace(dataset, validation=held(chosen)), o.device)(Fixed(scorer))

    def lists(chosen: np.ndarray) -> None:
        evaluate(scorer, replace(dataset, test=held(chosen)), protocols=["exact"], device=o.device)

    def diversity(chosen: np.ndarray) -> None:
        evaluate(
            scorer, replace(dataset, test=held(chosen)), protocols=["exact"], device=o.device, features=files.features
        )

    stages: dict[str, Callable[[np.ndarray], None]] = {
        "bare products": bare,
        "AUC alone": counting,
        "all metrics, lists of 10 and 20": lists,
        "the same and visual diversity": diversity,
    }
    parts = np.array_split(files.test.argsort(kind="stable"), max(1, files.n_users // USERS_AT_ONCE))
    parts = parts[: o.parts or None]
    for stage in stages.values():
        stage(parts[0][:100])  # compiles the loops
    clock = time.process_time if o.cpu_time else time.perf_counter

    def timed(stage: Callable[[np.ndarray], None], part: np.ndarray) -> float:
        began = clock()
        stage(part)
        return clock() - began

    rounds = [[[timed(stage, part) for stage in stages.values()] for part in parts] for _ in range(o.repeats)]
    fastest = np.array(rounds).min(0).sum(0)
    print(
        f"{sum(map(len, parts)):,} of {files.n_users:,} users, {files.n_items:,} items, {o.factors} factors, "
        f"{o.device}, {o.threads} threads; best of {o.repeats}"
    )
    for name, seconds in zip(stages, fastest, strict=True):
        print(f"{name:34} {seconds:8.2f} s  {seconds / fastest[0]:5.2f} x")


if __name__ == "__main__":
    main()
