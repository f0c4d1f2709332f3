"""ItemKNN with pictures: what others bought with the user's purchases, and what looks like them. Nothing is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from imgrec_lib.data.dataset import Interactions, TrainingData
from imgrec_lib.models.base import ModelCard, Profile, Range
from imgrec_lib.models.item_knn import ItemKNN
from imgrec_lib.models.parts.purchases import DenseWeights, ItemWeights, PurchaseSum, SparseWeights
from imgrec_lib.models.parts.visual import shared_features
from imgrec_lib.options import CountOrNone, NotNegative, Positive

REMEMBERED = 2**27
"""Weights that are computed once and kept, 512 MB: those of catalogues of up to 11,585 items."""


@dataclass(frozen=True, eq=False)
class PictureWeights:
    """w_ji = weight * max(0, <purchases[j], candidates[i]>)^power.

    Attributes:
        purchases: (n, k) float32, rows of length 1 or 0.
        candidates: (n_items, k) float32, alike.
        weight, power: numbers.
    """

    purchases: Tensor
    candidates: Tensor
    weight: float
    power: float

    def add_sums(self, purchases: sparse.csr_matrix, items: slice, out: Tensor) -> None:
        if len(self.purchases) * len(self.candidates) <= REMEMBERED:
            self._all.add_sums(purchases, items, out)
            return
        different, place = np.unique(purchases.indices, return_inverse=True)
        some = DenseWeights(self._weights(self.purchases[torch.from_numpy(different)], self.candidates[items]))
        shape = purchases.shape[0], len(different)
        some.add_sums(sparse.csr_matrix((purchases.data, place, purchases.indptr), shape=shape), slice(None), out)

    def between(self, purchases: np.ndarray, items: np.ndarray) -> Tensor:
        return self._weights(self.purchases[torch.from_numpy(purchases)], self.candidates[torch.from_numpy(items)])

    @cached_property
    def _all(self) -> DenseWeights:
        return DenseWeights(self._weights(self.purchases, self.candidates))

    def _weights(self, purchases: Tensor, candidates: Tensor) -> Tensor:
        return (purchases @ candidates.T).clamp_(min=0).pow_(self.power).mul_(self.weight)


@dataclass(frozen=True)
class VisualPurchaseSum(PurchaseSum):
    """The scorer of `VisualItemKNN`, which takes in items that nobody has bought."""

    def extended(self, rows: Tensor) -> VisualPurchaseSum:
        together, pictures = self.weights
        assert isinstance(together, SparseWeights) and isinstance(pictures, PictureWeights)
        nothing = sparse.csc_matrix((together.values.shape[0], len(rows)), dtype=np.float32)
        more = (
            SparseWeights(sparse.hstack([together.values, nothing], format="csc")),
            replace(pictures, candidates=torch.cat([pictures.candidates, rows])),
        )
        return VisualPurchaseSum(self.purchases, more, torch.cat([self.offset, self.offset.new_zeros(len(rows))]))


class VisualItemKNN(ItemKNN):
    """Score: s(u, i) = sum over j in I_u of (c_ij + pictures * max(0, v_ij)^power) + popularity * ln(1 + |U_i|).

    c_ij is that of `ItemKNN`; v_ij is the cosine of the two items' visual features, the catalogue's mean taken off
    first, and 0 for an item without a picture (zero features), which does not count in the mean either. The power lets
    near neighbours speak and keeps the many items that are a little alike from drowning them. No paper defines it: a
    rule of this package, and a control that every trained visual model has to beat.

    Args:
        data: the training data; `features` are needed.
        shrink, neighbours, popularity: see `ItemKNN`.
        pictures: weight of the picture's neighbours.
        power: to which their cosine is raised.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        shrink: NotNegative = 10.0,
        neighbours: CountOrNone = 0,
        popularity: float = 0.0,
        pictures: NotNegative = 0.1,
        power: Positive = 4.0,
    ) -> None:
        super().__init__(data, shrink=shrink, neighbours=neighbours, popularity=popularity)
        features = shared_features(data)
        present = features.any(1)
        self.mean = features[present].mean(0) if present.any() else torch.zeros(features.shape[1])
        rows = self._rows(features)
        self.pictures = PictureWeights(rows, rows, pictures, power)

    def weights(self) -> Sequence[ItemWeights]:
        return self.together, self.pictures

    def contributions(self, users: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Split scores exactly, see `ScoreParts`: the score's three terms."""
        looks = {"likeness to purchases": self._summed(self.pictures, users, items)}
        return super().contributions(users, items) | looks

    def embed_pictures(self, pixels: Tensor, features: Tensor) -> Tensor:
        """See `PictureEmbedding`; nobody has bought the new item."""
        return self._rows(features)

    def _rows(self, features: Tensor) -> Tensor:
        """Features as unit vectors around the catalogue's mean, zeros where there is no picture."""
        return F.normalize(torch.where(features.any(1, keepdim=True), features - self.mean, 0), dim=1)

    def _scorer(self, interactions: Interactions) -> VisualPurchaseSum:
        plain = super()._scorer(interactions)
        return VisualPurchaseSum(plain.purchases, plain.weights, plain.offset)


CARD = ModelCard(
    name="item-knn-visual",
    title="ItemKNN + pictures",
    family="hybrid",
    needs=frozenset({"features"}),
    source="a control of this package, built on ItemKNN (Sarwar et al. 2001) and VisRank (Kang et al. 2017)",
    fidelity="reconstruction",
    build=VisualItemKNN,
    profiles={
        "default": Profile(
            {"shrink": 10.0, "popularity": 0.01, "pictures": 0.1, "power": 4.0},
            note="chosen by validation NDCG@10 on a week of H&M purchases",
        )
    },
    space={
        "shrink": Range(1.0, 1e3, log=True),
        "popularity": Range(1e-3, 1.0, log=True),
        "pictures": Range(1e-2, 10.0, log=True),
        "power": [1.0, 2.0, 4.0],
    },
)
