"""Sampling of training examples: vectorised, resident on the device, exact.

Nothing here loops over samples in Python, and a negative is never one of the user's training items.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError, unknown_name

WITHOUT_REPLACEMENT = "user-without-replacement"


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

    @property
    def items(self) -> Tensor:
        """Each example's positive, then its negatives: (B, 1 + n) int64.

        A model looks both up together, so that its table gets one gradient instead of two that have to be added up.
        """
        return torch.cat([self.positives.unsqueeze(1), self.negatives], 1)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1 + n, ...) rows of `items` -> those of the positives, (B, ...), and of the negatives, (B, n, ...)."""
        return rows[:, 0], rows[:, 1:]

    def join(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([positives.unsqueeze(1), negatives], 1)


class CandidateBatch(NamedTuple):
    """Positives, and candidates that they share, from which the model is to tell each of them (`Sampler.candidates`).

    Attributes:
        users: (B,) int64.
        positives: (B,) int64, a training item of each user.
        candidates: (1, C) int64, all different.
        log_weights: (1, C) float32: the logarithm of how many items of the catalogue each candidate stands for.
        owned: (B, L) int64: places in `candidates` of the training items of each user; -1 stands for none.
        times: (B,) int64 Unix seconds of the positive interactions, or None.
    """

    users: Tensor
    positives: Tensor
    candidates: Tensor
    log_weights: Tensor
    owned: Tensor
    times: Tensor | None

    @property
    def items(self) -> Tensor:
        """(B + C,) int64: the positives, then the candidates."""
        return torch.cat([self.positives, self.candidates[0]])

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B + C, ...) rows of `items` -> those of the positives, (B, ...), and of the candidates, (1, C, ...)."""
        return rows[: len(self.users)], rows[len(self.users) :].unsqueeze(0)

    def join(self, positives: Tensor, candidates: Tensor) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([positives, candidates[0]])


class ItemBatch(NamedTuple):
    """A set of items with all that is known of them, for training whose cost lies in the items (`Sampler.item_batch`).

    Attributes:
        items: (S,) int64, all different.
        users: (P,) int64: with `places` the training interactions with these items, the positives.
        places: (P,) int64: where in `items` each positive's item is.
        positive_weights: (P,) float32: weight of each positive in the loss.
        others: (V,) int64, all different: every pair of one of them with an item is a negative if it is not owned.
        negative_weights: (V,) float32: weight of each negative of that user in the loss.
        owned_users, owned_places: (Q,) int64: which pairs of `others` and `items` (by place in each) are training
            interactions, hence no negatives.
    """

    items: Tensor
    users: Tensor
    places: Tensor
    positive_weights: Tensor
    others: Tensor
    negative_weights: Tensor
    owned_users: Tensor
    owned_places: Tensor


class BasketBatch(NamedTuple):
    """Users with what they bought, a part of it hidden: the task is to tell it from the rest (`Sampler.baskets`).

    Attributes:
        users: (B,) int64.
        items: (B, L) int64 training items of each user, ascending; -1 fills up.
        hidden: (B, L) bool: which of them are to be predicted. No -1 is hidden.
    """

    users: Tensor
    items: Tensor
    hidden: Tensor

    @property
    def shown(self) -> Tensor:
        """(B, L) bool: from which of the items the hidden ones are to be predicted."""
        return (self.items >= 0) & ~self.hidden


class ItemBasketBatch(NamedTuple):
    """Items, and who bought them with what else: the task is to tell whose they are (`Sampler.item_baskets`).

    Attributes:
        users: (B,) int64, all different: who has one of the items.
        baskets: (B, L) int64 training items of each user; -1 fills up.
        places: (B, L) int64: where in `items` each of them is; -1: it is none of these, and so may be shown.
        items: (1, S) int64, all different.
    """

    users: Tensor
    baskets: Tensor
    places: Tensor
    items: Tensor

    @property
    def shown(self) -> Tensor:
        """(B, L) bool: from which of a user's items the hidden ones are to be predicted."""
        return (self.baskets >= 0) & (self.places < 0)


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
        drawable = (self._lengths > 0) & (self._lengths < self.n_items)
        self._drawable = drawable.nonzero().squeeze(1)
        if not len(self._drawable):
            raise InputError(
                "no user has both a training item and an item to serve as negative: "
                "the training set is empty or every user owns the whole catalogue."
            )
        self._n_drawable = int(self._lengths[self._drawable].sum())
        self._is_drawable = drawable
        self._item_chances: dict[str, Tensor] = {}
        self._waiting = drawable.new_zeros(0, dtype=torch.int64)  # interactions of this epoch that no batch has had yet

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
                scripts; users weigh equally); "interaction" draws interactions uniformly;
                "user-without-replacement" draws the user uniformly, then one of those of its items that were not drawn
                since the epoch began or since they were all drawn (the UCSD code of BPR-MF and VBPR).

        Returns:
            users (size,), items (size,), times (size,) or None.
        """
        if by == "user":
            users = self._drawable[self.randint(len(self._drawable), (size,))]
            lengths = self._lengths[users]
            # 62 random bits modulo a history length: the bias is below 1e-12.
            index = self._indptr[users] + self.randint(2**62, (size,)) % lengths
        elif by == "interaction":
            index = self.randint(self._n_drawable, (size,))
            if self._n_drawable < self.n_interactions:
                index = self._drawable_interactions[index]
            users = self._owner_of(index)
        elif by == WITHOUT_REPLACEMENT:
            while len(self._waiting) < size:
                self._waiting = torch.cat([self._waiting, self._without_replacement(self.n_interactions)])
            index, self._waiting = self._waiting[:size], self._waiting[size:]
            users = self._owner_of(index)
        else:
            raise _unknown_drawing(by)
        return users, self._items[index], None if self._times is None else self._times[index]

    def _owner_of(self, index: Tensor) -> Tensor:
        """The users of interactions, (B,) int64: searched for, as a list of all is as large as the interactions."""
        return torch.searchsorted(self._indptr, index, right=True) - 1

    def start_epoch(self) -> None:
        """Begin an epoch: for draws without replacement all items are free again."""
        self._waiting = self._waiting[:0]

    def _without_replacement(self, size: int) -> Tensor:
        """Draw `size` interactions, one after the other, as `WITHOUT_REPLACEMENT` says: int64, in the order drawn.

        Each user's items are put in a new random order whenever the draws have used up the one before.
        """
        users = self._drawable[self.randint(len(self._drawable), (size,))]
        draws = torch.bincount(users, minlength=self.n_users)
        orders = -(-draws // self._lengths.clamp_min(1))
        slots = torch.repeat_interleave(torch.arange(self.n_users, device=self.device), orders * self._lengths)
        first = (orders * self._lengths).cumsum(0) - orders * self._lengths
        place = torch.arange(len(slots), device=self.device) - first[slots]
        order = place // self._lengths[slots]
        shuffled = self.randint(2**62, (len(slots),)).argsort()
        for key in (order, slots):  # sorted by user, then by order; at random within
            shuffled = shuffled[key[shuffled].argsort(stable=True)]
        items = (place % self._lengths[slots])[shuffled]
        sequence = users.argsort(stable=True)
        number = torch.arange(size, device=self.device) - (draws.cumsum(0) - draws)[users[sequence]]
        drawn = torch.empty_like(users)
        drawn[sequence] = items[first[users[sequence]] + number]
        return self._indptr[users] + drawn

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
        return (self._not_owned_on_cpu if self.device.type == "cpu" else self._not_owned)(users, rank)

    def _not_owned(self, users: Tensor, rank: Tensor) -> Tensor:
        """Of the items that (B,) users do not own, in ascending order, those of (B, n) ranks from 0."""
        first = users.unsqueeze(1) * self.n_items  # one search answers for all users
        below = torch.searchsorted(self._gaps, first + rank, right=True) - self._indptr[users].unsqueeze(1)
        return rank + below

    def _not_owned_on_cpu(self, users: Tensor, rank: Tensor) -> Tensor:
        """`_not_owned` on the CPU: a search among the items of each user alone."""
        from imgrec_lib.data import compiled

        arrays = (each.contiguous().numpy() for each in (users, rank, self._indptr, self._items))
        return torch.from_numpy(compiled.items_not_owned(*arrays))

    def triples(self, size: int, n_negatives: int = 1, by: str = "user") -> Batch:
        """Draw (user, positive, negatives): positives as in `positives`, negatives as in `negatives`."""
        users, items, times = self.positives(size, by)
        return Batch(users, items, self.negatives(users, n_negatives), times)

    def candidates(self, size: int, drawing: str, n: int = 1, by: str = "user") -> CandidateBatch:
        """Draw positives as `positives` does, and candidates that stand for the whole catalogue.

        A candidate that is drawn c times in n draws, in each with the chance q, stands for c / (n q) items of the
        catalogue. The sum over the candidates of weight * g(item) has then the expectation of the sum over the
        catalogue of g(item), for any g (over the items with q > 0).

        Args:
            size: B, how many positives.
            drawing: "all" takes the whole catalogue, each item with the weight 1. "uniform" draws items uniformly. In
                "batch" the positives are each other's candidates: q is the chance that a positive is the item, which
                follows its popularity, and n is B - 1, for a user's own positive is no candidate. Cold items are
                never drawn.
            n: draws, where these are "uniform".
            by: see `positives`.

        Raises:
            InputError: there is no such drawing, or `n` is not positive.
        """
        users, positives, times = self.positives(size, by)
        weights = torch.ones(self.n_items, device=self.device)
        if drawing == "all":
            drawn = torch.arange(self.n_items, device=self.device)
        elif drawing == "uniform":
            if n < 1:
                raise InputError(f"a sampled softmax needs at least one candidate, not {n}.")
            drawn, counts = self.randint(self.n_items, (n,)).unique(return_counts=True)
            weights = counts * (self.n_items / n)
        elif drawing == "batch":
            drawn, counts = positives.unique(return_counts=True)
            weights = counts / (max(1, size - 1) * self._chance_of_items(by)[drawn])
        else:
            raise unknown_name("drawing of candidates", drawing, ("all", "uniform", "batch"))
        place = torch.full((self.n_items,), -1, device=self.device)
        place[drawn] = torch.arange(len(drawn), device=self.device)
        return CandidateBatch(
            users, positives, drawn.unsqueeze(0), weights.float().log().unsqueeze(0), self._owned(users, place), times
        )

    def baskets(self, size: int, hidden: float = 0.5) -> BasketBatch:
        """Draw `size` users, uniformly and with replacement, and hide a random part of what each has.

        Args:
            size: B.
            hidden: the share that is hidden, on average. Of n items floor(n * hidden + r) are, with r uniform in
                [0, 1), but at least one, and of several at least one is shown.

        Raises:
            InputError: the share is not between 0 and 1.
        """
        if not 0 < hidden < 1:
            raise InputError(f"the hidden share of a user's items must be between 0 and 1, not {hidden}.")
        users = self._drawable[self.randint(len(self._drawable), (size,))]
        items = self._owned(users, torch.arange(self.n_items, device=self.device))
        lengths = self._lengths[users].unsqueeze(1)
        numbers = torch.rand(size, 1 + items.shape[1], generator=self.generator, device=self.device)
        wanted = (lengths * hidden + numbers[:, :1]).floor().clamp(min=1).minimum((lengths - 1).clamp(min=1))
        # The rank of each item's random number among those of its user; what fills up comes last.
        rank = numbers[:, 1:].masked_fill(items < 0, 2).argsort(1).argsort(1)
        return BasketBatch(users, items, rank < wanted)

    def item_baskets(self, size: int) -> ItemBasketBatch:
        """Draw items, uniformly and without replacement, with everybody who has one of them, and what else these have.

        Args:
            size: how many items; the whole catalogue if it has no more.
        """
        items = self._subset(self.n_items, size)
        buyers, _ = self._buyers(items)
        users = buyers[self._is_drawable[buyers]].unique()
        place = torch.full((self.n_items,), -1, device=self.device)
        place[items] = torch.arange(len(items), device=self.device)
        every = torch.arange(self.n_items, device=self.device)
        return ItemBasketBatch(users, self._owned(users, every), self._owned(users, place), items.unsqueeze(0))

    def _owned(self, users: Tensor, place: Tensor) -> Tensor:
        """`place` of all training items of (B,) users: (B, longest history) int64, filled up with -1."""
        lengths = self._lengths[users].unsqueeze(1)
        within = torch.arange(int(lengths.max()) if len(users) else 0, device=self.device)
        index = (self._indptr[users].unsqueeze(1) + within).clamp(max=self.n_interactions - 1)
        return torch.where(within < lengths, place[self._items[index]], -1)

    def _chance_of_items(self, by: str) -> Tensor:
        """The chance that `positives` draws each item: (n_items,) float32."""
        if by not in self._item_chances:
            each = self._chance(self._owner, by) / self._lengths[self._owner]
            chances = torch.zeros(self.n_items, device=self.device)
            self._item_chances[by] = chances.index_add_(0, self._items, each)
        return self._item_chances[by]

    def item_batch(self, n_items: int, n_negatives: int = 1, by: str = "user", n_users: int = 0) -> ItemBatch:
        """Draw items instead of interactions: each is embedded once, and all that is known of it is used.

        With `triples`, the expected loss of a model whose score of (u, i) is s(u, i) is a sum over all pairs,

            L = sum_{u, i in I_u} p(u, i) a(s(u, i)) + sum_{u, j not in I_u} q(u, j) b(s(u, j)),

        where I_u are the user's training items, N is the size of the catalogue, and a and b are the losses of a
        positive and a negative example. Let P(u) be the chance that `positives` draws u: 1 / (number of drawable users)
        by "user", |I_u| / (number of their interactions) by "interaction". The item is then uniform in I_u, the n
        negatives are uniform outside of it, and a batch's loss is the mean over the 1 + n examples of each triple:

            p(u, i) = P(u) / ((1 + n) |I_u|),    q(u, j) = n P(u) / ((1 + n) (N - |I_u|)).

        Each term belongs to one item. Draw a set S of the N items, uniformly and without replacement: every item is in
        it with the chance |S| / N. The sum over the terms of S alone, each divided by that chance (Horvitz and Thompson
        1952), has therefore the expectation L, and its gradient that of L. If the negatives are also restricted to a
        set V of the D drawable users, drawn in the same way, theirs are divided by |V| / D too. So

            positive weight = N / |S| p(u, i),    negative weight = N / |S| D / |V| q(u, j).

        This is exact for a score that depends on its own user and item. Batch statistics make a score depend on the
        rest of the batch, here as in any other mini-batch.

        Args:
            n_items: |S|; the whole catalogue if it has no more.
            n_negatives: n, negatives a positive in the loss that is estimated; the draw does not depend on it.
            by: how the positives of that loss are drawn: "user" or "interaction".
            n_users: |V|; 0 takes all drawable users.

        Returns:
            The batch. Its weights are such that the loss is the weighted sum of a over the positives plus that of b
            over the negatives.
        """
        if n_items < 1 or n_users < 0:
            raise InputError(
                f"a batch needs at least one item and no negative number of users, not {n_items}, {n_users}."
            )
        items = self._subset(self.n_items, n_items)
        others = self._drawable
        if n_users:
            others = others[self._subset(len(others), n_users)]
        users, places = self._buyers(items)
        row = torch.full((self.n_users,), -1, device=self.device)
        row[others] = torch.arange(len(others), device=self.device)
        owned = row[users] >= 0
        correction = self.n_items / len(items) / (1 + n_negatives)
        everyone = len(self._drawable) / len(others)
        free = self.n_items - self._lengths[others]
        return ItemBatch(
            items=items,
            users=users,
            places=places,
            positive_weights=correction * self._chance(users, by) / self._lengths[users],
            others=others,
            negative_weights=correction * everyone * n_negatives * self._chance(others, by) / free,
            owned_users=row[users][owned],
            owned_places=places[owned],
        )

    def _buyers(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The training interactions with items: two (P,) int64, the users, and where in (S,) `items` each item is."""
        users_by_item, indptr = self._users_by_item
        first, counts = indptr[items], indptr[items + 1] - indptr[items]
        places = torch.repeat_interleave(torch.arange(len(items), device=self.device), counts)
        within = torch.arange(len(places), device=self.device) - (counts.cumsum(0) - counts)[places]
        return users_by_item[first[places] + within], places

    def _subset(self, size: int, wanted: int) -> Tensor:
        """A uniform subset of [0, size), in random order: (min(wanted, size),) int64."""
        return torch.randperm(size, generator=self.generator, device=self.device)[:wanted]

    def _chance(self, users: Tensor, by: str) -> Tensor:
        """The chance that `positives` draws each of the given users: float32."""
        if by in ("user", WITHOUT_REPLACEMENT):
            return self._is_drawable[users] / len(self._drawable)
        if by == "interaction":
            return self._is_drawable[users] * self._lengths[users] / self._n_drawable
        raise _unknown_drawing(by)

    @cached_property
    def _owner(self) -> Tensor:
        """(n,) int64: the user of each interaction."""
        return torch.repeat_interleave(torch.arange(self.n_users, device=self.device), self._lengths)

    @cached_property
    def _drawable_interactions(self) -> Tensor:
        """(m,) int64: the interactions of users that can be drawn."""
        return self._is_drawable[self._owner].nonzero().squeeze(1)

    @cached_property
    def _gaps(self) -> Tensor:
        """For each interaction the number of items below its item that its user does not own, offset by user."""
        rank = torch.arange(len(self._owner), device=self.device) - self._indptr[self._owner]
        return self._owner * self.n_items + self._items - rank

    @cached_property
    def _users_by_item(self) -> tuple[Tensor, Tensor]:
        """The interactions' users, ordered by item, and where each item's begin: (n,) and (n_items + 1,) int64."""
        indptr = torch.zeros(self.n_items + 1, dtype=torch.int64, device=self.device)
        indptr[1:] = torch.bincount(self._items, minlength=self.n_items).cumsum(0)
        return self._owner[self._items.argsort(stable=True)], indptr


def _unknown_drawing(by: str) -> InputError:
    return InputError(f"positives are drawn by 'user', 'interaction' or {WITHOUT_REPLACEMENT!r}, not by {by!r}.")
