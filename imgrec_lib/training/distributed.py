"""Data parallel training: several processes, started by torchrun, take their shares of every batch.

    torchrun --nproc-per-node 2 --no-python imgrec train --no-notebook --model imgrec-ft --out runs/ft-0

Every process holds the whole model, or some rows of its tables (`training.shards`), and draws the same batch from the
same seed; it computes the loss on its own part (`Recommender.shard`), and the gradients are summed: of tables that are
trained by row (`training.rows`) the rows of the batch alone are sent, of everything else the whole gradient. The
learning curve is therefore that of one process within rounding, whatever the number of processes, and a checkpoint of
one goes on in several. The first process alone validates and writes files; on several machines the run's folder must
lie on a file system that all of them see.

Gradients are summed after the backward pass instead of by `DistributedDataParallel`, which also copies a model's
buffers between processes (here the features of the catalogue), and stops at parameters that a phase does not train.
As there, a batch norm in training mode uses the statistics of its process's part of a batch, and the first process's
moving averages are kept: such a model (ImgRec-EtE in its second phase) agrees with one process only in expectation.
Without torchrun there is one process, and every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from imgrec_lib.errors import InputError, one_line


def launched() -> bool:
    """Whether torchrun (or what sets the same variables) started several processes, and this is one of them."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


@contextmanager
def process_group(device: torch.device | str) -> Iterator[str]:
    """Join the processes that torchrun started, for as long as the context lasts.

    Args:
        device: "cpu" (which communicates through gloo) or "cuda" (NCCL).

    Yields:
        The device of this process: on GPUs, the one of its local rank. Without torchrun, `device` as it is.

    Raises:
        InputError: there is no such device, this build of PyTorch cannot communicate, the device is another one, or
            there are fewer GPUs than processes.
    """
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} does not exist ({one_line(error)}): use 'cpu' or 'cuda'.") from None
    if not launched():
        yield str(device)
        return
    if not dist.is_available() or (device.type == "cuda" and not dist.is_nccl_available()):
        raise InputError("this build of PyTorch has no torch.distributed: train without torchrun.")
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise InputError(f"under torchrun the device is 'cpu' or 'cuda', one GPU a process, not '{device}'.")
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started more processes than the {torch.cuda.device_count()} GPUs here: "
                "lower --nproc-per-node."
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # The first process validates and tests while the others wait. torchrun ends them all if one fails.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=1))
    try:
        yield str(device)
    finally:
        dist.destroy_process_group()


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def rank() -> int:
    """The number of this process, from 0."""
    return 0 if _alone() else dist.get_rank()


def world_size() -> int:
    """How many processes train together."""
    return 1 if _alone() else dist.get_world_size()


def barrier() -> None:
    """Wait until every process has come here."""
    if not _alone():
        dist.barrier()


def spread(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of the first process, in place."""
    if not _alone():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def agreed(value: float, device: torch.device) -> float:
    """The first process's number."""
    if _alone():
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(tensor, src=0)
    return tensor.item()


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their sum over the processes, in place."""
    if not _alone():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def add_up_gradients(parameters: Iterable[nn.Parameter], tables: Sequence[nn.Parameter] = ()) -> None:
    """Replace gradients by their sum over the processes; a parameter that this process did not use counts as 0.

    Args:
        parameters: all that is trained.
        tables: those of them whose gradients hold some of their rows (`training.rows`). Of these, the rows alone
            are sent: the bytes of a step follow the batch, and not the catalogue. Their gradients come out with the
            rows of all processes, one process behind the other, so that every process adds up in the same order.
    """
    if _alone():
        return
    by_row = {id(table) for table in tables}
    whole = [parameter for parameter in parameters if id(parameter) not in by_row]
    for parameter in whole:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    add_up(p.grad for p in whole if p.grad is not None)
    for table in tables:
        table.grad = _gathered(table)


def _gathered(table: nn.Parameter) -> Tensor:
    """The rows of a table's gradient in all processes: a sparse tensor of the table's shape."""
    if table.grad is None:
        index, values = torch.zeros(0, dtype=torch.int64), table.detach().new_zeros(0, *table.shape[1:])
    else:
        gradient = table.grad.coalesce()  # each row is sent once
        index, values = gradient.indices()[0], gradient.values()
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(index)]))
    longest = int(max(counts))

    def from_all(tensor: Tensor) -> Tensor:
        filled = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
        parts = [torch.empty_like(filled) for _ in counts]
        dist.all_gather(parts, filled)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    return torch.sparse_coo_tensor(from_all(index).unsqueeze(0), from_all(values), table.shape, check_invariants=False)
