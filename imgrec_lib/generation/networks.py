"""The two networks of DVBPR's conditional GAN (Kang et al. 2017, section 4, as in their code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgrec_lib.errors import InputError
from imgrec_lib.models.parts.cnn_f import SameConv2d, same_padding

SLOPE = 0.2
"""Of the leaky ReLUs."""
KEPT = 0.9
"""What a batch norm's moving averages keep of themselves at each pass."""
SMALLEST = 4
"""Side in pixels of the map that the first layer of the generator makes, and the last of the discriminator leaves."""


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The transpose of a `SameConv2d`: (B, C, h, w) -> (B, D, stride * h, stride * w).

    What the convolution pads is cut off here: with a 3 x 3 kernel and stride 2 the last row and column.

    Args:
        channels, outputs: C and D.
        kernel, stride: in pixels.
    """

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, outputs, kernel, stride)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = stride * x.shape[2], stride * x.shape[3]
        top, bottom = same_padding(height, kernel, stride)
        left, right = same_padding(width, kernel, stride)
        if (top, left) == (bottom, right):
            return F.conv_transpose2d(x, self.weight, self.bias, stride, (top, left))
        full = F.conv_transpose2d(x, self.weight, self.bias, stride)
        return full[:, :, top : top + height, left : left + width]


def doublings(size: int) -> int:
    """How many times 4 pixels are doubled to `size`.

    Raises:
        InputError: `size` is not 16, 32, 64, ...
    """
    times = (size // SMALLEST).bit_length() - 1
    if size < 16 or SMALLEST << times != size:
        raise InputError(f"the size of generated pictures is a power of two from 16 pixels on, not {size}.")
    return times


class Generator(nn.Module):
    """G: code and class to picture.

    A fully connected layer makes a 4 x 4 map of 4 * channels, which 3 x 3 transposed convolutions enlarge. At 64
    pixels and 64 channels they have 256 outputs with stride 2, 256, 256 with stride 2, 256, 128 with stride 2, 64 with
    stride 2 and 3. Each layer but the last is followed by a batch norm (by map) and a leaky ReLU, the last by tanh. A
    doubling more or less of the size is a pair of layers of 256 more or less at the beginning.

    The authors' generator makes the same pictures twice a step, once for each network's half, and its moving averages
    follow twice. Ours makes them once (`train_gan`), and its averages keep 0.9^2 of themselves.

    Args:
        size: height and width of the pictures.
        classes: number of classes C.
        latent: length of the code.
        channels: maps before the last layer.
    """

    def __init__(self, size: int, classes: int, *, latent: int = 256, channels: int = 64) -> None:
        super().__init__()
        self.classes, self.wide = classes, 4 * channels
        layers = [(self.wide, 2), (self.wide, 1)] * (doublings(size) - 2) + [(2 * channels, 2), (channels, 2)]
        self.first = nn.Linear(latent + classes, self.wide * SMALLEST**2)
        self.first_norm = _batch_norm(self.wide, kept=KEPT**2)
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        inputs = self.wide
        for outputs, stride in layers:
            self.layers.append(SameConvTranspose2d(inputs, outputs, 3, stride))
            self.norms.append(_batch_norm(outputs, kept=KEPT**2))
            inputs = outputs
        self.last = SameConvTranspose2d(inputs, 3, 3)
        _initialise(self)

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        """(B, latent) float and (B,) int64 -> (B, 3, size, size) in (-1, 1)."""
        x = torch.cat([codes, F.one_hot(classes, self.classes).to(codes.dtype)], 1)
        x = self.first(x).view(-1, self.wide, SMALLEST, SMALLEST).contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.first_norm(x), SLOPE)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), SLOPE)
        return torch.tanh(self.last(x))


class Discriminator(nn.Module):
    """D: picture and class to one number, near 1 for a real picture of its class and near 0 for a generated one.

    5 x 5 convolutions with stride 2 and leaky ReLUs halve the side to 4 pixels; the first has `channels` outputs, each
    further one twice as many (at 64 pixels 64, 128, 256, 512). A batch norm follows each but the first. The class, one
    map of ones or zeros for each, is laid beside the picture and beside the output of each convolution but the last.
    One linear unit follows, without sigmoid.

    Args:
        size, classes: as of the generator.
        channels: maps of the first convolution.
    """

    def __init__(self, size: int, classes: int, *, channels: int = 64) -> None:
        super().__init__()
        self.classes = classes
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        inputs = 3
        for number in range(doublings(size)):
            outputs = channels << number
            self.layers.append(SameConv2d(inputs + classes, outputs, 5, 2))
            self.norms.append(_batch_norm(outputs) if number else nn.Identity())
            inputs = outputs
        self.last = nn.Linear(inputs * SMALLEST**2, 1)
        _initialise(self)

    def forward(self, pictures: Tensor, classes: Tensor) -> Tensor:
        """(B, 3, size, size) in [-1, 1] and (B,) int64 -> (B,)."""
        condition = F.one_hot(classes, self.classes).to(pictures.dtype)[:, :, None, None]
        x = pictures
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.cat([x, condition.expand(-1, -1, *x.shape[2:])], 1)
            x = F.leaky_relu(norm(layer(x)), SLOPE)
        return self.last(x.flatten(1)).squeeze(1)


def _batch_norm(maps: int, kept: float = KEPT) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(maps, eps=1e-5, momentum=1 - kept)


def _initialise(network: nn.Module) -> None:
    """Weights normal with deviation 0.02, those of the discriminator's convolutions cut at two of them; biases 0."""
    for layer in network.modules():
        if isinstance(layer, SameConv2d):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
        elif isinstance(layer, nn.Linear | SameConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
        else:
            continue
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        layer.to(memory_format=torch.channels_last)
