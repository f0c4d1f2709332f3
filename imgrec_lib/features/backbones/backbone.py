"""A backbone with its weights, and how one is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.errors import InputError, unknown_name
from imgrec_lib.features.backbones.cut import PICTURES, Cut, after, before, block_names, find_cut, resolve_block
from imgrec_lib.features.backbones.hub import licence_of
from imgrec_lib.features.backbones.registry import check_backbone, family, list_backbones
from imgrec_lib.features.backbones.spec import POOLING, PREPROCESSING, STRIDES, Opened, Preprocessing
from imgrec_lib.files import plain_path
from imgrec_lib.options import Count, CountOrNone


class Backbone(nn.Module):
    """A backbone with its weights: pixels -> features, in one step or cut in two.

    The trunk is what comes before the cut, the tail what follows. Everything is frozen and in inference mode until
    `unfreeze`, which concerns the tail alone. Batch norms of the tail then use batch statistics in training mode and
    update their moving averages; the frozen ones never do.

    Built by `build_backbone`.

    Attributes:
        spec: the backbone's specification.
        network: the library's module.
        size: height and width of the input, in pixels.
        pooling: "avg", "max" or "own".
        description: what the features depend on, as text: backbone, weights, weights_sha256 (16 digits), random
            ("yes" or "no"), size, pooling, preprocessing (its name, or mean, standard deviation and interpolation)
            and, for ResNet50, stride; crop where the picture's edge is cut off.
        credit: "licence" and "source" of the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        opened: Opened,
        weights: str | Path,
        pooling: str,
        preprocessing: str | Preprocessing,
        crop: bool,
        cut: str,
    ) -> None:
        super().__init__()
        self.spec, self.size, self.pooling = opened.spec, opened.size, pooling
        self.network = opened.network.to(memory_format=torch.channels_last)
        self._opened, self._asked = replace(opened, network=nn.Identity()), cut
        constants = PREPROCESSING[preprocessing] if isinstance(preprocessing, str) else preprocessing
        self._preprocessing, self._crop = constants, constants.crop if crop else 1.0
        self.description = {
            "backbone": opened.spec.name,
            "size": str(opened.size),
            "pooling": pooling,
            "preprocessing": str(preprocessing),
            "random": "yes" if weights == "random" else "no",
            **opened.origin,
        }
        self.credit = _credit(opened, weights)
        if self._crop < 1:
            self.description["crop"] = f"{self._crop:.4g}"
        self.register_buffer("mean", torch.tensor(constants.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(constants.std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @property
    def random(self) -> bool:
        """Whether the weights are random, not trained."""
        return self.description["random"] == "yes"

    @cached_property
    def n_features(self) -> int:
        """Length of a feature.

        Raises:
            InputError: the network does not give one vector a picture.
        """
        with torch.no_grad():
            found = self.features(self.blank(1))
        if found.ndim != 2 or len(found) != 1:
            raise InputError(
                f"{self.spec.name} gives {tuple(found.shape)} for a picture of {self.size} pixels, not one vector: "
                "choose another backbone."
            )
        return found.shape[1]

    def card(self) -> dict[str, Any]:
        """What people want to know of it: size, preprocessing, licence, source, blocks, whether it reads text."""
        shown = self.spec.preprocessing
        return {
            "name": self.spec.name,
            "features": self.n_features,
            "size": self.size,
            "input": str(PREPROCESSING[shown] if isinstance(shown, str) else shown),
            "weights": list(self.spec.weights),
            "licence": self.spec.licence,
            "source": self.spec.source,
            "text": "reads text too" if self._opened.texts is not None else "",
            "blocks": block_names(self.network, self.features, self.blank(1)),
        }

    @cached_property
    def cut(self) -> Cut:
        """Where the network is cut in two.

        Raises:
            InputError: there is no such block, or the network cannot be cut there.
        """
        training = self.network.training
        self.network.eval()
        noise = torch.rand(self.blank(PICTURES).shape, generator=torch.Generator().manual_seed(0))
        x = noise.to(self.mean) - 0.5
        block = resolve_block(self.network, self._asked or self.spec.cut, self.features, x, self.spec.name)
        found = find_cut(self.network, block, self.features, x, self.spec.name)
        self.network.train(training)
        if self.spec.trainable and not self._asked:
            found = replace(found, trainable=self.spec.trainable, loose=())
        return found

    @property
    def activation_shape(self) -> tuple[int, ...]:
        """Shape of one picture's activations at the cut.

        At 224 px (1024, 14, 14) for ResNet50, 802,816 bytes in float32, and (192, 7, 7) for EfficientNet-Lite0,
        37,632 bytes.
        """
        return self.cut.shape

    @property
    def memory_order(self) -> tuple[int, ...]:
        """The dimensions of an activation as they lie in memory, the slowest first: channels last for convolutions."""
        return self.cut.order

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
        # Of what is resized to this, the centre is the input.
        side = round(self.size / self._crop)
        if x.shape[-2:] != (side, side):
            # Bicubic interpolation overshoots at edges.
            mode = self._preprocessing.interpolation
            x = F.interpolate(x, (side, side), mode=mode, antialias=True).clamp(0, 255)
        edge = (side - self.size) // 2
        x = x[..., edge : edge + self.size, edge : edge + self.size]
        if self._preprocessing.bgr:
            x = x.flip(1)
        return (x - self.mean) / self.std

    def trunk(self, pixels: Tensor) -> Tensor:
        """Pixels (as for `preprocess`) -> activations at the cut, (B, *activation_shape), without gradient."""
        with torch.no_grad():
            return before(self.network, self.cut, self.features, self.preprocess(pixels))

    def tail(self, activations: Tensor) -> Tensor:
        """Activations at the cut -> features, (B, n_features)."""
        return after(self.network, self.cut, self.features, self.blank(len(activations)), activations)

    def maps(self, activations: Tensor) -> Tensor:
        """Activations at the cut -> the last feature map, (B, channels, h, w).

        Raises:
            InputError: the network has no such map.
        """
        return after(self.network, self.cut, self._maps, self.blank(len(activations)), activations)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (as for `preprocess`) -> features, (B, n_features)."""
        return self.features(self.preprocess(pixels))

    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> their vectors in the space of the features, (len(sentences), n_features) float32, on the CPU.

        Their cosine with a picture's feature says how well they describe it.

        Raises:
            InputError: the backbone reads no text, or its tokenizer cannot be opened.
        """
        if self._opened.texts is None or self.pooling != "own":
            raise InputError(
                f"{self.spec.name} (pooling {self.pooling!r}) has no text in the space of its features: choose an "
                "image-text encoder of hf/... or open_clip/..., such as a CLIP or SigLIP, with its own pooling."
            )
        with torch.no_grad():
            return self._opened.texts(self.network, sentences).float().cpu()

    def tail_modules(self) -> list[nn.Module]:
        """The modules after the cut that have weights to train."""
        return [self.network.get_submodule(name) for name in self.cut.trainable]

    def tail_parameters(self) -> list[nn.Parameter]:
        """The weights after the cut."""
        modules = [parameter for module in self.tail_modules() for parameter in module.parameters()]
        return [*modules, *(self.network.get_parameter(name) for name in self.cut.loose)]

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
        if mode and "cut" in vars(self):  # else nothing was unfrozen
            for module in self.tail_modules():
                module.train(next(module.parameters()).requires_grad)
        return self

    def features(self, x: Tensor) -> Tensor:
        """The network's input, (B, 3, size, size) -> features, (B, n_features)."""
        if self.pooling != "own":
            return POOLING[self.pooling](self._maps(x), 1).flatten(1)
        assert self._opened.features is not None
        return self._opened.features(self.network, x)

    def _maps(self, x: Tensor) -> Tensor:
        if self._opened.maps is None:
            raise InputError(
                f"{self.spec.name} does not say where its last feature map is: use its own pooling, or a backbone of "
                "timm."
            )
        return self._opened.maps(self.network, x)

    def blank(self, n: int) -> Tensor:
        """Input of n pictures, all zero."""
        return self.mean.new_zeros((n, 3, self.size, self.size))


def build_backbone(
    name: str = "efficientnet-lite0",
    *,
    weights: str | Path = "default",
    pooling: str | None = None,
    size: Count | None = None,
    stride: str | None = None,
    preprocessing: str | None = None,
    crop: bool = False,
    cut: str = "",
    seed: CountOrNone = 0,
) -> Backbone:
    """Build a backbone and load its weights.

    Options left at None follow from the weights: for weights converted from Keras, those of ImgRec's published graph
    (maximum pooling, "caffe", "keras-v1"), else those of the specification.

    Weights are read without running code in them: safetensors, or PyTorch files of plain tensors. Those of the hub are
    taken from its cache where they are there, else downloaded.

    Args:
        name: one of `list_backbones()`, or a model of a library: `timm/<model>` or `timm/<model>.<weights>`,
            `torchvision/<model>`, `hf/<owner>/<model>` (transformers), `open_clip/<model>/<weights>` or, on the hub,
            `open_clip/<owner>/<model>`.
        weights: "default"; a name of published weights; "random", never chosen silently; or a path. For ResNet50 that
            of a `.safetensors` file or a PyTorch file (`.pth`, `.pt`), holding a state dict of torchvision's or timm's
            ResNet50, or one converted from Keras (torchvision's names and convolution biases, or arrays as Keras has
            them, each named "layer/variable" such as "conv1_conv/kernel"); for another a file that its library wrote
            or published, or the folder of its repository, which transformers always needs.
        pooling: "avg" or "max", over the last feature map; "own" for what the head of a library's network does.
        size: height and width of the input, in pixels, at least 32. ImgRec's scripts use 244.
        stride: of ResNet50 alone: "v1.5" shrinks maps in the 3x3 convolution of a block (torchvision), "keras-v1" in
            the first 1x1 convolution (He et al. 2016, Keras).
        preprocessing: "torchvision", "caffe" or "efficientnet-lite", in place of what belongs to the weights.
        crop: whether to look at the central part alone that the weights were published with (often 7/8 of the side)
            in place of the whole picture.
        cut: where end-to-end training cuts the network: the name of a module, or a number: so many of the last blocks
            are the tail. Empty: 126 of Keras' 176 layers for ResNet50, a like share for EfficientNet-Lite0, for others
            before the last two blocks.
        seed: seeds random weights; PyTorch's global random stream is left as it was.

    Returns:
        The backbone, on the CPU, frozen.

    Raises:
        InputError: an unknown name or option, weights that cannot be downloaded or read, whose SHA-256 differs from
            the one in their file's name, or that belong to another network; a library that is not installed.
    """
    check_backbone(name)
    special = name in list_backbones()
    known_pooling = [*POOLING] if special else ["own", *POOLING]
    for option, value, known in (
        ("pooling", pooling, known_pooling),
        ("preprocessing", preprocessing, PREPROCESSING),
        ("stride", stride, STRIDES),
    ):
        if value is not None and value not in known:
            raise unknown_name(option, value, known)
    if stride is not None and name != "resnet50":
        raise InputError(f"'stride' concerns the backbone resnet50 alone: leave it out for {name}.")
    if size is not None and size < 32:
        raise InputError(f"the input size of a backbone must be at least 32 pixels, not {size}.")
    own = {"stride": stride} if name == "resnet50" else {}
    opened = family(name).open_network(name, weights, size, seed, **own)
    spec = opened.spec
    return Backbone(opened, weights, pooling or spec.pooling, preprocessing or spec.preprocessing, crop, cut)


def _credit(opened: Opened, weights: str | Path) -> dict[str, str]:
    """Licence and source of the weights: of a file or folder of one's own what a model card in it says."""
    if weights == "random":
        return {"licence": "none: the weights are random", "source": "a seed"}
    if weights == "default" or weights in opened.spec.weights:
        return {"licence": opened.spec.licence, "source": opened.spec.source}
    path = plain_path(weights)
    return {"licence": licence_of(path if path.is_dir() else path.parent), "source": path.name}
