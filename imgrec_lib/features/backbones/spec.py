"""A backbone as data: what it takes, what it gives, where it is cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Preprocessing:
    """How pixels of 0..255 become the network's input: `(x - mean) / std` for each channel.

    Attributes:
        mean, std: one value a channel, in the network's channel order.
        bgr: whether the network's channel order is blue, green, red.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


PREPROCESSING = {
    "torchvision": Preprocessing((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    "caffe": Preprocessing((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), bgr=True),
    "efficientnet-lite": Preprocessing((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
}
POOLING: dict[str, Callable[[Tensor, int], Tensor]] = {"avg": F.adaptive_avg_pool2d, "max": F.adaptive_max_pool2d}
STRIDES = ("v1.5", "keras-v1")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone as data.

    Attributes:
        name: the name by which it is chosen.
        n_features: length of the pooled feature.
        size: default height and width of the input, in pixels.
        weights: names of the published weights, the default first.
        preprocessing, pooling: what the published weights are used with.
        licence: of code and published weights.
        source: the paper.
        build: input size -> the network, untrained and without a classifier.
        find: name of published weights -> their file.
        classifier: prefix of the classifier's entries in a weights file; they are not loaded.
        trunk: (network, network input) -> the activations at the cut.
        tail: (network, activations at the cut) -> the last feature map, (B, n_features, h, w).
        trainable: names of the modules after the cut, whose weights end-to-end training updates.
        channels, reduction: the activations at the cut have `channels` maps whose side is the input's divided by
            `reduction`, rounded up.
    """

    name: str
    n_features: int
    size: int
    weights: tuple[str, ...]
    preprocessing: str
    pooling: str
    licence: str
    source: str
    build: Callable[[int], nn.Module]
    find: Callable[[str], Path]
    classifier: str
    trunk: Callable[[Any, Tensor], Tensor]
    tail: Callable[[Any, Tensor], Tensor]
    trainable: tuple[str, ...]
    channels: int
    reduction: int
