"""Same group, then popularity: variants of what the user has, then what sells most. Nothing is learned."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.models.base import ModelCard, Profile, Recommender
from imgrec_lib.models.parts.purchases import PurchaseSum, SparseWeights, log_popularity, purchase_matrix


class GroupPop(Recommender):
    """Score: s(u, i) = ln(1 + |U_i|), plus 1 + the largest such logarithm if some j in I_u is of item i's group.

    So every variant of something that the user has (the same shirt in another colour) is ahead of all other items, and
    popularity orders both. A control: it says how much of a hit ratio is due to variants alone, and no model that is
    blind to groups should be praised for less.

    Args:
        data: the training data; `groups` are needed.
    """

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        assert data.groups is not None
        self.interactions = data.interactions
        self.offset = log_popularity(data.interactions)
        # Which item is of which group, as items by groups.
        shape = data.n_items, int(data.groups.max(initial=-1)) + 1
        ones = np.ones(data.n_items, np.float32)
        self.member = sparse.csr_matrix((ones, (np.arange(data.n_items), data.groups)), shape=shape)
        self.weights = SparseWeights((self.member * (1 + float(self.offset.max()))).T.tocsc())

    def scorer(self, times: Tensor | None = None) -> PurchaseSum:
        return self._scorer(self.interactions, self.offset)

    def score_baskets(self, baskets: Interactions) -> Tensor:
        """See `Baskets`."""
        return self._scorer(baskets, self.offset).block(torch.arange(baskets.n_users))

    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the score's two terms."""
        groups = self._scorer(self.interactions, torch.zeros_like(self.offset))
        return {"same group": groups.pairs(users, items), "popularity": self.offset[items]}

    def _scorer(self, interactions: Interactions, offset: Tensor) -> PurchaseSum:
        groups = purchase_matrix(interactions) @ self.member
        groups.data[:] = 1  # whether the user has something of the group, not how much
        return PurchaseSum(groups, (self.weights,), offset)


CARD = ModelCard(
    name="group-pop",
    title="Same group, then Pop",
    family="content",
    needs=frozenset({"groups"}),
    source="a control of this package",
    fidelity="reconstruction",
    build=GroupPop,
    profiles={"default": Profile()},
)
