"""What processes that train together send a step and hold, as the catalogue grows.

    python benchmarks/parallel.py            # whole gradients, rows of the batch, and divided tables
    python benchmarks/parallel.py divided    # one of the three

BPR-MF with 64 factors on random purchases, batches of 1,024, gloo on the loopback interface. Bytes are counted where
they are handed over, by each process; those that it holds are of weights and Adam's moments. Seconds depend on the
machine, and on how many cores the processes have.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.models import build_model
from imgrec_lib.training import distributed, fit, trainer

BATCH, STEPS = 1024, 20
SIZES = (20_000, 80_000, 320_000)
FORMS = {"whole": "whole gradients", "rows": "rows of the batch", "divided": "divided tables"}


def purchases(n: int) -> TrainingData:
    """`BATCH` * `STEPS` random purchases of n users among n items: an epoch of `STEPS` steps."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, n, (BATCH * STEPS, 2)), axis=0)
    return TrainingData(Interactions.from_pairs(pairs[:, 0], pairs[:, 1], n, n))


def process(rank: int, processes: int, port: int, form: str) -> None:
    """One of the processes; the last, which ends with its own rows, prints a line of the table for each size."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    sent = 0
    all_reduce, all_gather, all_to_all = dist.all_reduce, dist.all_gather, dist.all_to_all_single
    optimisers: list[torch.optim.Optimizer] = []
    build_optimiser = trainer._optimiser

    def reducing(tensor: Tensor, **options: Any) -> Any:
        nonlocal sent
        sent += tensor.nbytes
        return all_reduce(tensor, **options)

    def gathering(parts: list[Tensor], tensor: Tensor) -> Any:
        nonlocal sent
        sent += tensor.nbytes
        return all_gather(parts, tensor)

    def exchanging(found: Tensor, tensor: Tensor, received: list[int], given: list[int]) -> Any:
        nonlocal sent
        sent += tensor.nbytes - tensor[: given[rank]].nbytes  # less what it keeps
        return all_to_all(found, tensor, received, given)

    def building(*arguments: Any) -> torch.optim.Optimizer:
        optimisers.append(build_optimiser(*arguments))
        return optimisers[-1]

    for name, counting in {"all_reduce": reducing, "all_gather": gathering, "all_to_all_single": exchanging}.items():
        setattr(dist, name, counting)
    trainer._optimiser = building  # type: ignore[assignment]
    trainer.ROWS_PER_LOOK_UP = 10**9 if form == "whole" else 0
    with distributed.process_group("cpu") as device:
        for n in SIZES:
            data = purchases(n)
            for _ in range(2):  # the first time compiles
                settings: dict[str, Any] = {"batch_size": BATCH, "epochs": 1, "shard_tables": form == "divided"}
                model = build_model("bpr-mf", data, factors=64, **settings)
                sent, began = 0, time.perf_counter()
                fit(model, data, None, device=device, progress=False)
                seconds = time.perf_counter() - began
            if rank == processes - 1:
                tensors = [each for entry in optimisers[-1].state.values() for each in entry.values()]
                held = sum(each.nbytes for each in (*model.parameters(), *tensors))
                print(
                    f"| {FORMS[form]} | {processes} | {n:,} | {sent / STEPS / 1e6:.3f} | {seconds / STEPS * 1e3:.0f} | "
                    f"{held / 1e6:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    print("| sent | processes | users, items | MB a step | ms a step | MB held |\n|---|---:|---:|---:|---:|---:|")
    for form in sys.argv[1:] or FORMS:
        for processes in (2, 4):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            torch.multiprocessing.spawn(process, (processes, port, form), nprocs=processes)
