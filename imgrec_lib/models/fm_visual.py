"""FM-visual: the factorisation machine over user id, item id and the item's visual features, trained pairwise."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import ModelCard, Profile, Range, TrainSettings, look_up
from imgrec_lib.models.fm import FactorisationMachine
from imgrec_lib.models.parts.losses import penalties_at
from imgrec_lib.models.parts.settings import HM_WEEK, LARGE_BATCHES
from imgrec_lib.models.parts.visual import CatalogueFeatures
from imgrec_lib.options import Count, NotNegative, Positive


class FMVisual(FactorisationMachine):
    """Score, up to what depends on the user alone, with g_i = V^T f_i and V_k the row of feature k:

    s(u, i) = w_i + <w_f, f_i> + <v_u, v_i> + <v_u, g_i> + <v_i, g_i> + 1/2 (|g_i|^2 - sum_k f_ik^2 |V_k|^2)

    The last term sums the interactions of all pairs of features in linear time (Rendle 2010, lemma 3.1). A
    reconstruction: it is one reading of the "FM" of Elsayed et al. 2022, Table 2, whose result is out of reach of an
    FM over ids. Which fields it had is not known: `use_categories` adds the item's category as one more, with a vector
    v_c and a weight w_c; without `feature_pairs` features meet the ids and not each other, and the last term is left
    out. The loss adds l2_visual * 1/2 (|V|^2 + |w_f|^2), over the whole of both, to `FactorisationMachine`'s; the
    tables of v_c and w_c are penalised with V and w_f.

    Args:
        data, loss, factors, l2, l2_linear, initial_scale: see `FactorisationMachine`; V starts like the other vectors.
        l2_visual: penalty weight of V and w_f.
        at_interactions: training interactions a row where penalties were found, see `penalties_at`; None: as they are.
        feature_scale: the features' divisor; 0 for the catalogue's maximum.
        feature_pairs, use_categories: see above; v_c starts like the other vectors.

    Raises:
        InputError: `use_categories` on data without categories.
    """

    category: Tensor | None

    def __init__(
        self,
        data: TrainingData,
        *,
        loss: str = "bpr",
        factors: Count = 64,
        l2: NotNegative = 0.0,
        l2_linear: NotNegative = 0.0,
        l2_visual: NotNegative = 0.0,
        at_interactions: Positive | None = None,
        initial_scale: NotNegative = 0.01,
        feature_scale: NotNegative = 0.0,
        feature_pairs: bool = True,
        use_categories: bool = False,
    ) -> None:
        super().__init__(
            data,
            loss=loss,
            factors=factors,
            l2=l2,
            l2_linear=l2_linear,
            at_interactions=at_interactions,
            initial_scale=initial_scale,
        )
        (self.l2_visual,) = penalties_at(at_interactions, data.interactions, l2_visual)
        self.features = CatalogueFeatures(data, feature_scale)
        self.feature_vectors = nn.Parameter(torch.empty(self.features.width, factors).normal_(std=initial_scale))
        self.feature_weight = nn.Parameter(torch.zeros(self.features.width))
        self.feature_pairs = feature_pairs
        if use_categories and data.categories is None:
            raise InputError("use_categories of FM-visual needs categories: add a 'category' column to the item table.")
        category = torch.as_tensor(data.categories) if use_categories else None
        self.register_buffer("category", category, persistent=False)
        if use_categories:
            self.categories = nn.Parameter(torch.empty(data.n_categories, factors).normal_(std=initial_scale))
            self.category_weight = nn.Parameter(torch.zeros(data.n_categories))

    def identity(self, items: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over an item's fields but its features: of vectors, (..., K), and of weights and pairs, (...)."""
        if self.category is None:
            return vectors, weights
        category = look_up(self.categories, self.category[items])
        weights = weights + look_up(self.category_weight, self.category[items]) + (vectors * category).sum(-1)
        return vectors + category, weights

    def item_side(self, items: Tensor, vectors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        rows, place = self.features.distinct(items)
        projected, alone = self.picture_side(rows)
        both = look_up(torch.cat([projected, alone.unsqueeze(1)], 1), place)
        projected, alone = both[..., :-1], both[..., -1]
        vectors, weights = self.identity(items, vectors, weights)
        return vectors + projected, weights + alone + (vectors * projected).sum(-1)

    def picture_side(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """g_i, and the picture's offset <w_f, f_i> + 1/2 (|g_i|^2 - sum_k f_ik^2 |V_k|^2).

        Args:
            rows: (..., n_features) undivided features.

        Returns:
            (..., K) and (...).
        """
        # V^T f_i and <w_f, f_i> in one product; the squares carry the features' divisor twice.
        linear = torch.cat([self.feature_vectors, self.feature_weight.unsqueeze(1)], 1)
        projected, weighted = self.features.project(rows, linear).split([self.feature_vectors.shape[1], 1], -1)
        if not self.feature_pairs:
            return projected, weighted.squeeze(-1)
        norms = self.feature_vectors.square().sum(1, keepdim=True) / self.features.scale
        own = self.features.project(rows.square(), norms)
        return projected, (weighted + 0.5 * (projected.square().sum(-1, keepdim=True) - own)).squeeze(-1)

    @torch.no_grad()
    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`; "id and picture" is <v_i, g_i>, the category counted with the id."""
        vector, weight = self.identity(items, self.items[items], self.item_weight[items])
        projected, visual = self.picture_side(self.features(items))
        user = self.users[users]
        return {
            "id": torch.einsum("bk,bck->bc", user, vector),
            "picture": torch.einsum("bk,bck->bc", user, projected),
            "id offset": weight,
            "picture offset": visual,
            "id and picture": (vector * projected).sum(-1),
        }

    @torch.no_grad()
    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`."""
        every = torch.arange(len(self.items), device=self.items.device)
        vector, weight = (part.mean(0) for part in self.identity(every, self.items, self.item_weight))
        projected, visual = self.picture_side(features)
        offset = weight + visual + projected @ vector
        return torch.cat([vector + projected, offset.unsqueeze(1)], 1)

    def shared_penalty(self) -> Tensor | None:
        if not self.l2_visual:
            return None
        squares = self.feature_vectors.square().sum() + self.feature_weight.square().sum()
        if self.category is not None:
            squares = squares + self.categories.square().sum() + self.category_weight.square().sum()
        return self.l2_visual * 0.5 * squares


CARD = ModelCard(
    name="fm-visual",
    title="FM-visual",
    family="visual",
    needs=frozenset({"features"}),
    source="Rendle 2010, Factorization Machines; pairwise loss of Rendle et al. 2009",
    fidelity="reconstruction",
    build=FMVisual,
    profiles={
        "default": Profile(
            {"factors": 64, "l2": 0.03, "l2_linear": 1e-3, "l2_visual": 0.01, "at_interactions": HM_WEEK},
            (replace(LARGE_BATCHES, learning_rate=3e-3),),
            "tuned by validation AUC on a week of H&M purchases",
        ),
        "paper": Profile(
            {"factors": 10, "initial_scale": 0.1},
            (TrainSettings(learning_rate=1e-3),),
            "a reconstruction: the published 0.7093 and 0.6654 come without settings or list of fields",
        ),
    },
    space={
        "factors": [32, 64, 128],
        "learning_rate": Range(1e-3, 3e-2, log=True),
        "l2": Range(1e-3, 1.0, log=True),
        "l2_visual": Range(1e-5, 0.1, log=True),
    },
)
