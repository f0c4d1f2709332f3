"""VisRank: recommend what looks like the user's purchases. Nothing is learned."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Recommender, Scorer
from imgrec_lib.models.parts.purchases import BasketSum
from imgrec_lib.models.parts.visual import shared_features

REMEMBERED = 2**27
"""A scorer remembers at most so many similarities, 512 MB: all of them for catalogues of up to 11,585 items."""

SIMILARITIES = 2**24
"""How many similarities are computed at once, 64 MB; in a catalogue so large that these would be fewer than `MANY_ROWS`
rows, as many as fill that many rows."""

MANY_ROWS = 64
"""From so many purchases on, it pays to read the catalogue's features for one product with all of them."""


class NearestPurchase:
    """s(u, i) = the largest <queries[j], candidates[i]> over u's training items j; 0 for a user without any.

    The products are nearly all of the cost, and many users have bought the same items: where memory allows, each
    item's are computed once and remembered.

    Args:
        queries: (n_items, k) float32.
        candidates: (n_items, k) float32, or more rows: those of items that nobody has bought.
        indptr, items: the training interactions in compressed sparse rows.
    """

    def __init__(self, queries: Tensor, candidates: Tensor, indptr: Tensor, items: Tensor) -> None:
        self.queries, self.candidates, self.indptr, self.items = queries, candidates, indptr, items
        shape = len(queries), len(candidates)
        self._rows = queries.new_empty(shape) if math.prod(shape) <= REMEMBERED else None
        self._known = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)

    def similarities(self, items: Tensor) -> Tensor:
        """Of each given item to the whole catalogue: (P,) int64 -> (P, n_items) float32."""
        if self._rows is None:
            different, place = items.unique(return_inverse=True)
            return (self.queries[different] @ self.candidates.T)[place]
        unknown = items[~self._known[items]].unique()
        self._rows[unknown] = self.queries[unknown] @ self.candidates.T
        self._known[unknown] = True
        return self._rows[items]

    def block(self, users: Tensor) -> Tensor:
        lengths = self.indptr[users + 1] - self.indptr[users]
        # Users by descending length of history, purchases by their number r (from 0) in it. The purchases numbered r
        # are then those of the first users, and the maximum is taken of contiguous blocks, one number after the other.
        order = lengths.argsort(descending=True, stable=True)
        lengths = lengths[order]
        place = torch.repeat_interleave(torch.arange(len(users), device=users.device), lengths)
        number = torch.arange(len(place), device=users.device) - (lengths.cumsum(0) - lengths)[place]
        history = self.items[self.indptr[users[order]][place] + number][number.argsort(stable=True)]
        starts = [0, *number.bincount().cumsum(0).tolist()]
        best = self.queries.new_zeros(len(users), len(self.candidates))
        # A few purchases at a time: similarities of all of them at once would not fit in memory.
        size = max(MANY_ROWS, SIMILARITIES // len(self.candidates))
        for begin in range(0, len(history), size):
            similarity = self.similarities(history[begin : begin + size])
            for r, (low, high) in enumerate(pairwise(starts)):
                first, last = max(low, begin), min(high, begin + len(similarity))
                if first < last:
                    found, part = best[first - low : last - low], similarity[first - begin : last - begin]
                    torch.maximum(found, part, out=found) if r else found.copy_(part)
        return torch.empty_like(best).index_copy_(0, order, best)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.block(users).gather(1, items)

    def extended(self, rows: Tensor) -> NearestPurchase:
        return NearestPurchase(self.queries, torch.cat([self.candidates, rows]), self.indptr, self.items)


class VisRank(Recommender):
    """Score: how similar item i's picture is to those of the user's training items I_u.

    `mean`: s(u, i) = mean over j in I_u of sim(f_i, f_j); `max`: the largest one. `cosine`: the inner product of
    normalised features, items without a picture (zero features) scoring 0; `euclidean`: minus the squared distance.
    The papers name neither similarity nor aggregation.

    Args:
        data: the training data; `features` are needed.
        similarity: "cosine" or "euclidean".
        aggregate: "mean" or "max".
    """

    users: Tensor
    queries: Tensor
    candidates: Tensor
    indptr: Tensor
    items: Tensor

    def __init__(self, data: TrainingData, *, similarity: str = "cosine", aggregate: str = "mean") -> None:
        super().__init__()
        features = shared_features(data)
        if similarity not in ("cosine", "euclidean"):
            raise InputError(f"VisRank's similarity is 'cosine' or 'euclidean', not {similarity!r}.")
        self.similarity = similarity
        if aggregate not in ("mean", "max"):
            raise InputError(f"VisRank's aggregate is 'mean' or 'max', not {aggregate!r}.")
        self.aggregate = aggregate
        interactions = data.interactions
        self.register_buffer("candidates", self._candidates(features), persistent=False)
        self.register_buffer("indptr", torch.as_tensor(interactions.indptr), persistent=False)
        self.register_buffer("items", torch.as_tensor(interactions.items), persistent=False)
        queries = self._queries(self.candidates)
        if aggregate == "mean":
            weights = np.repeat(1 / np.maximum(interactions.history_lengths, 1), interactions.history_lengths)
            history = sparse.csr_matrix(
                (weights.astype(np.float32), interactions.items, interactions.indptr),
                shape=(data.n_users, data.n_items),
            )
            self.register_buffer("users", torch.as_tensor(history @ queries.numpy()), persistent=False)
        else:
            self.register_buffer("queries", queries, persistent=False)

    def scorer(self, times: Tensor | None = None) -> Scorer:
        if self.aggregate == "mean":
            return InnerProduct(self.users, self.candidates)
        return NearestPurchase(self.queries, self.candidates, self.indptr, self.items)

    def basket_tower(self) -> BasketSum | None:
        """See `BasketTower`."""
        if self.aggregate != "mean":
            return None
        queries = self._queries(self.candidates)
        return BasketSum(queries, torch.zeros_like(queries[0]), 1.0)

    def purchase_similarity(self, user: int, items: Tensor) -> Tensor:
        """See `PurchaseParts`."""
        history = self.items[self.indptr[user] : self.indptr[user + 1]]
        return self.candidates[items] @ self._queries(self.candidates[history]).T

    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`."""
        return self._candidates(features)

    def _candidates(self, features: Tensor) -> Tensor:
        """What a purchase's query meets, so that the inner product is the similarity."""
        if self.similarity == "cosine":
            return F.normalize(features, dim=1)
        # -|a - b|^2 = <[2a, -|a|^2, 1], [b, 1, -|b|^2]>: Euclidean distance as an inner product.
        return torch.cat([features, features.new_ones(len(features), 1), -features.square().sum(1, keepdim=True)], 1)

    def _queries(self, candidates: Tensor) -> Tensor:
        """The purchase's side of the inner product."""
        if self.similarity == "cosine":
            return candidates
        features, one, minus_square = candidates.split([candidates.shape[1] - 2, 1, 1], 1)
        return torch.cat([2 * features, minus_square, one], 1)


CARD = ModelCard(
    name="visrank",
    title="VisRank",
    family="content",
    needs=frozenset({"features"}),
    source="baseline of Kang et al. 2017 (DVBPR) and Elsayed et al. 2022, Table 2",
    fidelity="reconstruction",
    build=VisRank,
    profiles={
        "default": Profile(
            {"similarity": "cosine", "aggregate": "max"}, note="tuned by validation AUC on a week of H&M purchases"
        ),
        "paper": Profile({"similarity": "cosine", "aggregate": "mean"}, note="unspecified in the papers"),
    },
    space={
        "similarity": ["cosine", "euclidean"],
        "aggregate": ["mean", "max"],
    },
)
