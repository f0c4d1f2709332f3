"""VisRank: recommend what looks like the user's purchases. Nothing is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Recommender, Scorer
from imgrec_lib.models.visual import shared_features


@dataclass(frozen=True)
class NearestPurchase:
    """s(u, i) = the largest <queries[j], candidates[i]> over u's training items j; 0 for a user without any.

    Attributes:
        queries, candidates: (n_items, k) float32.
        indptr, items: the training interactions in compressed sparse rows.
    """

    queries: Tensor
    candidates: Tensor
    indptr: Tensor
    items: Tensor

    def block(self, users: Tensor) -> Tensor:
        lengths = self.indptr[users + 1] - self.indptr[users]
        row = torch.repeat_interleave(torch.arange(len(users), device=users.device), lengths)
        within = torch.arange(len(row), device=users.device) - (lengths.cumsum(0) - lengths)[row]
        history = self.items[self.indptr[users][row] + within]
        best = self.queries.new_zeros(len(users), len(self.candidates))
        # One pass a few purchases at a time: similarities of all of them at once would not fit in memory.
        for part in torch.arange(len(row), device=users.device).split(2048):
            similarity = self.queries[history[part]] @ self.candidates.T
            seen = within[part[0]] > 0  # the first user of this part has purchases in the part before
            keep = best[row[part[0]]].clone()
            index = row[part].unsqueeze(1).expand_as(similarity)
            best.scatter_reduce_(0, index, similarity, "amax", include_self=False)
            if seen:
                best[row[part[0]]] = torch.maximum(best[row[part[0]]], keep)
        return best

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.block(users).gather(1, items)


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
        if similarity == "cosine":
            queries = candidates = F.normalize(features, dim=1)
        elif similarity == "euclidean":
            # -|a - b|^2 = <[2a, -|a|^2, 1], [b, 1, -|b|^2]>: Euclidean distance as an inner product.
            square, one = features.square().sum(1, keepdim=True), features.new_ones(len(features), 1)
            queries = torch.cat([2 * features, -square, one], 1)
            candidates = torch.cat([features, one, -square], 1)
        else:
            raise InputError(f"VisRank's similarity is 'cosine' or 'euclidean', not {similarity!r}.")
        if aggregate not in ("mean", "max"):
            raise InputError(f"VisRank's aggregate is 'mean' or 'max', not {aggregate!r}.")
        self.aggregate = aggregate
        interactions = data.interactions
        self.register_buffer("candidates", candidates, persistent=False)
        if aggregate == "mean":
            weights = np.repeat(1 / np.maximum(interactions.history_lengths, 1), interactions.history_lengths)
            history = sparse.csr_matrix(
                (weights.astype(np.float32), interactions.items, interactions.indptr),
                shape=(data.n_users, data.n_items),
            )
            self.register_buffer("users", torch.as_tensor(history @ queries.numpy()), persistent=False)
        else:
            self.register_buffer("queries", queries, persistent=False)
            self.register_buffer("indptr", torch.as_tensor(interactions.indptr), persistent=False)
            self.register_buffer("items", torch.as_tensor(interactions.items), persistent=False)

    def scorer(self, times: Tensor | None = None) -> Scorer:
        if self.aggregate == "mean":
            return InnerProduct(self.users, self.candidates)
        return NearestPurchase(self.queries, self.candidates, self.indptr, self.items)


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
)
