"""What multimodal models know of an item beside its id: kinds of features, brought to the size of the id vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData, split_sets
from imgrec_lib.models.parts.visual import CatalogueFeatures


class Modality(nn.Module):
    """W f_i + b of the items' features f_i of one kind.

    Args:
        features: the features.
        factors: the size that they are brought to.
        bias: whether there is a b.
    """

    def __init__(self, features: CatalogueFeatures, factors: int, bias: bool) -> None:
        super().__init__()
        self.features = features
        self.layer = nn.Linear(features.width, factors, bias)
        nn.init.xavier_normal_(self.layer.weight)

    def forward(self, items: Tensor) -> Tensor:
        """int64 items of any shape (...) -> (..., factors)."""
        projected = self.features.projected(items, self.layer.weight.T)
        return projected if self.layer.bias is None else projected + self.layer.bias


def modalities_of(data: TrainingData, factors: int, *, bias: bool) -> dict[str, Modality]:
    """Each set of features that the data has, by its place; see `Modality`. One without a name is "picture"."""
    if not data.feature_widths:
        return {"picture": Modality(CatalogueFeatures(data), factors, bias)}
    assert data.features is not None
    views = split_sets(data.features, data.feature_widths)
    alone = [replace(data, features=np.ascontiguousarray(view), feature_widths={}) for view in views.values()]
    # The names are people's own, and may be such as no module can have.
    return {f"features {n}": Modality(CatalogueFeatures(each), factors, bias) for n, each in enumerate(alone, 1)}
