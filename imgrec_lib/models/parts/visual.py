"""The catalogue's visual features as the pairwise visual models (VBPR, DeepStyle, FM-visual) take them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError
from imgrec_lib.models.base import distinct, look_up


def shared_features(data: TrainingData) -> Tensor:
    """The features as a tensor that shares their memory, memory-mapped ones included: (n_items, n_features) float32."""
    assert data.features is not None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # it is only ever read
        return torch.from_numpy(np.asarray(data.features, dtype=np.float32))


def as_multiplied(features: Tensor) -> Tensor:
    """Features in the type in which they are about to be multiplied: (n_items, n_features), itself or in bfloat16.

    Mixed precision rounds the rows of every batch to bfloat16. Here all are rounded once, at the first batch, and the
    copy is kept beside the features, of which it has half the size: a batch then reads half as much.
    """
    device = features.device.type
    if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != torch.bfloat16:
        return features
    if not hasattr(features, "rounded"):
        features.rounded = features.bfloat16()  # type: ignore[attr-defined]
    return features.rounded  # type: ignore[attr-defined]


class CatalogueFeatures(nn.Module):
    """The features of all items, f_i, divided by one number, so that a learning rate suits any backbone.

    The UCSD code of VBPR divides CaffeNet's fc7 by 58.388599, the largest value in its catalogue. Here what the
    features are projected to is divided instead of the features: their array is shared, memory-mapped ones included,
    never copied. Nothing here is trained or stored in a checkpoint.

    Args:
        data: the training data; `features` are needed.
        scale: the divisor; 0 takes the largest absolute value in the catalogue.

    Raises:
        InputError: `scale` is negative.

    Attributes:
        values: (n_items, n_features) float32, undivided.
        scale: the divisor.
    """

    values: Tensor

    def __init__(self, data: TrainingData, scale: float = 0.0) -> None:
        super().__init__()
        if scale < 0:
            raise InputError(f"feature_scale must be positive, or 0 for the catalogue's maximum, not {scale}.")
        features = shared_features(data)
        # Without a single picture every feature is zero, and any divisor serves.
        self.scale = scale or float(max(features.max(), -features.min())) or 1.0
        self.register_buffer("values", features, persistent=False)

    @property
    def width(self) -> int:
        """Number of features of an item."""
        return self.values.shape[1]

    def forward(self, items: Tensor) -> Tensor:
        """Rows of the given items, undivided: int64 (...) -> (..., n_features)."""
        return look_up(as_multiplied(self.values), items)

    def distinct(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of items, undivided, each item once; and where each is among them.

        Args:
            items: int64 of any shape (...).

        Returns:
            (D, n_features) rows and int64 (...) places: `look_up(rows, places)` are the rows of `items`.
        """
        different, place = distinct(items)
        return self(different), place

    def difference(self, items: Tensor, weight: Tensor) -> Tensor:
        """(f_i - f_j) @ weight, the division included, for a loss that is linear in f.

        Projecting is most of such a loss's work, so the fewer rows are projected: those of the items in the batch, each
        once, or the pairs' differences.

        Args:
            items: (B, 1 + n) int64, each positive i and its negatives j (`Batch.items`).
            weight: (n_features, k).

        Returns:
            (B, n, k).
        """
        different, place = distinct(items)
        negatives = items[:, 1:]
        if len(different) <= negatives.numel():
            looks = look_up(self.project(self(different), weight), place)
            return looks[:, :1] - looks[:, 1:]
        pairs = torch.stack([items[:, :1].expand_as(negatives), negatives], -1).view(-1, 2)
        values = as_multiplied(self.values)
        signs = torch.ones(pairs.shape, dtype=values.dtype, device=pairs.device)
        signs[:, 1] = -1
        # A bag of two signed rows: gathered and subtracted in one pass over memory instead of three.
        rows = F.embedding_bag(pairs, values, mode="sum", per_sample_weights=signs)
        return self.project(rows, weight).view(*negatives.shape, -1)

    def projected(self, items: Tensor, weight: Tensor) -> Tensor:
        """f @ weight of items, each item projected once: int64 (...), (n_features, k) weight -> (..., k)."""
        rows, place = self.distinct(items)
        return look_up(self.project(rows, weight), place)

    def project(self, rows: Tensor, weight: Tensor) -> Tensor:
        """f @ weight, the division included: (..., n_features) rows, (n_features, k) weight -> (..., k)."""
        # With the weight's columns consecutive in memory its gradient, (G^T f)^T, takes half the time of f^T G.
        return F.linear(rows, weight.T.contiguous()) / self.scale
