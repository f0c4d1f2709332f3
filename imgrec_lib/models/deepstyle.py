"""DeepStyle: an item's style is its projected picture less what its whole category looks like."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Recommender, TrainSettings, dot, look_up
from imgrec_lib.models.parts.losses import bpr, half_squared_norm
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.settings import LARGE_BATCHES
from imgrec_lib.models.parts.visual import CatalogueFeatures
from imgrec_lib.options import Count, NotNegative


class DeepStyle(Recommender):
    """Score: s(u, i) = <p_u, E f_i - l_c(i) + q_i> (Liu, Wu, Wang 2017): one user vector, no item bias.

    l is a table over categories, shared by all items of one. Loss: mean of -ln sigma(s(u,i) - s(u,j)), plus l2 *
    mean(1/2 |p_u|^2 + 1/2 |q_i|^2 + 1/2 |q_j|^2) + l2_category * mean(1/2 |l_c(i)|^2 + 1/2 |l_c(j)|^2) + l2_visual *
    1/2 |E|^2. A reconstruction: the score follows public implementations and summaries, corrected where their
    category table was indexed by item; the paper's text was not at hand.

    Args:
        data: the training data; `features` and `categories` are needed.
        loss: what is minimised, see `Objective`; other losses than "bpr" take the place of its term.
        factors: size d of all vectors.
        l2, l2_category, l2_visual: penalty weights.
        initial_scale: all tables start normal with this standard deviation.
        feature_scale: the features' divisor; 0 for the catalogue's maximum.
    """

    category: Tensor

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_category: NotNegative = 0.0,
        l2_visual: NotNegative = 0.0,
        initial_scale: NotNegative = 0.01,
        feature_scale: NotNegative = 0.0,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        self.l2, self.l2_category, self.l2_visual = l2, l2_category, l2_visual
        self.features = CatalogueFeatures(data, feature_scale)
        self.register_buffer("category", torch.as_tensor(data.categories), persistent=False)
        self.users = nn.Parameter(torch.empty(data.n_users, factors).normal_(std=initial_scale))
        self.items = nn.Parameter(torch.empty(data.n_items, factors).normal_(std=initial_scale))
        self.categories = nn.Parameter(torch.empty(data.n_categories, factors).normal_(std=initial_scale))
        self.projection = nn.Parameter(torch.empty(self.features.width, factors).normal_(std=initial_scale))

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        return self.objective.row_tables(users=[self.users], items=[self.items])

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        user = look_up(self.users, batch.users)
        candidates = batch.items
        items, categories = look_up(self.items, candidates), look_up(self.categories, self.category[candidates])
        if self.objective.loss == "bpr":
            visual = self.features.difference(batch.items, self.projection)
            scores = dot(user, items - categories)
            ranking = bpr(scores[:, 0], scores[:, 1:] - dot(user, visual))
        else:
            ranking = self.objective(
                batch, user, items - categories + self.features.projected(candidates, self.projection)
            )
        loss = (
            ranking
            + self.l2 * half_squared_norm(user, *batch.split(items))
            + self.l2_category * half_squared_norm(*batch.split(categories))
        )
        if self.l2_visual:
            loss = loss + self.l2_visual * 0.5 * self.projection.square().sum()
        return loss

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        looks = self.features.project(self.features.values, self.projection)
        return InnerProduct(self.users.detach(), looks - self.categories[self.category] + self.items)

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the score's three terms."""
        parts = {
            "id": self.items[items],
            "picture": self.features.project(self.features(items), self.projection),
            "category": -self.categories[self.category[items]],
        }
        return {name: torch.einsum("bk,bck->bc", self.users[users], part) for name, part in parts.items()}

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`; the category, too, counts as it does in the mean over the catalogue."""
        unknown = (self.items - self.categories[self.category]).mean(0)
        return self.features.project(features, self.projection) + unknown


CARD = ModelCard(
    name="deepstyle",
    title="DeepStyle",
    family="visual",
    needs=frozenset({"features", "categories"}),
    source="Liu, Wu, Wang 2017, DeepStyle: Learning User Preferences for Visual Recommendation",
    fidelity="reconstruction",
    build=DeepStyle,
    profiles={
        "default": Profile(
            {"factors": 32, "l2": 0.03, "l2_category": 0.1, "l2_visual": 0.01},
            (replace(LARGE_BATCHES, learning_rate=1e-2, batch_size=2048),),
            "tuned by validation AUC on a week of H&M purchases: a strong penalty on E matters most",
        ),
        "paper": Profile(
            {"factors": 10, "l2": 0.01, "l2_category": 0.01, "l2_visual": 0.01},
            (TrainSettings(optimiser="sgd", learning_rate=1.28, batch_size=128, epochs=500, evaluate_every=5),),
            "a reconstruction from memory of the paper: d 10, lambda 0.01, rate 0.01 a triple (128 triples a step, so "
            "1.28 on their mean)",
        ),
        "elliot": Profile(
            {"factors": 100, "l2": 2.5e-5, "l2_category": 2.5e-5},
            (TrainSettings(learning_rate=5e-4, batch_size=128, epochs=50, patience=0, epsilon=1e-7 / 128),),
            "the settings of sisinflab/elliot: Adam 5e-4, d 100, batch 128, 50 epochs, E without penalty",
        ),
    },
)
