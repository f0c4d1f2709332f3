"""ResNet50: torchvision's network, with both places of the stride, and weights from Keras."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imgrec_lib.features.backbones.spec import BackboneSpec, Opened
from imgrec_lib.features.backbones.weights import (
    checked_origin,
    downloaded,
    find_weights,
    label_of,
    load_weights,
    random_origin,
    read_weights,
    with_seed,
)


def _keras_layers() -> tuple[tuple[str, str | None], ...]:
    head = [
        ("input", None), ("conv1_pad", None), ("conv1_conv", "conv1"), ("conv1_bn", "bn1"), ("conv1_relu", "relu"),
        ("pool1_pad", None), ("pool1_pool", "maxpool"),
    ]  # fmt: skip
    first = [("1_conv", "conv1"), ("1_bn", "bn1"), ("1_relu", "relu")]
    second = [("2_conv", "conv2"), ("2_bn", "bn2"), ("2_relu", "relu")]
    plain = [("3_conv", "conv3"), ("3_bn", "bn3")]
    projection = [("0_conv", "downsample.0"), plain[0], ("0_bn", "downsample.1"), plain[1]]
    layers: list[tuple[str, str | None]] = list(head)
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            keras, module = f"conv{stage + 1}_block{block + 1}", f"layer{stage}.{block}"
            layers += [
                (f"{keras}_{name}", f"{module}.{part}")
                for name, part in first + second + (plain if block else projection)
            ]
            layers += [(f"{keras}_add", None), (f"{keras}_out", f"{module}.relu")]
    return (*layers, ("max_pool", "avgpool"))


KERAS_LAYERS = _keras_layers()
"""The 176 layers of Keras' ResNet50 without classifier, in Keras' order, each with torchvision's module (or None).

The last is the global pooling; in the graph that ImgRec's repository ships it is a maximum.
"""

KERAS_CUT = 126
"""ImgRec-EtE fixes the first 126 of these layers and updates the last 50 (Elsayed et al. 2022)."""

RESNET50_TRAINABLE = tuple(
    module for keras, module in KERAS_LAYERS[KERAS_CUT:] if module is not None and keras.endswith(("_conv", "_bn"))
)
_KERAS_VARIABLES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip


def _build_resnet50() -> nn.Module:
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    return network


def _find_resnet50(name: str) -> Path:
    from torchvision.models import ResNet50_Weights

    return downloaded(ResNet50_Weights[name].url, f"the weights {name} of resnet50")


def _resnet50_maps(network: Any, x: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def _move_stride(network: Any) -> None:
    """Place the strides as in Keras' ResNet50, on the first convolution of a block (He et al. 2016)."""
    for block in (network.layer2[0], network.layer3[0], network.layer4[0]):
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _set_keras_batch_norm(network: nn.Module) -> None:
    """Epsilon and momentum of Keras' ResNet50 (its momentum 0.99 is 0.01 in PyTorch's convention)."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1.001e-5, 0.01


def _from_keras(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Bring ResNet50 weights from Keras to torchvision's names and layout.

    Keras' layer names become torchvision's. Keras' convolutions have a bias and a batch norm follows each: the bias is
    subtracted from the batch norm's running mean and dropped. That changes nothing, in the tail neither: with batch
    statistics a bias before a batch norm cancels, and the running mean without it follows the same updates.

    Returns:
        The weights, and whether they came from Keras.
    """
    if any(key.startswith("conv1_conv/") for key in state):
        modules = dict(KERAS_LAYERS)
        renamed = {}
        for key, value in state.items():
            layer, _, variable = key.partition("/")
            if modules.get(layer) and variable in _KERAS_VARIABLES:
                value = value.permute(3, 2, 0, 1) if variable == "kernel" else value
                renamed[f"{modules[layer]}.{_KERAS_VARIABLES[variable]}"] = value
        state = renamed
    state = dict(state)
    convolutions = [str(module) for keras, module in KERAS_LAYERS if keras.endswith("_conv")]
    biased = [conv for conv in convolutions if f"{conv}.bias" in state]
    for conv in biased:
        norm = conv.replace("downsample.0", "downsample.1").replace("conv", "bn")
        bias = state.pop(f"{conv}.bias")
        if f"{norm}.running_mean" in state:
            state[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] - bias
    return state, bool(biased)


SPEC = BackboneSpec(
    name="resnet50",
    size=224,
    preprocessing="torchvision",
    pooling="avg",
    licence="BSD-3-Clause",
    source="He et al. 2016, Deep residual learning for image recognition",
    weights=("IMAGENET1K_V2", "IMAGENET1K_V1"),
    # The cut lies inside the first block here. Its shortcut needs the block's input, so that is what the trunk hands
    # over; the block's frozen conv1 and bn1 are run again, 4 % of the tail's work, and get no gradient.
    cut="layer3.4",
    # layer3[4].conv2, bn2, conv3, bn3, then layer3[5] and layer4: 15 convolutions, 15 batch norms.
    trainable=RESNET50_TRAINABLE,
)


def open_network(name: str, weights: str | Path, size: int | None, seed: int, stride: str | None = None) -> Opened:
    """See `build_backbone`. Weights converted from Keras bring the options of ImgRec's published graph."""
    keras = False
    if weights == "random":
        network = with_seed(_build_resnet50, seed)
        origin = random_origin(network, seed)
    else:
        path = find_weights(name, SPEC.weights, _find_resnet50, weights)
        origin = checked_origin(path, label_of(weights, SPEC.weights))
        state, keras = _from_keras(read_weights(path))
        network = with_seed(_build_resnet50, seed, "meta")
        load_weights(network, state, name, "fc.", path)
    if keras:
        _set_keras_batch_norm(network)
    origin["stride"] = stride or ("keras-v1" if keras else "v1.5")
    if origin["stride"] == "keras-v1":
        _move_stride(network)
    spec = replace(SPEC, pooling="max", preprocessing="caffe") if keras else SPEC
    return Opened(spec, network, size or SPEC.size, origin, maps=_resnet50_maps)
