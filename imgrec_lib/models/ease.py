"""EASE: a linear model of items by items in closed form, an autoencoder without a hidden layer."""

from __future__ import annotations

import torch
from torch import Tensor

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import ModelCard, Profile, Range, Recommender
from imgrec_lib.models.parts.purchases import DenseWeights, PurchaseSum, purchase_matrix
from imgrec_lib.options import Positive

BYTES_A_PAIR = 16
"""Memory for each pair of items while the weights are computed: two matrices of float64."""


class EASE(Recommender):
    """Score: s(u, i) = sum over j in I_u of B_ji.

    B minimises |X - X B|^2 + l2 |B|^2 among the matrices with a diagonal of zeros, where X is the 0/1 matrix of the
    training interactions: with P = (X'X + l2 I)^-1, B_ji = -P_ji / P_ii for j != i (Steck 2019, equations 2 to 8). The
    weights follow from the data, as popularity does: they are computed when the model is built, and a checkpoint holds
    none. The work grows with the cube of the catalogue, the memory with its square.

    Args:
        data: the training data.
        l2: the penalty, which counts as so many purchases of each item.
        gigabytes: the most memory that computing the weights may take, in units of 10^9 bytes.
    """

    def __init__(self, data: TrainingData, *, l2: Positive = 100.0, gigabytes: Positive = 8.0) -> None:
        super().__init__()
        needed = BYTES_A_PAIR * data.n_items**2 / 1e9
        if needed > gigabytes:
            raise InputError(
                f"EASE relates all items to all items: for {data.n_items:,} items that takes {needed:,.1f} GB of "
                f"memory, more than its limit of {gigabytes:g}; leave EASE out, use a smaller catalogue, or raise its "
                "parameter gigabytes."
            )
        self.interactions = data.interactions
        self.weights = DenseWeights(_weights(data.interactions, l2))

    def scorer(self, times: Tensor | None = None) -> PurchaseSum:
        return self._scorer(self.interactions)

    def score_baskets(self, baskets: Interactions) -> Tensor:
        """See `Baskets`."""
        return self._scorer(baskets).block(torch.arange(baskets.n_users))

    def purchase_similarity(self, user: int, items: Tensor) -> Tensor:
        """See `PurchaseParts`; the score is their sum."""
        return self.weights.between(self.interactions.of(user), items.numpy()).T

    def _scorer(self, interactions: Interactions) -> PurchaseSum:
        nothing = torch.zeros(interactions.n_items)
        return PurchaseSum(purchase_matrix(interactions), (self.weights,), nothing)


def _weights(interactions: Interactions, l2: float) -> Tensor:
    """B of `EASE`: (n_items, n_items) float32."""
    bought = purchase_matrix(interactions)
    gram = torch.from_numpy((bought.T @ bought).toarray()).double()
    gram.diagonal().add_(l2)
    factor = torch.linalg.cholesky(gram)
    del gram  # two matrices at a time, see BYTES_A_PAIR
    inverse = torch.cholesky_inverse(factor)
    del factor
    inverse /= -inverse.diagonal().clone()
    inverse.fill_diagonal_(0)
    return inverse.float()


CARD = ModelCard(
    name="ease",
    title="EASE",
    family="collaborative",
    needs=frozenset(),
    source="Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data",
    fidelity="faithful",
    build=EASE,
    profiles={
        "default": Profile({"l2": 100.0}),
        "paper": Profile({"l2": 500.0}, note="what the paper's authors chose for MovieLens-20M"),
    },
    space={
        "l2": Range(1.0, 1e4, log=True),
    },
)
