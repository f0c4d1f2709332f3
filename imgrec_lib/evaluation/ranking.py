"""The ranking engine: held-out items among the catalogue, in tiles, without sorting, one pass for all protocols."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, pairwise, starmap
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import HeldOut, Interactions
from imgrec_lib.devices import Device
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import Recommender, Scorer, Sliceable
from imgrec_lib.options import Indices

BLOCK_BYTES = 16 * 2**20
"""Size of a block of scores: stays in the last-level cache between product and counting, and small enough for
the allocator to hand the same memory out again (larger blocks cost a page fault every 4 KiB)."""

TILE_ITEMS = 1024
"""Items of a block, where the scorer can score a part of the catalogue: see `Catalogue`."""

TILE_BYTES = 2 * 2**20
"""Size of such a block on a CPU, at most: 512 users by 1024 items. A product of that shape runs at the full rate, as
25 users by the whole of a large catalogue does not, and the scores are still in a near cache when they are counted."""

LAST_ITEM = 2**32 - 1
"""No item has a higher index."""

LEAST_KEY = -(2**63)
"""Lower than the key of any score: see `sort_keys`."""

GATHERED_BYTES = 1024
"""What one candidate of a list is counted as when it is scored by itself: a gathered row of 256 factors."""


class Counts(NamedTuple):
    """Counts of the held-out items, each (n,) int64: see `metrics`."""

    higher: np.ndarray
    tied: np.ndarray
    candidates: np.ndarray


@torch.no_grad()
def scorer_of(model: Recommender | Scorer, times: Indices | None = None, device: Device = "cpu") -> Scorer:
    """The scorer of a model in evaluation mode (the model's mode is restored); a scorer is returned as it is.

    Args:
        model: the model, on the device, or a scorer.
        times: (n_users,) int64 Unix seconds at which each user is served, such as `dataset.test.times`, for models that
            use time; None when unknown.
        device: where the times are put.
    """
    if not isinstance(model, nn.Module):
        return model
    training = model.training
    model.eval()
    try:
        return model.scorer(None if times is None else torch.as_tensor(times, device=device))
    finally:
        model.train(training)


@torch.no_grad()
def rank_held_out(
    scorer: Scorer,
    user_ids: np.ndarray,
    held: HeldOut,
    owned: Interactions,
    lists: Mapping[str, np.ndarray | None],
    device: torch.device | str,
    block_bytes: int,
    known: Interactions | None = None,
    length: int = 0,
) -> tuple[dict[str, Counts], np.ndarray | None]:
    """Count, for every held-out item, the candidates that score above it and as it does.

    Args:
        scorer: the scores.
        user_ids: (n_users,) original ids, for messages.
        held: the held-out items.
        owned: for each user, the items that are no candidates of `exact`, the held-out items among them.
        lists: by protocol, the (n_users, draws) candidates with -1 for none, or None for the whole catalogue.
        device: where the scorer lives.
        block_bytes: size of a block of scores.
        known: for each user, the items that are not recommended; None where no lists of recommendations are wanted,
            for which the whole catalogue is scored.
        length: length of these lists.

    Returns:
        By protocol, the counts of the held-out items, in order; the lists of their users, see `Evaluation.lists`.

    Raises:
        InputError: no user has a held-out item, or a score is not finite.
    """
    if not len(held):
        raise InputError("no user has a held-out item: split the dataset so that some items are held out.")
    users, starts, numbers = np.unique(held.users, return_index=True, return_counts=True)
    # Users in the order of their held-out items: those of a block then lie in few tiles (see `Catalogue.scan`).
    order = held.flat[starts].argsort(kind="stable")
    whole = any(drawn is None for drawn in lists.values())
    catalogue = Catalogue(scorer, owned.n_items, user_ids, device)
    widest = max((1 + drawn.shape[1] for drawn in lists.values() if drawn is not None), default=0)
    if whole and catalogue.sliceable is not None and torch.device(device).type == "cpu":
        block_bytes = min(block_bytes, TILE_BYTES)
    rows = max(1, block_bytes // (4 * catalogue.width if whole else GATHERED_BYTES * widest))
    keeper = BestOnCpu if torch.device(device).type == "cpu" else Best

    @torch.no_grad()
    def rank(chosen: np.ndarray) -> tuple[np.ndarray, dict[str, tuple[Tensor, Tensor, Tensor]], list[np.ndarray]]:
        """Of a block of users: where their held-out items stand in `held`, the counts by protocol, and the lists."""
        block = users[chosen]
        # The block's held-out items: whose each is, by place in the block, and where it stands in `held`.
        row, place = _ranges(starts[chosen], numbers[chosen])
        target = held.flat[place]
        # The candidates of a list behind the target, with which they are compared.
        drawn = {name: np.c_[target, items[block[row]]] for name, items in lists.items() if items is not None}
        counts, recommended = {}, []
        if whole:
            owner, item = owned_rows(owned, block)
            wanted_rows = np.concatenate([owner, *(row.repeat(items.shape[1]) for items in drawn.values())])
            wanted = np.concatenate([item, *(items.clip(0).ravel() for items in drawn.values())])
            best = None if known is None else keeper(catalogue, block, known, length)
            reference, above, equal, values = catalogue.scan(block, row, target, wanted_rows, wanted, best)
            recommended = [] if best is None else [best.items()]
            own, *listed = values.split([len(item), *(items.size for items in drawn.values())])
            # What a user owns, the targets among it, is compared with each of his targets and taken out again.
            owns = owned.history_lengths[block]
            compared, column = _ranges((np.cumsum(owns) - owns)[row], owns[row])
            limited, own = torch.as_tensor(compared, device=device), own[torch.as_tensor(column, device=device)]
            limit = reference[limited]
            owned_above, owned_equal, owned_all = (
                torch.bincount(part, minlength=len(row))
                for part in (limited[own > limit], limited[own == limit], limited)
            )
            exact = above - owned_above, equal - owned_equal, owned.n_items - owned_all
            counts = dict.fromkeys(lists.keys() - drawn.keys(), exact)
        else:
            index = torch.as_tensor(block[row], device=device)
            listed = []
            for items in drawn.values():
                scores = scorer.pairs(index, torch.as_tensor(items.clip(0), device=device))
                listed.append(check_finite(_of_shape(scores, items.shape), block[row], user_ids))
        for name, values in zip(drawn, listed, strict=True):
            items = torch.as_tensor(drawn[name], device=device)
            counts[name] = _count_listed(values.view(items.shape), items)
        return place, counts, recommended

    blocks = _blocks(order, numbers[order], rows)
    with at_once(catalogue, len(blocks)) as apply:
        places, counts, recommended = zip(*apply(rank, blocks), strict=True)
    back = np.concatenate(places).argsort()
    counted = {
        name: Counts(*(torch.cat(parts).cpu().numpy()[back] for parts in zip(*(c[name] for c in counts), strict=True)))
        for name in lists
    }
    best_items = list(chain.from_iterable(recommended))
    return counted, np.concatenate(best_items)[order.argsort()] if best_items else None


_threads_are_set = Lock()


@contextmanager
def at_once(catalogue: Catalogue, n_blocks: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` that works at as many blocks of users at once as PyTorch has threads, each with one.

    So all that is done to a block is shared out, not its product alone. A GPU, a single block, and a scorer that cannot
    score a part of the catalogue, which may keep something between two calls, get the plain `map`.
    """
    if torch.device(catalogue.device).type != "cpu" or catalogue.sliceable is None or n_blocks < 2:
        yield map
        return
    with _threads_are_set:
        number = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(number) as pool:
                yield pool.map
        finally:
            torch.set_num_threads(number)


def _blocks(order: np.ndarray, numbers: np.ndarray, rows: int) -> list[np.ndarray]:
    """Divide (n,) users, in order, into blocks of about so many held-out items, of which each has (n,) numbers."""
    block = (np.cumsum(numbers) - 1) // rows
    return np.split(order, np.flatnonzero(np.diff(block)) + 1)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the range, and value, of everything in (n,) ranges that begin somewhere and are so long."""
    number = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(number)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return number, starts[number] + within


class Catalogue:
    """The scores of the whole catalogue, in tiles of some users by `width` consecutive items.

    A scorer that cannot score a part of the catalogue has one tile.
    """

    def __init__(
        self,
        scorer: Scorer,
        n_items: int,
        user_ids: np.ndarray,
        device: torch.device | str,
        tile_items: int = TILE_ITEMS,
    ) -> None:
        self.scorer, self.n_items, self.user_ids, self.device = scorer, n_items, user_ids, device
        self.sliceable = scorer if isinstance(scorer, Sliceable) else None
        # Tiles of nearly equal width: a narrow last one might be computed by other code, and rounded otherwise.
        self.n_tiles = -(-n_items // tile_items) if self.sliceable is not None else 1
        self.width = -(-n_items // self.n_tiles)

    def tile(self, users: Tensor, number: int, memory: Tensor | None = None) -> Tensor:
        """Scores of B users for the items of a tile, their values unchecked; `memory` of B * width may hold them."""
        items = slice(number * self.width, min((number + 1) * self.width, self.n_items))
        shape = len(users), items.stop - items.start
        if self.sliceable is not None:
            out = None if memory is None else memory[: math.prod(shape)].view(shape)
            return _of_shape(self.sliceable.tile(users, items, out), shape)
        return _of_shape(self.scorer.block(users), shape)

    def by_tile(self, items: np.ndarray) -> tuple[np.ndarray, list[slice]]:
        """(n,) int64 order of (n,) items by tile, and which part of it is each tile's."""
        home = items // self.width
        order = home.astype(np.min_scalar_type(self.n_tiles)).argsort(kind="stable")  # fast for short integers
        ends = home[order].searchsorted(np.arange(self.n_tiles + 1)).tolist()
        return order, list(starmap(slice, pairwise(ends)))

    def scan(
        self,
        users: np.ndarray,
        owner: np.ndarray,
        target: np.ndarray,
        rows: np.ndarray,
        items: np.ndarray,
        best: Best | BestOnCpu | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compare the scores of a block of users for all items with those of some items of each.

        A target's score has to come from the same product as the scores that it is compared with: another product may
        round differently, and tied scores would no longer be equal. The tiles that hold targets are therefore computed
        beforehand and, all but the last of them, once more when their turn comes.

        Args:
            users: (B,) int64.
            owner, target: (P,) int64: places in `users`, ascending and each at least once, and an item of each.
            rows, items: (W,) int64: places in `users` and items, whose scores are wanted.
            best: takes the best items of every user, where they are wanted.

        Returns:
            (P,) scores of the targets; (P,) int64 numbers of items that score above them, and as they do (themselves
            included); (W,) wanted scores.

        Raises:
            InputError: a score is not finite.
        """
        index = torch.as_tensor(users, device=self.device)
        order, parts = self.by_tile(target)
        back, row, column = (
            torch.as_tensor(each, device=self.device) for each in (order, owner[order], target[order] % self.width)
        )
        references = []
        for kept in np.unique(target // self.width).tolist():
            kept_scores = self.tile(index, kept)
            references.append(kept_scores[row[parts[kept]], column[parts[kept]]])
        reference = torch.cat(references)
        reference = torch.empty_like(reference).index_copy_(0, back, reference)
        starts = torch.as_tensor(owner.searchsorted(np.arange(len(users) + 1)), device=self.device)
        above, equal = torch.zeros_like(back), torch.zeros_like(back)
        order, parts = self.by_tile(items)
        # Where each wanted score stands in its tile, as one number: the last tile may be narrower than the others.
        widths = np.minimum(self.width, self.n_items - items // self.width * self.width)
        spot = torch.as_tensor((rows * widths + items % self.width)[order], device=self.device)
        wanted, sums = [], reference.new_zeros(len(users))
        compare: Callable[..., None] = compare_tile
        counted: tuple[Any, ...] = starts, reference, above, equal, sums
        if index.device.type == "cpu":
            compare, counted = compare_on_cpu, tuple(each.numpy() for each in counted)  # of the same memory
        memory = kept_scores.new_empty(len(users) * self.width)
        for number, part in enumerate(parts):
            scores = kept_scores if number == kept else self.tile(index, number, memory)
            wanted.append(scores.take(spot[part]))
            if best is None:
                compare(scores, *counted)
            else:
                best.compare(number, scores, *counted)
        if not sums.isfinite().all():  # a sum is cheap and not finite if one of its scores is not
            for number in range(self.n_tiles):
                check_finite(self.tile(index, number), users, self.user_ids)
        values = torch.cat(wanted)
        values = torch.empty_like(values).index_copy_(0, torch.as_tensor(order, device=self.device), values)
        return reference, above, equal, values


class BestOnCpu:
    """The best items of a block of users, kept while the tiles of the catalogue are compared in their order."""

    def __init__(self, catalogue: Catalogue, users: np.ndarray, known: Interactions, length: int) -> None:
        self.width, self.users, self.known = catalogue.width, users, (known.indptr, known.items)
        self.lists = np.full((len(users), length), -1)
        self.values: np.ndarray | None = None

    def compare(self, number: int, scores: Tensor, *counted: np.ndarray) -> None:
        """`compare_on_cpu` the scores of the next tile, whose number it is, and keep its best items."""
        from imgrec_lib.evaluation import compiled

        rows = scores.contiguous().numpy()
        if self.values is None:
            self.values = np.full(self.lists.shape, -np.inf, rows.dtype)
        first = number * self.width
        compiled.compare_and_keep(rows, *counted, first, self.users, *self.known, self.lists, self.values)

    def items(self) -> np.ndarray:
        """(B, length) int64 items, best first; -1 past the end."""
        return self.lists


class Best:
    """The best items of a block of users, see `BestOnCpu`, by tensor operations for a GPU."""

    def __init__(self, catalogue: Catalogue, users: np.ndarray, known: Interactions, length: int) -> None:
        self.width, device = catalogue.width, catalogue.device
        row, item = owned_rows(known, users)
        order, self.parts = catalogue.by_tile(item)
        self.known = tuple(torch.as_tensor(each[order], device=device) for each in (row, item % self.width))
        self.keys = torch.full((len(users), length), LEAST_KEY, device=device)

    def compare(self, number: int, scores: Tensor, *counted: Tensor) -> None:
        compare_tile(scores, *counted)
        keys = sort_keys(scores, number * self.width)
        keys[tuple(each[self.parts[number]] for each in self.known)] = LEAST_KEY
        self.keys = torch.cat([self.keys, keys], 1).topk(self.keys.shape[1]).values

    def items(self) -> np.ndarray:
        return torch.where(self.keys == LEAST_KEY, -1, LAST_ITEM - self.keys % 2**32).cpu().numpy()


def sort_keys(scores: Tensor, first: int = 0) -> Tensor:
    """Scores of consecutive items from `first` on -> int64 that sort like them, of equal ones the lower item higher."""
    # float32 bits as integers in the same order (0.0 + -0.0 is 0.0), then the item: no two keys are equal.
    bits = (scores.float() + 0.0).view(torch.int32).long()
    items = torch.arange(first, first + scores.shape[1], device=scores.device)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) * 2**32 + (LAST_ITEM - items)


def owned_rows(owned: Interactions, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row in `users` and item of everything that these users own: two (n,) int64."""
    row, place = _ranges(owned.indptr[users], owned.history_lengths[users])
    return row, owned.items[place]


def _count_listed(values: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts over listed items, -1 for none: (B, 1 + C) items and their scores, the target first."""
    reference, values, target, items = values[:, :1], values[:, 1:], items[:, :1], items[:, 1:]
    listed, itself = items >= 0, items == target
    higher = (values > reference) & listed & ~itself
    # The item itself ties by definition, however the arithmetic of its two columns rounds.
    tied = ((values == reference) | itself) & listed
    return higher.sum(1), tied.sum(1), listed.sum(1)


def compare_tile(
    scores: Tensor, starts: Tensor, references: Tensor, above: Tensor, equal: Tensor, sums: Tensor
) -> None:
    """Compare each row of (B, n) scores with numbers of its own: see `compiled.compare`."""
    rows = scores
    if len(references) > len(scores):
        rows = scores.repeat_interleave(starts.diff(), 0)
    above += (rows > references.unsqueeze(1)).sum(1)
    equal += (rows == references.unsqueeze(1)).sum(1)
    sums += scores.sum(1)


def compare_on_cpu(scores: Tensor, *counted: np.ndarray) -> None:
    """Compare as `compare` does, in one compiled pass over the scores."""
    from imgrec_lib.evaluation import compiled

    compiled.compare(scores.contiguous().numpy(), *counted)


def _of_shape(scores: Tensor, shape: Sequence[int]) -> Tensor:
    """`scores`, after their shape was checked.

    Raises:
        ValueError: the scorer returned another shape.
    """
    if tuple(scores.shape) != tuple(shape):
        raise ValueError(f"the scorer returned scores of shape {tuple(scores.shape)}, not {tuple(shape)}")
    return scores


def check_finite(scores: Tensor, users: np.ndarray, user_ids: np.ndarray) -> Tensor:
    """`scores`, after their values were checked.

    Raises:
        InputError: a score is NaN or infinite.
    """
    # The sum of a row is cheap and not finite if one of its scores is not; only then the scores are looked at singly.
    if not scores.sum(1).isfinite().all():
        broken = ~scores.isfinite().all(1)
        if broken.any():
            user = user_ids[users[broken.cpu().numpy()].min()]
            raise InputError(
                f"the model gives user {user!s} a score that is NaN or infinite: train it again with a lower "
                "learning rate or stronger regularisation."
            )
    return scores
