"""What multimodal models know of an item beside its id: kinds of features, brought to the size of the id vectors."""

from __future__ import annotations

from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
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
    """Each kind of features that the data has, by its name; see `Modality`."""
    return {"picture": Modality(CatalogueFeatures(data), factors, bias)}
