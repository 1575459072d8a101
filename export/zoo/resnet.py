"""ResNet-50 as a backbone with its original strides.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385,
Table 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._parts import initialize, thin

RESNET50_BLOCKS = (3, 4, 6, 3)
"""Residual blocks per stage."""
CHANNELS = (64, 128, 256, 512)
"""Of the 3x3 convolutions, per stage."""
EXPANSION = 4
"""Output channels of a block per channel of its 3x3 convolution."""


class Bottleneck(nn.Module):
    """Residual block of normalized 1x1, 3x3 and 1x1 convolutions.

    The 3x3 convolution has the stride, as is usual now. In the paper the first 1x1 convolution has it.

    Args:
        in_channels: channels of the input.
        channels: channels of the first two convolutions.
        stride: step of the 3x3 convolution.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.branch = nn.Sequential(
            *normalize(nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)),
            nn.ReLU(inplace=True),
            *normalize(nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)),
            nn.ReLU(inplace=True),
            *normalize(nn.Conv2d(channels, out_channels, kernel_size=1, bias=False)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            projection = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(*normalize(projection))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4 * channels, ceil(H / stride), ceil(W / stride)), float32."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network without its classifier.

    Args:
        blocks: residual blocks in each of the four stages.
        divisor: divides all numbers of channels but those of the input, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    def __init__(self, blocks: Sequence[int] = RESNET50_BLOCKS, *, divisor: int = 1) -> None:
        super().__init__()
        in_channels = thin(CHANNELS[0], divisor)
        self.stem = nn.Sequential(
            *normalize(nn.Conv2d(3, in_channels, kernel_size=7, stride=2, padding=3, bias=False)),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        for i, (published, count) in enumerate(zip(CHANNELS, blocks, strict=True)):
            channels = thin(published, divisor)
            first = Bottleneck(in_channels, channels, stride=1 if i == 0 else 2)
            in_channels = EXPANSION * channels
            self.stages.append(nn.Sequential(first, *(Bottleneck(in_channels, channels) for _ in range(count - 1))))
        initialize(self)
        balance([part.branch[-1] for part in self.modules() if isinstance(part, Bottleneck)])

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Compute the features of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized.

        Returns:
            The output of each stage: 256, 512, 1024 and 2048 channels at a 4th, 8th, 16th and 32nd of height and width,
            rounded up.
        """
        features = [self.stem(batch)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


def normalize(convolution: nn.Conv2d) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Put batch normalization behind a convolution."""
    return convolution, nn.BatchNorm2d(convolution.out_channels)


def balance(last_layers: Sequence[nn.Module]) -> None:
    """Scale residual branches so that activations keep their size.

    Random weights would double their variance in each block. If each of n blocks adds 1 / n of it, it grows at most e
    times.

    Args:
        last_layers: the last layer of each branch, a convolution without bias or a batch normalization.
    """
    factor = 1 / math.sqrt(len(last_layers))
    with torch.no_grad():
        for layer in last_layers:
            layer.weight.mul_(factor)  # type: ignore[operator]


def resnet50(*, divisor: int = 1) -> ResNet:
    """Build the backbone of ResNet-50, with random weights."""
    return ResNet(RESNET50_BLOCKS, divisor=divisor)
