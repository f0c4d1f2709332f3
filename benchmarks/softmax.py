"""What the softmax over the catalogue costs beside the matrix products that it needs: time and memory of an epoch.

    python benchmarks/softmax.py            # the catalogue of Amazon Fashion, two steps; half a minute of one core
    python benchmarks/softmax.py --full     # a whole epoch of its users; minutes of one core, a few seconds of a GPU

An epoch scores every user once for every item, and computes the gradients by users and by items. With room for all
scores these are three products of users x items x width. `log_sum_exp` has room for one tile of them, so it computes
the scores a second time for the gradients: four products. Both are measured by the same tiles, product and nothing
else; the time is the best of `--rounds`, ours and theirs in turn. The memory is what the process holds at its largest
above what it held with the inputs, their gradients included.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from imgrec_lib.models.parts import softmax

USERS, ITEMS, WIDTH = 45_184, 166_270, 64
"""Amazon Fashion, and the width of the models' default."""


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, work on the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def products(users: Tensor, items: Tensor) -> tuple[float, float]:
    """Seconds of the scores' product, and of the two products that the gradients are: the tiles' products alone."""
    rows, width = softmax.TILE_USERS, softmax.TILE_NUMBERS[users.device.type] // softmax.TILE_USERS
    scores = users.new_zeros(rows, width)
    for_users, for_items = torch.zeros_like(users), torch.zeros_like(items)
    tiles = [
        (slice(row, row + rows), slice(column, column + width))
        for row in range(0, len(users) - rows + 1, rows)
        for column in range(0, len(items) - width + 1, width)
    ]

    def forward() -> None:
        for row, column in tiles:
            torch.mm(users[row], items[column].T, out=scores)

    def backward() -> None:
        for row, column in tiles:
            for_users[row].addmm_(scores, items[column])
            for_items[column].addmm_(scores.T, users[row])

    # The tiles that are not full are left out: the time of the others stands for them.
    missing = len(users) * len(items) / (len(tiles) * rows * width)
    return missing * seconds(forward, users.device), missing * seconds(backward, users.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"all {USERS:,} users, once")
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--batch-size", type=int, default=1024, help="users of a step")
    parser.add_argument("--rounds", type=int, default=5, help="without --full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return (0.3 * torch.randn(shape, generator=generator)).to(device).requires_grad_()

    users, items, offsets = (
        random(options.batch_size, options.width),
        random(options.items, options.width),
        random(options.items),
    )
    owned = torch.randint(options.items, (options.batch_size, 8), generator=generator).to(device)
    for each in (users, items, offsets):
        each.grad = torch.zeros_like(each)
    softmax.log_sum_exp(users[:1], items[:2], offsets[:2], owned[:1] % 2).sum().backward()  # what is loaded once
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**10

    def step() -> None:
        softmax.log_sum_exp(users, items, offsets, owned).mean().backward()

    steps = -(-USERS // options.batch_size)
    ours, scores, gradients = [], [], []
    for _ in range(steps if options.full else options.rounds):
        ours.append(seconds(step, device))
        forward, backward = products(users.detach(), items.detach())
        scores.append(forward)
        gradients.append(backward)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    summary: Callable[[list[float]], float] = sum if options.full else (lambda times: steps * min(times))
    total, forward, backward = (summary(times) for times in (ours, scores, gradients))
    print(
        f"{USERS:,} users in steps of {options.batch_size:,}, {options.items:,} items, width {options.width}, "
        f"{options.threads} threads, {device}{'' if options.full else ', from the best step'}:\n"
        f"an epoch takes {total:.1f} s; three bare products {forward + backward:.1f} s (ratio "
        f"{total / (forward + backward):.2f}), four {2 * forward + backward:.1f} s (ratio "
        f"{total / (2 * forward + backward):.2f}); memory grew by {added:.2f} GiB"
        + (
            f", on the device to {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
            if device.type == "cuda"
            else ""
        )
    )


if __name__ == "__main__":
    main()
