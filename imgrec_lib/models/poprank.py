"""PopRank: every user is shown what sells most."""

from __future__ import annotations

import torch
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Recommender


class PopRank(Recommender):
    """Score: s(u, i) = number of training interactions of i. No parameters, no user.

    Ties are massive (every cold item scores 0): read the strict and the mid-rank AUC side by side.

    Args:
        data: the training data.
    """

    counts: Tensor

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        counts = torch.as_tensor(data.interactions.popularity, dtype=torch.float32)
        self.n_users = data.n_users
        self.register_buffer("counts", counts, persistent=False)

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct(self.counts.new_ones(self.n_users, 1), self.counts.unsqueeze(1))


CARD = ModelCard(
    name="poprank",
    title="PopRank",
    family="popularity",
    needs=frozenset(),
    source="baseline of Elsayed et al. 2022, Table 2",
    fidelity="faithful",
    build=PopRank,
    profiles={"default": Profile(), "paper": Profile()},
)
