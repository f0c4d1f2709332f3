"""The network of DVBPR: CNN-F's shape, padded as TensorFlow pads, trained from scratch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scaled(pixels: Tensor) -> Tensor:
    """(B, h, w, 3) uint8 pixels as a network takes them: (B, 3, h, w) float32, (v - 127.5) / 127.5."""
    return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros that TensorFlow's SAME padding puts before and after a side, so that ceil(size / stride) outputs result.

    Where their number is odd, the extra one comes after.

    Args:
        size: length of the side.
        kernel, stride: of the convolution, in pixels.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A square convolution with SAME padding, which depends on the input's size: (B, C, h, w) -> (B, D, h', w').

    Args:
        channels, outputs: C and D.
        kernel, stride: in pixels; h' = ceil(h / stride), and w' alike.
    """

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x.shape[2], kernel, stride)
        left, right = same_padding(x.shape[3], kernel, stride)
        if (top, left) == (bottom, right):
            return F.conv2d(x, self.weight, self.bias, stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, stride)


class CNNF(nn.Module):
    """Five convolutions and three fully connected layers (Kang et al. 2017, section 3.2, after Chatfield et al. 2014).

    Convolutions: 11 x 11 with stride 4, 5 x 5, and three of 3 x 3, each followed by a ReLU; 2 x 2 maximum pooling after
    the first, the second and the fifth. At 224 pixels the sides are 56, 28, 14 and 7. No response normalisation, no
    batch norm. Weights start Xavier uniform, biases at 0.

    Args:
        size: height and width of the pictures, in pixels.
        outputs: K, the length of what it makes of a picture.
        channels: maps of the first convolution; the other four have four times as many.
        units: width of the two hidden fully connected layers.
        dropout: chance of a hidden unit to be dropped in training.
    """

    def __init__(self, size: int, outputs: int, *, channels: int = 64, units: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        wide = 4 * channels
        self.conv1 = SameConv2d(3, channels, 11, 4)
        self.conv2 = SameConv2d(channels, wide, 5)
        self.conv3 = SameConv2d(wide, wide, 3)
        self.conv4 = SameConv2d(wide, wide, 3)
        self.conv5 = SameConv2d(wide, wide, 3)
        side = -(-size // 32)
        self.fc6 = nn.Linear(wide * side * side, units)
        self.fc7 = nn.Linear(units, units)
        self.fc8 = nn.Linear(units, outputs)
        self.dropout = nn.Dropout(dropout)
        for layer in self.layers():
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            layer.to(memory_format=torch.channels_last)

    def layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The eight layers with weights, from the picture on."""
        return [layer for layer in self.children() if isinstance(layer, nn.Conv2d | nn.Linear)]

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, size, size) float in [-1, 1] -> (B, outputs)."""
        x = _pooled(torch.relu(self.conv1(pictures)))
        x = _pooled(torch.relu(self.conv2(x)))
        x = torch.relu(self.conv4(torch.relu(self.conv3(x))))
        x = _pooled(torch.relu(self.conv5(x)))
        x = self.dropout(torch.relu(self.fc6(x.flatten(1))))
        x = self.dropout(torch.relu(self.fc7(x)))
        return self.fc8(x)


def _pooled(x: Tensor) -> Tensor:
    """SAME maximum pooling, 2 x 2 with stride 2: the last window of an odd side is cut off by the border."""
    return F.max_pool2d(x, 2, ceil_mode=True)
