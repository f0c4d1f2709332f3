"""Pop+VisRank: popularity corrected by visual similarity. Nothing is learned, yet it is hard to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.models.base import Extensible, ModelCard, Profile, Range, Recommender, Scorer
from imgrec_lib.models.visrank import VisRank
from imgrec_lib.options import NotNegative


@dataclass(frozen=True)
class WeightedSum:
    """s(u, i) = offset[i] + weight * base's s(u, i).

    Attributes:
        base: another scorer.
        weight: its weight.
        offset: (n_items,) float32.
    """

    base: Scorer
    weight: float
    offset: Tensor

    def block(self, users: Tensor) -> Tensor:
        return self.base.block(users).mul_(self.weight).add_(self.offset)

    def pairs(self, users: Tensor, items: Tensor) -> Tensor:
        return self.offset[items] + self.weight * self.base.pairs(users, items)

    def extended(self, rows: Tensor) -> WeightedSum:
        assert isinstance(self.base, Extensible)
        unsold = self.offset.new_zeros(len(rows))
        return WeightedSum(self.base.extended(rows), self.weight, torch.cat([self.offset, unsold]))


class PopVisRank(Recommender):
    """Score: s(u, i) = ln(1 + training interactions of i) + weight * VisRank's cosine score.

    A control that every trained visual model has to beat; no paper defines it. The weight is to be found on
    validation.

    Args:
        data: the training data; `features` are needed.
        weight: weight of the visual score.
        aggregate: "mean" or "max" over the user's training items, see `VisRank`.
    """

    log_popularity: Tensor

    def __init__(self, data: TrainingData, *, weight: NotNegative = 10.0, aggregate: str = "max") -> None:
        super().__init__()
        self.weight = weight
        self.visrank = VisRank(data, similarity="cosine", aggregate=aggregate)
        popularity = torch.as_tensor(data.interactions.popularity, dtype=torch.float32)
        self.register_buffer("log_popularity", popularity.log1p(), persistent=False)

    def scorer(self, times: Tensor | None = None) -> Scorer:
        return WeightedSum(self.visrank.scorer(times), self.weight, self.log_popularity)

    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the score's two terms."""
        looks = self.weight * self.visrank.scorer().pairs(users, items)
        return {"popularity": self.log_popularity[items], "likeness to purchases": looks}

    def purchase_similarity(self, user: int, items: Tensor) -> Tensor:
        """See `PurchaseParts`: VisRank's."""
        return self.visrank.purchase_similarity(user, items)

    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`; nobody has bought the new item."""
        return self.visrank.embed_pictures(pixels, features)


CARD = ModelCard(
    name="pop-visrank",
    title="Pop+VisRank",
    family="hybrid",
    needs=frozenset({"features"}),
    source="a control of this package, built on the VisRank baseline of Kang et al. 2017",
    fidelity="reconstruction",
    build=PopVisRank,
    profiles={
        "default": Profile(
            {"weight": 4.0, "aggregate": "max"}, note="tuned by validation AUC on a week of H&M purchases"
        ),
    },
    space={
        "weight": Range(0.5, 50.0, log=True),
        "aggregate": ["mean", "max"],
    },
)
