"""A backbone as data: what it takes, what it gives, where it is cut; and one that a library has opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Preprocessing:
    """How pixels of 0..255 become the network's input: resized, then `(x - mean) / std` for each channel.

    Attributes:
        mean, std: one value a channel, in the network's channel order.
        bgr: whether the network's channel order is blue, green, red.
        interpolation: "bicubic" or "bilinear", with antialiasing.
        crop: share of the picture's side that the weights were published with, cut from its centre.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool = False
    interpolation: str = "bicubic"
    crop: float = 1.0

    @classmethod
    def published(
        cls, mean: Sequence[float], std: Sequence[float], interpolation: str = "bicubic", crop: float = 1.0
    ) -> Preprocessing:
        """As libraries publish it: mean and standard deviation of pixels of 0..1.

        PyTorch resizes tensors by no other interpolation than these two; others become "bicubic".
        """
        known = interpolation if interpolation in ("bicubic", "bilinear") else "bicubic"
        return cls(tuple(255 * x for x in mean), tuple(255 * x for x in std), False, known, crop)

    def __str__(self) -> str:
        mean, std = (" ".join(f"{x / 255:.4g}" for x in values) for values in (self.mean, self.std))
        return f"mean {mean}, std {std}, {self.interpolation}"


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
        size: height and width of the input that the published weights are used with, in pixels.
        preprocessing: the same of preprocessing: a key of `PREPROCESSING`, or what the library publishes.
        pooling: how a feature is made of the last feature map: "avg", "max", or "own" for what the network's own head
            does.
        licence: of the published weights, as their publisher states it.
        source: the paper, or where the weights come from.
        weights: names of the published weights, the default first; empty where the name of the backbone says them.
        cut: where end-to-end training cuts, see `build_backbone`.
        trainable: names of the modules after the cut whose weights end-to-end training updates; empty for all after it.
    """

    name: str
    size: int
    preprocessing: str | Preprocessing
    pooling: str
    licence: str
    source: str
    weights: tuple[str, ...] = ()
    cut: str = "2"
    trainable: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Opened:
    """A network with its weights, as the library that it comes from opened it.

    Attributes:
        spec: what it is; where the weights ask for it, pooling and preprocessing other than the published ones.
        network: on the CPU.
        size: height and width of its input, in pixels.
        origin: weights, weights_sha256 (16 digits) and, for ResNet50, stride.
        features: (network, input) -> the features of its own head, (B, n_features); None where it has no head.
        maps: (network, input) -> the last feature map, (B, channels, h, w); None where there is none to be had.
        texts: (network, sentences) -> their vectors in the space of the features; None where it reads no text.
    """

    spec: BackboneSpec
    network: nn.Module
    size: int
    origin: dict[str, str] = field(default_factory=dict)
    features: Callable[[Any, Tensor], Tensor] | None = None
    maps: Callable[[Any, Tensor], Tensor] | None = None
    texts: Callable[[Any, Sequence[str]], Tensor] | None = None


def grid_of_tokens(tokens: Tensor) -> Tensor:
    """The tokens of patches as a map: (B, prefix + h h, channels) -> (B, channels, h, h), without what precedes them.

    Transformers put a few tokens that are no patches (of the class, registers) before those of the patches, whose
    number is a square.
    """
    side = int(tokens.shape[1] ** 0.5)
    return tokens[:, tokens.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))


def observed(module: nn.Module, run: Callable[[], Any]) -> tuple[Any, Any]:
    """The arguments that a module gets, and what it returns, while `run` runs the network that it is part of."""
    seen: list[tuple[Any, Any]] = []
    handle = module.register_forward_hook(lambda module, args, output: seen.append((args, output)))
    try:
        run()
    finally:
        handle.remove()
    return seen[0]
