"""Cross-entropy over a catalogue, in tiles: memory is that of a tile, however large the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_USERS = 512
"""Users of a tile, at most."""

TILE_NUMBERS = {"cpu": 2**18, "cuda": 2**26}
"""Scores of a tile, by type of device: on a CPU 1 MiB, which stays in a near cache between product and exponential."""


def softmax_cross_entropy(
    positive: Tensor, users: Tensor, candidates: Tensor, offsets: Tensor, excluded: Tensor
) -> Tensor:
    """The mean of -ln(exp(s_b) / (exp(s_b) + sum over the candidates c that b does not exclude of exp(s_bc))).

    This is the cross-entropy of a softmax over the positive and the candidates, where s_bc = <users[b], candidates[c]>
    + offsets[c]. With all items as candidates, and those excluded that the user owns, it is the softmax over the
    catalogue. With a sample of them, offsets that hold the logarithm of how many items each stands for make the sum an
    unbiased estimate of that over the catalogue (Bengio and Senécal 2008, Adaptive Importance Sampling to Accelerate
    Training of a Neural Probabilistic Language Model; Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for
    Large Corpus Item Recommendations); the loss itself, a logarithm, tends to the full one as the sample grows.

    Args:
        positive: (B,) scores s_b.
        users: (B, k).
        candidates: (C, k).
        offsets: (C,).
        excluded: (B, L) int64 places in `candidates` that do not count for that user; -1 stands for none.

    Returns:
        Scalar.

    Raises:
        ValueError: the shapes do not fit.
    """
    if positive.shape != users.shape[:1]:
        raise ValueError(f"{tuple(positive.shape)} scores of positives do not fit users of shape {tuple(users.shape)}")
    return F.softplus(log_sum_exp(users, candidates, offsets, excluded) - positive).mean()


def log_sum_exp(users: Tensor, items: Tensor, offsets: Tensor, excluded: Tensor) -> Tensor:
    """ln of the sum over items i of exp(<users[b], items[i]> + offsets[i]), by tiles of users and items.

    No more scores are held than those of a tile: the backward pass computes them a second time. So a step takes four
    products of users x items x k, where three would do if all scores could be kept.

    Args:
        users: (B, k) floating point.
        items: (n, k).
        offsets: (n,).
        excluded: (B, L) int64: of each user, indices of items that are left out of its sum; -1 stands for none.

    Returns:
        (B,), at least in single precision; minus infinity where all items are left out.

    Raises:
        ValueError: the shapes do not fit.
    """
    shapes = [tuple(each.shape) for each in (users, items, offsets, excluded)]
    if [len(shape) for shape in shapes] != [2, 2, 1, 2] or (
        (users.shape[1], len(items), len(users)) != (items.shape[1], len(offsets), len(excluded))
    ):
        raise ValueError(f"users, items, offsets and exclusions have shapes {shapes}, which do not fit")
    # Mixed precision may hand over bfloat16, of whose 8 significant bits a sum of many thousand terms keeps few.
    dtype = torch.promote_types(torch.promote_types(users.dtype, items.dtype), torch.float32)
    result: Tensor = _LogSumExp.apply(users.to(dtype), items.to(dtype), offsets.to(dtype), excluded)
    return result


class _LogSumExp(torch.autograd.Function):
    """See `log_sum_exp`. With p_bi = exp(s_bi - result_b), the gradient is p_bi of each score s_bi."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, offsets: Tensor, excluded: Tensor) -> Tensor:
        tiles = _Tiles(items, offsets)
        result = torch.empty_like(users[:, 0])
        for rows in _slices(len(users), TILE_USERS):
            part = users[rows], excluded[rows]
            # Any number near the largest score will do. That of the first tile nearly always is near enough.
            _, scores = next(tiles.scores(*part, torch.zeros_like(result[rows])))
            shift = _finite(scores.amax(1))
            total = tiles.sums(*part, shift)
            if not ((total > 0) & total.isfinite()).all():
                largest = torch.stack([s.amax(1) for _, s in tiles.scores(*part, torch.zeros_like(shift))])
                shift = _finite(largest.amax(0))
                total = tiles.sums(*part, shift)
            result[rows] = shift + total.log()
        ctx.save_for_backward(users, items, offsets, excluded, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        users, items, offsets, excluded, result = ctx.saved_tensors
        tiles = _Tiles(items, offsets)
        # A user without any item has the result minus infinity and the gradient zero.
        shift = torch.where(result == -torch.inf, torch.inf, result)
        for_users, for_items, for_offsets = torch.zeros_like(users), torch.zeros_like(items), torch.zeros_like(offsets)
        for rows in _slices(len(users), TILE_USERS):
            weighted = users[rows] * gradient[rows].unsqueeze(1)
            for columns, scores in tiles.scores(users[rows], excluded[rows], shift[rows]):
                chances = scores.exp_()
                for_users[rows].addmm_(chances, items[columns])
                for_items[columns].addmm_(chances.T, weighted)
                for_offsets[columns].addmv_(chances.T, gradient[rows])
        for_users *= gradient.unsqueeze(1)
        return for_users, for_items, for_offsets, None


class _Tiles:
    """Scores of users for items, some users and items at a time, in the same memory."""

    def __init__(self, items: Tensor, offsets: Tensor) -> None:
        self.items, self.offsets = items, offsets.unsqueeze(1)
        numbers = TILE_NUMBERS.get(items.device.type, TILE_NUMBERS["cuda"])
        self.width = max(1, min(len(items), numbers // TILE_USERS))
        self.extended = items.new_ones(self.width, items.shape[1] + 2)
        self.memory = items.new_empty(TILE_USERS * self.width)

    def scores(self, users: Tensor, excluded: Tensor, shift: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Tile by tile: which items, and (B, n) scores less the user's `shift`, minus infinity where excluded."""
        # Offsets and shift take part in the product, which spares two passes over the scores.
        extended = torch.cat([users, torch.ones_like(users[:, :1]), -shift.unsqueeze(1)], 1)
        rows, left_out = _by_item(excluded)
        starts = torch.arange(0, len(self.items) + self.width, self.width, device=users.device)
        ends = torch.searchsorted(left_out, starts).tolist()
        for number, columns in enumerate(_slices(len(self.items), self.width)):
            n = columns.stop - columns.start
            torch.cat([self.items[columns], self.offsets[columns]], 1, out=self.extended[:n, :-1])
            scores = torch.mm(extended, self.extended[:n].T, out=self.memory[: len(users) * n].view(-1, n))
            here = slice(ends[number], ends[number + 1])
            scores[rows[here], left_out[here] - columns.start] = -torch.inf
            yield columns, scores

    def sums(self, users: Tensor, excluded: Tensor, shift: Tensor) -> Tensor:
        """(B,) sums over the items of exp(score - shift)."""
        total = torch.zeros_like(shift)
        for _, scores in self.scores(users, excluded, shift):
            total += scores.exp_().sum(1)
        return total


def _slices(length: int, width: int) -> Iterator[slice]:
    return (slice(start, min(start + width, length)) for start in range(0, length, width))


def _by_item(excluded: Tensor) -> tuple[Tensor, Tensor]:
    """The exclusions as pairs, ordered by item: (m,) int64 rows and items."""
    rows, places = (excluded >= 0).nonzero(as_tuple=True)
    items, order = excluded[rows, places].sort()
    return rows[order], items


def _finite(shift: Tensor) -> Tensor:
    """A user of whom a tile has no score is not shifted."""
    return torch.where(shift == -torch.inf, 0, shift)
