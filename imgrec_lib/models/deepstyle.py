"""DeepStyle: an item's style is its projected picture less what its whole category looks like."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.data.sampler import Batch, CandidateBatch, Sampler
from imgrec_lib.models.base import InnerProduct, ModelCard, Profile, Range, Recommender, TrainSettings, dot, look_up
from imgrec_lib.models.parts.losses import bpr, half_squared_norm, penalties_at
from imgrec_lib.models.parts.objective import Objective
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES
from imgrec_lib.models.parts.visual import CatalogueFeatures
from imgrec_lib.options import Count, NotNegative, Positive


class DeepStyle(Recommender):
    """Score: s(u, i) = <p_u, E f_i - l_c(i) + q_i> (Liu, Wu, Wang 2017).

    l is a table over categories, shared by all items of one. Loss: mean of -ln sigma(s(u,i) - s(u,j)), plus l2 *
    mean(1/2 |p_u|^2 + 1/2 |q_i|^2 + 1/2 |q_j|^2) + l2_category * mean(1/2 |l_c(i)|^2 + 1/2 |l_c(j)|^2) + l2_visual *
    1/2 |E|^2. A reconstruction: the score follows public implementations and summaries, corrected where their
    category table was indexed by item; the paper's text was not at hand. What they leave open is an option:
    `two_user_vectors` (the score is then <p_u, q_i> + <t_u, E f_i - l_c(i)>), and offsets b_i of the item, b_c of its
    category and <b', f_i> of its picture, which are penalised with q, l and E.

    Args:
        data: the training data; `features` and `categories` are needed.
        loss: what is minimised, see `Objective`; other losses than "bpr" take the place of its term.
        factors: size d of all vectors.
        l2, l2_category, l2_visual: penalty weights.
        at_interactions: training interactions a row where these were found, see `penalties_at`; None: as they are.
        initial_scale: all tables start normal with this standard deviation.
        feature_scale: the features' divisor; 0 for the catalogue's maximum.
        two_user_vectors: whether style has a user vector t of its own.
        item_bias, category_bias, visual_bias: whether there are b, b_c and b'; they start at 0.
    """

    category: Tensor
    item_bias: nn.Parameter | None
    category_bias: nn.Parameter | None
    visual_bias: nn.Parameter | None

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_category: NotNegative = 0.0,
        l2_visual: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.01,
        feature_scale: NotNegative = 0.0,
        two_user_vectors: bool = False,
        item_bias: bool = False,
        category_bias: bool = False,
        visual_bias: bool = False,
    ) -> None:
        super().__init__()
        self.objective = Objective(loss)
        penalties = penalties_at(at_interactions, data.interactions, l2, l2_category, l2_visual)
        self.l2, self.l2_category, self.l2_visual = penalties
        self.features = CatalogueFeatures(data, feature_scale)
        self.register_buffer("category", torch.as_tensor(data.categories), persistent=False)
        width = 2 * factors if two_user_vectors else factors  # p, or p and behind it t
        self.users = nn.Parameter(torch.empty(data.n_users, width).normal_(std=initial_scale))
        self.items = nn.Parameter(torch.empty(data.n_items, factors).normal_(std=initial_scale))
        self.categories = nn.Parameter(torch.empty(data.n_categories, factors).normal_(std=initial_scale))
        self.projection = nn.Parameter(torch.empty(self.features.width, factors).normal_(std=initial_scale))
        for name, wanted, length in (
            ("item_bias", item_bias, data.n_items),
            ("category_bias", category_bias, data.n_categories),
            ("visual_bias", visual_bias, self.features.width),
        ):
            self.register_parameter(name, nn.Parameter(torch.zeros(length)) if wanted else None)

    def row_tables(self) -> tuple[nn.Parameter, ...]:
        items = [self.items] if self.item_bias is None else [self.items, self.item_bias]
        return self.objective.row_tables(users=[self.users], items=items)

    def sample(self, sampler: Sampler, settings: TrainSettings) -> Batch | CandidateBatch:
        return self.objective.sample(sampler, settings)

    def for_own(self, rows: Tensor) -> Tensor:
        """Rows that meet p_u: (..., d) -> (..., 2 d), zeros for t_u; with one user vector the rows themselves."""
        return F.pad(rows, (0, self.users.shape[1] - rows.shape[-1]))

    def for_style(self, rows: Tensor) -> Tensor:
        """Rows that meet t_u, as `for_own`."""
        return F.pad(rows, (self.users.shape[1] - rows.shape[-1], 0))

    def visual_weight(self) -> Tensor:
        """E, beside it b' if there is one, so that one product gives both: (n_features, d or d + 1)."""
        if self.visual_bias is None:
            return self.projection
        return torch.cat([self.projection, self.visual_bias.unsqueeze(1)], 1)

    def visual(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Of pictures, (..., d or d + 1): E f as rows that meet the user's, and <b', f>, which is 0 without b'."""
        factors = self.projection.shape[1]
        return self.for_style(projected[..., :factors]), projected[..., factors:].sum(-1)

    def offsets(self, items: Tensor) -> Tensor:
        """b_i + b_c(i) of items (...), as far as there are such offsets."""
        found = self.users.new_zeros(items.shape)
        if self.item_bias is not None:
            found = found + look_up(self.item_bias, items)
        if self.category_bias is not None:
            found = found + look_up(self.category_bias, self.category[items])
        return found

    def loss(self, batch: Batch | CandidateBatch) -> Tensor:
        user, candidates = look_up(self.users, batch.users), batch.items
        items, categories = look_up(self.items, candidates), look_up(self.categories, self.category[candidates])
        vectors, offsets = self.for_own(items) - self.for_style(categories), self.offsets(candidates)
        if self.objective.loss == "bpr":
            looks, pictures = self.visual(self.features.difference(candidates, self.visual_weight()))
            scores = dot(user, vectors) + offsets
            ranking = bpr(scores[:, 0], scores[:, 1:] - (dot(user, looks) + pictures))
        else:
            looks, pictures = self.visual(self.features.projected(candidates, self.visual_weight()))
            ranking = self.objective(batch, user, vectors + looks, offsets + pictures)
        loss = (
            ranking
            + self.l2 * half_squared_norm(user, *batch.split(items))
            + self.l2_category * half_squared_norm(*batch.split(categories))
        )
        if self.item_bias is not None:
            loss = loss + self.l2 * half_squared_norm(*batch.split(look_up(self.item_bias, candidates).unsqueeze(-1)))
        if self.category_bias is not None:
            biases = look_up(self.category_bias, self.category[candidates])
            loss = loss + self.l2_category * half_squared_norm(*batch.split(biases.unsqueeze(-1)))
        if self.l2_visual:
            loss = loss + self.l2_visual * 0.5 * self.visual_weight().square().sum()
        return loss

    @torch.no_grad()
    def scorer(self, times: Tensor | None = None) -> InnerProduct:
        looks, pictures = self.visual(self.features.project(self.features.values, self.visual_weight()))
        vectors = looks - self.for_style(self.categories[self.category]) + self.for_own(self.items)
        if not self.has_offsets:
            return InnerProduct(self.users.detach(), vectors)
        offsets = self.offsets(torch.arange(len(self.items), device=vectors.device))
        return InnerProduct.with_item_offset(self.users.detach(), vectors, offsets + pictures)

    @property
    def has_offsets(self) -> bool:
        """Whether there is any offset."""
        return any(bias is not None for bias in (self.item_bias, self.category_bias, self.visual_bias))

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the score's three terms, and the offsets where there are any."""
        looks, pictures = self.visual(self.features.project(self.features(items), self.visual_weight()))
        rows = {
            "id": self.for_own(self.items[items]),
            "picture": looks,
            "category": -self.for_style(self.categories[self.category[items]]),
        }
        parts = {name: torch.einsum("bk,bck->bc", self.users[users], part) for name, part in rows.items()}
        return parts | {"offset": self.offsets(items) + pictures} if self.has_offsets else parts

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`; the category, too, counts as it does in the mean over the catalogue."""
        looks, pictures = self.visual(self.features.project(features, self.visual_weight()))
        unknown = (self.for_own(self.items) - self.for_style(self.categories[self.category])).mean(0)
        if not self.has_offsets:
            return looks + unknown
        offset = self.offsets(torch.arange(len(self.items), device=looks.device)).mean() + pictures
        return torch.cat([looks + unknown, offset.unsqueeze(1)], 1)


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
            {"factors": 32, "l2": 0.03, "l2_category": 0.1, "l2_visual": 0.01, "at_interactions": HM_WEEK},
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
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-3, 1.0, log=True),
        "l2_category": Range(1e-3, 1.0, log=True),
        "l2_visual": Range(1e-5, 0.1, log=True),
    },
)
