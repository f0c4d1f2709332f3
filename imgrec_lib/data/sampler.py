"""Sampling of training examples: vectorised, resident on the device, exact.

Nothing here loops over samples in Python, and a negative is never one of the user's training items.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError


class Batch(NamedTuple):
    """Training examples.

    Attributes:
        users: (B,) int64.
        positives: (B,) int64, a training item of each user.
        negatives: (B, n) int64.
        times: (B,) int64 Unix seconds of the positive interactions, or None.
    """

    users: Tensor
    positives: Tensor
    negatives: Tensor
    times: Tensor | None


class Sampler:
    """Draws batches from the training interactions.

    Users without a training item, and users whose training items are the whole catalogue (no negative exists for
    them), are never drawn by `users`.

    Args:
        data: the training data.
        seed: seeds the random stream; with the same seed the same batches follow on every CPU.
        device: where the index arrays and the batches live.

    Raises:
        InputError: no user can be drawn.
    """

    def __init__(self, data: TrainingData, seed: int, device: torch.device | str = "cpu") -> None:
        interactions = data.interactions
        self.n_users, self.n_items = data.n_users, data.n_items
        self.device = torch.device(device)
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self._indptr = torch.as_tensor(interactions.indptr, device=self.device)
        self._items = torch.as_tensor(interactions.items, device=self.device)
        self._times = None if interactions.times is None else torch.as_tensor(interactions.times, device=self.device)
        self._lengths = self._indptr.diff()
        owner = torch.repeat_interleave(torch.arange(self.n_users, device=self.device), self._lengths)
        self._owner = owner
        # Sorted membership keys, and for each training item the number of non-training items below it, offset by user:
        # one binary search each answers "is i an item of u" and "which is u's r-th non-item".
        self._keys = owner * self.n_items + self._items
        rank = torch.arange(len(owner), device=self.device) - self._indptr[owner]
        self._gaps = owner * self.n_items + self._items - rank
        drawable = (self._lengths > 0) & (self._lengths < self.n_items)
        self._drawable = drawable.nonzero().squeeze(1)
        if not len(self._drawable):
            raise InputError(
                "no user has both a training item and an item to serve as negative: "
                "the training set is empty or every user owns the whole catalogue."
            )
        self._drawable_interactions = drawable[owner].nonzero().squeeze(1)

    @property
    def n_interactions(self) -> int:
        """Number of training interactions: one epoch draws as many positives."""
        return len(self._items)

    def randint(self, high: int, size: tuple[int, ...]) -> Tensor:
        """Uniform integers in [0, high): int64 of shape `size`."""
        return torch.randint(high, size, generator=self.generator, device=self.device)

    def positives(self, size: int, by: str = "user") -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw `size` training interactions, with replacement.

        Args:
            size: how many.
            by: "user" draws the user uniformly, then one of its items uniformly (the UCSD lineage and ImgRec's
                scripts; users weigh equally); "interaction" draws interactions uniformly.

        Returns:
            users (size,), items (size,), times (size,) or None.
        """
        if by == "user":
            users = self._drawable[self.randint(len(self._drawable), (size,))]
            lengths = self._lengths[users]
            # 62 random bits modulo a history length: the bias is below 1e-12.
            index = self._indptr[users] + self.randint(2**62, (size,)) % lengths
        elif by == "interaction":
            index = self._drawable_interactions[self.randint(len(self._drawable_interactions), (size,))]
            users = self._owner[index]
        else:
            raise InputError(f"positives are drawn by 'user' or by 'interaction', not by {by!r}.")
        return users, self._items[index], None if self._times is None else self._times[index]

    def negatives(self, users: Tensor, n: int) -> Tensor:
        """Draw `n` items for each user, uniformly among the items that are not its training items.

        Exact and without rejection: the r-th such item is found by one binary search. Held-out items are unknown
        here, so they may be drawn, as in the papers.

        Args:
            users: (B,) int64, each owning less than the whole catalogue.
            n: negatives a user.

        Returns:
            (B, n) int64.
        """
        free = (self.n_items - self._lengths[users]).unsqueeze(1)
        rank = self.randint(2**62, (len(users), n)) % free
        first = users.unsqueeze(1) * self.n_items
        below = torch.searchsorted(self._gaps, first + rank, right=True) - self._indptr[users].unsqueeze(1)
        return rank + below

    def is_training_item(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each item is a training item of its user: bool, in the broadcast shape of `users` and `items`."""
        keys = users * self.n_items + items
        if not len(self._keys):
            return torch.zeros_like(keys, dtype=torch.bool)
        at = torch.searchsorted(self._keys, keys).clamp_max(len(self._keys) - 1)
        return self._keys[at] == keys

    def triples(self, size: int, n_negatives: int = 1, by: str = "user") -> Batch:
        """Draw (user, positive, negatives): positives as in `positives`, negatives as in `negatives`."""
        users, items, times = self.positives(size, by)
        return Batch(users, items, self.negatives(users, n_negatives), times)
