"""BPR-MF: matrix factorisation trained on pairs of a bought and an unbought item."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, look_up
from imgrec_lib.models.parts.losses import half_squared_norm, penalties_at
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES, UCSD
from imgrec_lib.options import Count, NotNegative, Positive


class BPRMF(Recommender):
    """Score: s(u, i) = b_i + <p_u, q_i>. Loss: mean of -ln sigma(s(u,i) - s(u,j)) plus L2 on the gathered rows.

    The penalty of a batch is l2 * mean(1/2 |p_u|^2 + 1/2 |q_i|^2) + l2_negative * mean 1/2 |q_j|^2 +
    l2_bias * mean(1/2 b_i^2 + 1/2 b_j^2), as in the UCSD code (where l2_negative = l2 / 10).

    Args:
        data: the training data.
        loss: what is minimised, see `Objective`; other losses than "bpr" take the place of its term.
        factors: latent size K.
        l2, l2_negative, l2_bias: penalty weights.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        initial_scale: p and q start normal with this standard deviation; b starts at 0.
        uniform: start p and q uniform in [0, initial_scale] instead (the UCSD code's law, scale 1).
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_negative: NotNegative = 0.0,
        l2_bias: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.01,
        uniform: bool = False,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        penalties = penalties_at(at_interactions, data.interactions, l2, l2_negative, l2_bias)
        self.l2, self.l2_negative, self.l2_bias = penalties
        self.users = nn.Parameter(torch.empty(data.n_users, factors))
        self.items = nn.Parameter(torch.empty(data.n_items, factors))
        self.item_bias = nn.Parameter(torch.zeros(data.n_items))
        for table in (self.users, self.items):
            if uniform:
                nn.init.uniform_(table, 0, initial_scale)
            else:
                nn.init.normal_(table, std=initial_scale)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        user = look_up(self.users, batch.users)
        items, biases = look_up(self.items, batch.items), look_up(self.item_bias, batch.items)
        loss = self.objective(batch, user, items, biases)
        if self.l2 or self.l2_negative:
            positives, negatives = batch.split(items)
            loss = loss + self.l2 * half_squared_norm(user, positives)
            loss = loss + self.l2_negative * half_squared_norm(negatives)
        if self.l2_bias:
            positives, negatives = batch.split(biases.unsqueeze(-1))
            loss = loss + self.l2_bias * half_squared_norm(positives, negatives)
        return loss

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return self.objective.row_tables(users=[self.users], items=[self.items, self.item_bias])

    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct.with_item_offset(self.users.detach(), self.items.detach(), self.item_bias.detach())


CARD = ModelCard(
    name="bpr-mf",
    title="BPR-MF",
    family="collaborative",
    needs=frozenset(),
    source="Rendle et al. 2009, BPR: Bayesian Personalized Ranking from Implicit Feedback",
    fidelity="faithful",
    build=BPRMF,
    profiles={
        "default": Profile(
            {"factors": 64, "l2": 0.1, "l2_negative": 0.1, "l2_bias": 0.01, "at_interactions": HM_WEEK},
            (replace(LARGE_BATCHES, learning_rate=1e-2),),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 20, "l2": 10.0, "l2_negative": 1.0, "initial_scale": 1.0, "uniform": True},
            (replace(UCSD, evaluate_every=5, patience=10),),
            "the UCSD code: SGD, rate 0.005 a triple (128 triples a step, so 0.64 on their mean), lambda 10",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-3, 1.0, log=True),
        "l2_negative": Range(1e-3, 1.0, log=True),
    },
)
