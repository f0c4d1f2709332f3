"""ItemKNN: recommend what others bought together with the user's purchases. Nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.models.base import ModelCard, Profile, Range, Recommender
from imgrec_lib.models.parts.purchases import ItemWeights, PurchaseSum, SparseWeights, log_popularity, purchase_matrix
from imgrec_lib.options import CountOrNone, NotNegative


class ItemKNN(Recommender):
    """Score: s(u, i) = sum over j in I_u of c_ij + popularity * ln(1 + |U_i|).

    c_ij = |U_i and U_j| / (sqrt(|U_i| |U_j|) + shrink), with U_i the users of item i in training: the cosine of the two
    items' columns of the interaction matrix (Sarwar et al. 2001, section 3.1.1), damped for items with few users by the
    shrink term (as in Ferrari Dacrema et al. 2019). An item is no neighbour of itself. The second term is ours:
    where nothing was bought together it leaves the order to popularity.

    Args:
        data: the training data.
        shrink: the damping; 0 for the plain cosine.
        neighbours: of each purchase only so many nearest items count (Deshpande and Karypis 2004), and
            those as near as the last of them, so that no order of ids decides; 0 for all.
        popularity: weight of the log-popularity.
    """

    def __init__(
        self, data: TrainingData, *, shrink: NotNegative = 10.0, neighbours: CountOrNone = 0, popularity: float = 0.0
    ) -> None:
        super().__init__()
        self.interactions = data.interactions
        self.together = SparseWeights(nearest(shrunk_cosine(data.interactions, shrink), neighbours).tocsc())
        self.offset = popularity * log_popularity(data.interactions)

    def weights(self) -> Sequence[ItemWeights]:
        """What each purchase adds to the score of each item."""
        return (self.together,)

    def scorer(self, times: Tensor | None = None) -> PurchaseSum:
        return self._scorer(self.interactions)

    def score_baskets(self, baskets: Interactions) -> Tensor:
        """See `Baskets`."""
        return self._scorer(baskets).block(torch.arange(baskets.n_users))

    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the score's two terms."""
        return {"bought together": self._summed(self.together, users, items), "popularity": self.offset[items]}

    def purchase_similarity(self, user: int, items: Tensor) -> Tensor:
        """See `PurchaseParts`; the score takes their sum."""
        parts = (each.between(self.interactions.of(user), items.numpy()) for each in self.weights())
        return sum(parts, torch.zeros(())).T

    def _scorer(self, interactions: Interactions) -> PurchaseSum:
        return PurchaseSum(purchase_matrix(interactions), self.weights(), self.offset)

    def _summed(self, weights: ItemWeights, users: Tensor, items: Tensor) -> Tensor:
        """(B, C): the part of the scores that comes from some of the weights."""
        nothing = torch.zeros_like(self.offset)
        return PurchaseSum(purchase_matrix(self.interactions), (weights,), nothing).pairs(users, items)


def shrunk_cosine(interactions: Interactions, shrink: float) -> sparse.csr_matrix:
    """c_ij of `ItemKNN` for all pairs of items that some user has both of: (n_items, n_items) float32."""
    bought = purchase_matrix(interactions).astype(np.float64)
    together = (bought.T @ bought).tocoo()
    different = together.row != together.col
    row, column = together.row[different], together.col[different]
    length = np.sqrt(interactions.popularity)
    values = together.data[different] / (length[row] * length[column] + shrink)
    return sparse.csr_matrix((values.astype(np.float32), (row, column)), shape=together.shape)


def nearest(weights: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The k largest weights of each row, and those equal to the k-th; all of them where k is 0."""
    lengths = np.diff(weights.indptr)
    if k == 0 or lengths.max(initial=0) <= k:
        return weights
    row = np.repeat(np.arange(len(lengths)), lengths)
    descending = weights.data[np.lexsort((-weights.data, row))]
    least = np.zeros(len(lengths), np.float32)
    long = lengths > k
    least[long] = descending[weights.indptr[:-1][long] + k - 1]
    kept = weights.data >= least[row]
    return sparse.csr_matrix((weights.data[kept], (row[kept], weights.indices[kept])), shape=weights.shape)


CARD = ModelCard(
    name="item-knn",
    title="ItemKNN",
    family="collaborative",
    needs=frozenset(),
    source="Sarwar et al. 2001, Item-Based Collaborative Filtering Recommendation Algorithms; shrink term as in "
    "Ferrari Dacrema et al. 2019, Are We Really Making Much Progress?; the popularity term is ours",
    fidelity="faithful",
    build=ItemKNN,
    profiles={
        "default": Profile(
            {"shrink": 10.0, "popularity": 0.01}, note="chosen by validation NDCG@10 on a week of H&M purchases"
        ),
        "paper": Profile({"shrink": 0.0}, note="the plain cosine over all items bought together"),
    },
    space={
        "shrink": Range(1.0, 1e3, log=True),
        "neighbours": [0, 50, 200],
        "popularity": Range(1e-3, 1.0, log=True),
    },
)
