"""What processes that train together send a step, as the catalogue grows: rows of the batch, or whole gradients.

    python benchmarks/parallel.py

BPR-MF with 64 factors on random purchases, batches of 1,024, gloo on the loopback interface. Bytes are counted where
they are handed over, by each process; seconds depend on the machine, and on how many cores the processes have.
"""

from __future__ import annotations

import os
import socket
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


def purchases(n: int) -> TrainingData:
    """`BATCH` * `STEPS` random purchases of n users among n items: an epoch of `STEPS` steps."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, n, (BATCH * STEPS, 2)), axis=0)
    return TrainingData(Interactions.from_pairs(pairs[:, 0], pairs[:, 1], n, n))


def process(rank: int, processes: int, port: int, by_row: bool) -> None:
    """One of the processes; the first prints a line of the table for each size."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    sent = 0
    all_reduce, all_gather = dist.all_reduce, dist.all_gather

    def reducing(tensor: Tensor, **options: Any) -> Any:
        nonlocal sent
        sent += tensor.nbytes
        return all_reduce(tensor, **options)

    def gathering(parts: list[Tensor], tensor: Tensor) -> Any:
        nonlocal sent
        sent += tensor.nbytes
        return all_gather(parts, tensor)

    for name, counting in {"all_reduce": reducing, "all_gather": gathering}.items():
        setattr(dist, name, counting)
    trainer.ROWS_PER_LOOK_UP = 0 if by_row else 10**9
    with distributed.process_group("cpu") as device:
        for n in SIZES:
            data = purchases(n)
            for _ in range(2):  # the first time compiles
                model = build_model("bpr-mf", data, factors=64, batch_size=BATCH, epochs=1)
                sent, began = 0, time.perf_counter()
                fit(model, data, None, device=device, progress=False)
                seconds = time.perf_counter() - began
            if not rank:
                form = "rows of the batch" if by_row else "whole gradients"
                print(f"| {form} | {processes} | {n:,} | {sent / STEPS / 1e6:.3f} | {seconds / STEPS * 1e3:.0f} |")


if __name__ == "__main__":
    print("| sent | processes | users, items | MB a step | ms a step |\n|---|---:|---:|---:|---:|")
    for processes in (2, 4):
        for by_row in (False, True):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            torch.multiprocessing.spawn(process, (processes, port, by_row), nprocs=processes)
