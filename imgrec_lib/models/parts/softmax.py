"""Cross-entropy over a catalogue, in tiles: memory is that of a tile, however large the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_USERS = 512
"""Users of a tile, at most."""

TILE_NUMBERS = {"cpu": 2**18, "cuda": 2**26}
"""Scores of a tile, by type of device: on a CPU 1 MiB, which stays in a near cache between product and exponential."""


def softmax_cross_entropy(
    positive: Tensor, owners: Tensor, users: Tensor, candidates: Tensor, offsets: Tensor, excluded: Tensor
) -> Tensor:
    """The mean of -ln(exp(s_p) / (exp(s_p) + sum over the candidates c that b does not exclude of exp(s_bc))).

    This is the cross-entropy of a softmax over the positive p of user b and the candidates, where s_bc =
    <users[b], candidates[c]> + offsets[c]; the sum is computed once for each user. With all items as candidates, and
    those excluded that the user owns, it is the softmax over the catalogue. With a sample of them, offsets that hold
    the logarithm of how many items each stands for make the sum an unbiased estimate of that over the catalogue (Bengio
    and Senécal 2008, Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language Model; Yi
    et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations); the loss itself, a
    logarithm, tends to the full one as the sample grows.

    Args:
        positive: (P,) scores s_p.
        owners: (P,) int64: whose positives they are, by row of `users`.
        users: (B, k).
        candidates: (C, k).
        offsets: (C,).
        excluded: (B, L) int64 places in `candidates` that do not count for that user; -1 stands for none.

    Returns:
        Scalar.

    Raises:
        ValueError: the shapes do not fit.
    """
    if positive.ndim != 1 or positive.shape != owners.shape:
        raise ValueError(
            f"{tuple(positive.shape)} scores of positives do not fit owners of shape {tuple(owners.shape)}"
        )
    return F.softplus(log_sum_exp(users, candidates, offsets, excluded)[owners] - positive).mean()


class Entries(NamedTuple):
    """Numbers for some pairs of users and items; those of the same pair add up.

    Attributes:
        rows: (m,) int64 places of users in a batch.
        items: (m,) int64.
        values: (m,).
    """

    rows: Tensor
    items: Tensor
    values: Tensor


def log_sum_exp(
    users: Tensor, items: Tensor, offsets: Tensor, excluded: Tensor, added: Entries | None = None
) -> Tensor:
    """ln of the sum over items i of exp(<users[b], items[i]> + offsets[i] + added[b, i]), by tiles of users and items.

    No more scores are held than those of a tile: the backward pass computes them a second time. So a step takes four
    products of users x items x k, where three would do if all scores could be kept.

    Args:
        users: (B, k) floating point.
        items: (n, k).
        offsets: (n,).
        excluded: (B, L) int64: of each user, indices of items that are left out of its sum; -1 stands for none.
        added: what some scores have besides; 0 for all others.

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
    rows, places = (excluded >= 0).nonzero(as_tuple=True)
    entries = Entries(rows, excluded[rows, places], torch.full_like(rows, -torch.inf, dtype=dtype))
    if added is not None:
        entries = Entries(*(torch.cat(both) for both in zip(entries, added, strict=True)))
    # Tiles take their entries from consecutive places.
    order = (entries.rows // TILE_USERS * len(items) + entries.items).argsort(stable=True)
    result: Tensor = _LogSumExp.apply(
        users.to(dtype),
        items.to(dtype),
        offsets.to(dtype),
        entries.rows[order],
        entries.items[order],
        entries.values.to(dtype)[order],
    )
    return result


class _LogSumExp(torch.autograd.Function):
    """See `log_sum_exp`. With p_bi = exp(s_bi - result_b), the gradient is p_bi of each score s_bi."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, offsets: Tensor, *entries: Tensor) -> Tensor:
        tiles = _Tiles(items, offsets, Entries(*entries))
        result = torch.empty_like(users[:, 0])
        for rows in _slices(len(users), TILE_USERS):
            part = users[rows]
            # Any number near the largest score will do. That of the first tile nearly always is near enough.
            _, scores, _ = next(tiles.scores(rows.start, part, torch.zeros_like(result[rows])))
            shift = _finite(scores.amax(1))
            total = tiles.sums(rows.start, part, shift)
            if not ((total > 0) & total.isfinite()).all():
                largest = [s.amax(1) for _, s, _ in tiles.scores(rows.start, part, torch.zeros_like(shift))]
                shift = _finite(torch.stack(largest).amax(0))
                total = tiles.sums(rows.start, part, shift)
            result[rows] = shift + total.log()
        ctx.save_for_backward(users, items, offsets, *entries, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        users, items, offsets, *entries, result = ctx.saved_tensors
        tiles = _Tiles(items, offsets, Entries(*entries))
        # A user without any item has the result minus infinity and the gradient zero.
        shift = torch.where(result == -torch.inf, torch.inf, result)
        for_users, for_items, for_offsets = torch.zeros_like(users), torch.zeros_like(items), torch.zeros_like(offsets)
        for_values = torch.zeros_like(tiles.entries.values)
        for rows in _slices(len(users), TILE_USERS):
            weighted = users[rows] * gradient[rows].unsqueeze(1)
            for columns, scores, here in tiles.scores(rows.start, users[rows], shift[rows]):
                chances = scores.exp_()
                for_users[rows].addmm_(chances, items[columns])
                for_items[columns].addmm_(chances.T, weighted)
                for_offsets[columns].addmv_(chances.T, gradient[rows])
                which, places, _ = (each[here] for each in tiles.entries)
                for_values[here] = chances[which - rows.start, places - columns.start] * gradient[which]
        for_users *= gradient.unsqueeze(1)
        return for_users, for_items, for_offsets, None, None, for_values


class _Tiles:
    """Scores of users for items, some users and items at a time, in the same memory.

    Args:
        items, offsets: see `log_sum_exp`.
        entries: what is added to single scores, minus infinity included, in the order of the tiles.
    """

    def __init__(self, items: Tensor, offsets: Tensor, entries: Entries) -> None:
        self.items, self.offsets, self.entries = items, offsets.unsqueeze(1), entries
        self.keys = entries.rows // TILE_USERS * len(items) + entries.items
        numbers = TILE_NUMBERS.get(items.device.type, TILE_NUMBERS["cuda"])
        self.width = max(1, min(len(items), numbers // TILE_USERS))
        self.extended = items.new_ones(self.width, items.shape[1] + 2)
        self.memory = items.new_empty(TILE_USERS * self.width)

    def scores(self, start: int, users: Tensor, shift: Tensor) -> Iterator[tuple[slice, Tensor, slice]]:
        """Tile by tile: which items, (B, n) scores less the user's `shift`, and which entries are among them.

        `start` is the first user's place in the batch.
        """
        # Offsets and shift take part in the product, which spares two passes over the scores.
        extended = torch.cat([users, torch.ones_like(users[:, :1]), -shift.unsqueeze(1)], 1)
        borders = [columns.start for columns in _slices(len(self.items), self.width)] + [len(self.items)]
        first = start // TILE_USERS * len(self.items)
        ends = torch.searchsorted(self.keys, first + torch.tensor(borders, device=users.device)).tolist()
        for number, columns in enumerate(_slices(len(self.items), self.width)):
            n, here = columns.stop - columns.start, slice(ends[number], ends[number + 1])
            torch.cat([self.items[columns], self.offsets[columns]], 1, out=self.extended[:n, :-1])
            scores = torch.mm(extended, self.extended[:n].T, out=self.memory[: len(users) * n].view(-1, n))
            rows, places, values = (each[here] for each in self.entries)
            scores.index_put_((rows - start, places - columns.start), values, accumulate=True)
            yield columns, scores, here

    def sums(self, start: int, users: Tensor, shift: Tensor) -> Tensor:
        """(B,) sums over the items of exp(score - shift)."""
        total = torch.zeros_like(shift)
        for _, scores, _ in self.scores(start, users, shift):
            total += scores.exp_().sum(1)
        return total


def _slices(length: int, width: int) -> Iterator[slice]:
    return (slice(start, min(start + width, length)) for start in range(0, length, width))


def _finite(shift: Tensor) -> Tensor:
    """A user of whom a tile has no score is not shifted."""
    return torch.where(shift == -torch.inf, 0, shift)
