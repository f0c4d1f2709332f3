"""LightGCN: users and items are the averages of their neighbourhoods in the graph of purchases."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, look_up
from imgrec_lib.models.parts.graph import Graph, user_item_graph
from imgrec_lib.models.parts.losses import half_squared_norm, penalties_at
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.purchases import purchase_matrix
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES
from imgrec_lib.options import Count, CountOrNone, NotNegative, Positive


class LightGCN(Recommender):
    """Score: s(u, i) = <e_u, e_i>, with e = (e^0 + e^1 + ... + e^L) / (L + 1) of all users and items, where e^0 is
    trained and

        e_u^l = sum over i in I_u of e_i^(l-1) / sqrt(|I_u| |U_i|),   e_i^l = sum over u in U_i of e_u^(l-1) / sqrt(...)

    (He et al. 2020, equations 3 to 5, weights 1 / (L + 1)): no transformation and no nonlinearity, only the graph of
    training interactions. Loss: mean of -ln sigma(s(u,i) - s(u,j)), plus l2 * mean(1/2 |e_u^0|^2 + 1/2 |e_i^0|^2 +
    1/2 |e_j^0|^2) over the batch, as in the authors' code (the paper's equation 15 penalises all of e^0).

    Args:
        data: the training data.
        loss: what is minimised, see `Objective`; other losses than "bpr" take the place of its term.
        factors: K.
        layers: L.
        l2: the penalty on the batch's rows of e^0.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        initial_scale: e^0 starts normal with this standard deviation.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        layers: CountOrNone = 3,
        l2: NotNegative = 1e-4,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.1,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        self.layers = layers
        (self.l2,) = penalties_at(at_interactions, data.interactions, l2)
        self.graph = Graph(user_item_graph(purchase_matrix(data.interactions)))
        self.users = nn.Parameter(torch.empty(data.n_users, factors))
        self.items = nn.Parameter(torch.empty(data.n_items, factors))
        for table in (self.users, self.items):
            nn.init.normal_(table, std=initial_scale)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def propagated(self) -> tuple[Tensor, Tensor]:
        """e of all users and of all items: (n_users, K) and (n_items, K)."""
        nodes = self.graph.mean_of_layers(torch.cat([self.users, self.items]), self.layers)
        return nodes[: len(self.users)], nodes[len(self.users) :]

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        users, items = self.propagated()
        loss = self.objective(batch, look_up(users, batch.users), look_up(items, batch.items))
        if self.l2:
            rows = batch.split(look_up(self.items, batch.items))
            loss = loss + self.l2 * half_squared_norm(look_up(self.users, batch.users), *rows)
        return loss

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        return InnerProduct(*self.propagated())


CARD = ModelCard(
    name="lightgcn",
    title="LightGCN",
    family="collaborative",
    needs=frozenset(),
    source="He et al. 2020, LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation",
    fidelity="faithful",
    build=LightGCN,
    profiles={
        "default": Profile(
            {"factors": 64, "layers": 3, "l2": 1e-2, "at_interactions": HM_WEEK},
            (replace(LARGE_BATCHES, learning_rate=1e-2),),
            "penalty and layers chosen by validation AUC among five configurations on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 64, "layers": 3, "l2": 1e-4},
            (
                TrainSettings(
                    learning_rate=1e-3,
                    batch_size=2048,
                    positives_by="user",
                    epochs=1000,
                    evaluate_every=20,
                    patience=5,
                ),
            ),
            "the authors' code on Gowalla: three layers of 64, Adam 1e-3, batches of 2,048, lambda 1e-4",
        ),
    },
    space={
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "layers": [1, 2, 3],
        "l2": Range(1e-4, 1.0, log=True),
    },
)
