"""Layers that several models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def crelu(h: Tensor) -> Tensor:
    """Concatenated ReLU, [relu(h), relu(-h)] along the last dimension, which it doubles."""
    return torch.cat([h.relu(), (-h).relu()], -1)


def feature_layer(n_features: int, units: int) -> nn.Linear:
    """W_phi and b_phi as Keras initialises a dense layer: Glorot uniform and zeros."""
    layer = nn.Linear(n_features, units)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
