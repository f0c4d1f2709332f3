"""VBPR: BPR-MF with a second user vector that meets a learned projection of the item's visual features."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, dot, look_up
from imgrec_lib.models.parts.losses import bpr, half_squared_norm, penalties_at
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES, UCSD
from imgrec_lib.models.parts.visual import CatalogueFeatures
from imgrec_lib.options import Count, NotNegative, Positive


class VBPR(Recommender):
    """Score: s(u, i) = b_i + <p_u, q_i> + <t_u, E f_i> + <b', f_i> (He and McAuley 2016, equation 4).

    Loss: mean of -ln sigma(s(u,i) - s(u,j)), plus l2 * mean(1/2 |p_u|^2 + 1/2 |q_i|^2 + 1/2 |t_u|^2) + l2_negative *
    mean 1/2 |q_j|^2 + l2_bias * mean(1/2 b_i^2 + 1/2 b_j^2) + l2_visual * 1/2 (|E|^2 + |b'|^2), as in the UCSD code
    (where l2_negative = l2 / 10), save that the last term covers all of E and b' where the UCSD code passes over the
    coordinates in which f_i and f_j are both zero.

    The profile "paper" ends .007 to .010 below the UCSD code in AUC on synthetic data (.7896 and .7967 with sparse
    features, .8846 and .8948 with dense ones) where positives are drawn anew for every triple. Drawing a user's items
    without replacement, as that code does and the profile does now, accounts for .003 to .005 of it; the rest is not
    explained.

    Args:
        data: the training data; `features` are needed.
        loss: what is minimised, see `Objective`; other losses than "bpr" take the place of its term.
        factors: K, the size of p and q.
        visual_factors: K2, the size of t.
        l2, l2_negative, l2_bias, l2_visual: penalty weights.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        initial_scale: p, q, t and E start normal with this standard deviation; b and b' at 0.
        uniform: start them uniform in [0, initial_scale] instead (the UCSD code's law, scale 1).
        feature_scale: the features' divisor; 0 for the catalogue's maximum (58.388599 in the UCSD code).
    """

    # The projection of the features is nearly all of the arithmetic: matrices/hm-precision.yaml shows no loss of AUC.
    mixed_precision = True

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        visual_factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_negative: NotNegative = 0.0,
        l2_bias: NotNegative = 0.0,
        l2_visual: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.01,
        uniform: bool = False,
        feature_scale: NotNegative = 0.0,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        penalties = penalties_at(at_interactions, data.interactions, l2, l2_negative, l2_bias, l2_visual)
        self.l2, self.l2_negative, self.l2_bias, self.l2_visual = penalties
        self.features = CatalogueFeatures(data, feature_scale)
        self.users = nn.Parameter(torch.empty(data.n_users, factors))
        self.items = nn.Parameter(torch.empty(data.n_items, factors))
        self.visual_users = nn.Parameter(torch.empty(data.n_users, visual_factors))
        self.projection = nn.Parameter(torch.empty(self.features.width, visual_factors))
        self.item_bias = nn.Parameter(torch.zeros(data.n_items))
        self.visual_bias = nn.Parameter(torch.zeros(self.features.width))
        for table in (self.users, self.items, self.visual_users, self.projection):
            if uniform:
                nn.init.uniform_(table, 0, initial_scale)
            else:
                nn.init.normal_(table, std=initial_scale)

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return self.objective.row_tables(users=[self.users, self.visual_users], items=[self.items])

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        user, taste = look_up(self.users, batch.users), look_up(self.visual_users, batch.users)
        items, biases = look_up(self.items, batch.items), look_up(self.item_bias, batch.items)
        if self.objective.loss == "bpr":
            difference = self.features.difference(batch.items, self.visual_weight())
            visual = dot(taste, difference[..., :-1]) + difference[..., -1]
            scores = dot(user, items) + biases
            loss = bpr(scores[:, 0], scores[:, 1:] - visual)
        else:
            visual = self.features.projected(batch.items, self.visual_weight())
            vectors = torch.cat([items, visual[..., :-1]], -1)
            loss = self.objective(batch, torch.cat([user, taste], 1), vectors, biases + visual[..., -1])
        if self.l2 or self.l2_negative:
            positives, negatives = batch.split(items)
            loss = loss + self.l2 * half_squared_norm(user, positives, taste)
            loss = loss + self.l2_negative * half_squared_norm(negatives)
        if self.l2_bias:
            loss = loss + self.l2_bias * half_squared_norm(*batch.split(biases.unsqueeze(-1)))
        if self.l2_visual:
            loss = loss + self.l2_visual * 0.5 * (self.projection.square().sum() + self.visual_bias.square().sum())
        return loss

    def visual_weight(self) -> Tensor:
        """[E, b'], so that one product gives both visual terms: (n_features, K2 + 1)."""
        return torch.cat([self.projection, self.visual_bias.unsqueeze(1)], 1)

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        visual = self.features.project(self.features.values, self.visual_weight())
        return InnerProduct.with_item_offset(
            torch.cat([self.users, self.visual_users], 1),
            torch.cat([self.items, visual[:, :-1]], 1),
            self.item_bias + visual[:, -1],
        )

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the equation's four terms."""
        visual = self.features.project(self.features(items), self.visual_weight())
        return {
            "id": torch.einsum("bk,bck->bc", self.users[users], self.items[items]),
            "picture": torch.einsum("bk,bck->bc", self.visual_users[users], visual[..., :-1]),
            "id offset": self.item_bias[items],
            "picture offset": visual[..., -1],
        }

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`."""
        visual = self.features.project(features, self.visual_weight())
        visual[:, -1] += self.item_bias.mean()
        return torch.cat([self.items.mean(0).expand(features.shape[0], -1), visual], 1)


CARD = ModelCard(
    name="vbpr",
    title="VBPR",
    family="visual",
    needs=frozenset({"features"}),
    source="He and McAuley 2016, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback",
    fidelity="faithful",
    build=VBPR,
    profiles={
        "default": Profile(
            {
                "factors": 64,
                "visual_factors": 64,
                "l2": 0.03,
                "l2_negative": 0.1,
                "l2_bias": 0.01,
                "l2_visual": 0.01,
                "at_interactions": HM_WEEK,
            },
            (replace(LARGE_BATCHES, learning_rate=3e-3),),
            "tuned by validation AUC on a week of H&M purchases: a strong penalty on E and b' matters most",
        ),
        "paper": Profile(
            {
                "factors": 10,
                "visual_factors": 10,
                "l2": 10.0,
                "l2_negative": 1.0,
                "initial_scale": 1.0,
                "uniform": True,
            },
            (replace(UCSD, evaluate_every=20, patience=1),),
            "the UCSD code: K = K2 = 10, SGD, rate 0.005 a triple (128 triples a step, so 0.64 on their mean), lambda "
            "10, no penalty on E, validation every 20 iterations with a patience of 20 iterations",
        ),
        "elliot": Profile(
            {"factors": 100, "visual_factors": 20, "l2": 2.5e-5, "l2_negative": 2.5e-5, "l2_visual": 2e-3 / 128},
            (TrainSettings(learning_rate=5e-4, batch_size=128, epsilon=1e-7 / 128),),
            "the settings of sisinflab/elliot: Adam 5e-4, K 100, K2 20, batch 128, l_w 2.5e-5 and l_e 2e-3 on the sum "
            "of a batch's losses; the start values are ours",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "visual_factors": [16, 64],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-3, 1.0, log=True),
        "l2_negative": Range(1e-3, 1.0, log=True),
        "l2_visual": Range(1e-5, 0.1, log=True),
    },
)
