"""The catalogue's visual features as the pairwise visual models (VBPR, DeepStyle, FM-visual) take them."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from imgrec_lib.data.dataset import TrainingData
from imgrec_lib.errors import InputError


class CatalogueFeatures(nn.Module):
    """The features of all items divided by one number, so that a learning rate suits any backbone.

    The UCSD code of VBPR divides CaffeNet's fc7 by 58.388599, the largest value in its catalogue. The division is made
    on the rows in use: the catalogue's array is shared, memory-mapped ones included, never copied. Nothing here is
    trained or stored in a checkpoint.

    Args:
        data: the training data; `features` are needed.
        scale: the divisor; 0 takes the largest absolute value in the catalogue.

    Raises:
        InputError: `scale` is negative.
    """

    values: Tensor

    def __init__(self, data: TrainingData, scale: float = 0.0) -> None:
        super().__init__()
        assert data.features is not None
        if scale < 0:
            raise InputError(f"feature_scale must be positive, or 0 for the catalogue's maximum, not {scale}.")
        features = np.asarray(data.features, dtype=np.float32)
        # Without a single picture every feature is zero, and any divisor serves.
        self.scale = scale or float(max(features.max(), -features.min())) or 1.0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # it is only ever read
            self.register_buffer("values", torch.from_numpy(features), persistent=False)

    @property
    def width(self) -> int:
        """Number of features of an item."""
        return self.values.shape[1]

    def forward(self, items: Tensor) -> Tensor:
        """f_i of the given items: int64 (...) -> (..., n_features) float32."""
        return self.values[items] / self.scale

    def difference(self, positives: Tensor, negatives: Tensor) -> Tensor:
        """f_i - f_j, to be projected once where a pairwise loss would project f_i and f_j: (B, n, n_features).

        Args:
            positives: (B,) int64.
            negatives: (B, n) int64.
        """
        return (self.values[positives].unsqueeze(1) - self.values[negatives]) / self.scale

    def project(self, weight: Tensor) -> Tensor:
        """f_i @ weight of the whole catalogue: (n_features, k) or (n_features,) -> (n_items, k) or (n_items,)."""
        return self.values @ (weight / self.scale)
