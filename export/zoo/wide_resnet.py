"""WideResNet-38 as a backbone at an 8th of the picture's size.

Source: Z. Wu, C. Shen, A. van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition",
Pattern Recognition 2019, arXiv:1611.10080, model A. Strides, dilations and dropouts are those of Gated-SCNN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ._parts import initialize, thin
from .resnet import balance


class Stage(NamedTuple):
    """A run of residual blocks."""

    blocks: int
    channels: tuple[int, ...]
    """After each convolution of a block. Two are both 3x3, of three the middle one is 3x3."""
    stride: int = 1
    """Of the first block."""
    is_pooled: bool = False
    """Whether a max-pooling comes before the first block."""
    dilation: int = 1
    dropout: float = 0.0


STEM_CHANNELS = 64
STAGES = (
    Stage(3, (128, 128), is_pooled=True),
    Stage(3, (256, 256), is_pooled=True),
    Stage(6, (512, 512), stride=2),
    Stage(3, (512, 1024), dilation=2),
    Stage(1, (512, 1024, 2048), dilation=4, dropout=0.3),
    Stage(1, (1024, 2048, 4096), dilation=4, dropout=0.5),
)


class PreactivatedBlock(nn.Module):
    """Residual block with normalization and ReLU before convolutions.

    If size or channels change, the shortcut is a 1x1 convolution of the activated input.

    Args:
        in_channels: channels of the input.
        channels: channels after each convolution.
        stride: step of the first convolution.
        dilation: of the 3x3 convolutions.
        dropout: share of channels that training drops before the last convolution.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], *, stride: int = 1, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=False))
        self.branch = nn.Sequential(*_branch(in_channels, channels, stride, dilation, dropout))
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != channels[-1]:
            self.shortcut = nn.Conv2d(in_channels, channels[-1], kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels[-1], ceil(H / stride), ceil(W / stride)), float32."""
        activated = self.activation(x)
        kept = x if self.shortcut is None else self.shortcut(activated)
        total: Tensor = kept + self.branch(activated)
        return total


class WideResNet(nn.Module):
    """WideResNet-38 without its classifier.

    Args:
        divisor: divides all numbers of channels but those of the input, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    def __init__(self, *, divisor: int = 1) -> None:
        super().__init__()
        in_channels = thin(STEM_CHANNELS, divisor)
        self.stem = nn.Conv2d(3, in_channels, kernel_size=3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        for stage in STAGES:
            self.stages.append(nn.Sequential(*_blocks(in_channels, stage, divisor)))
            in_channels = thin(stage.channels[-1], divisor)
        initialize(self)
        balance([part.branch[-1] for part in self.modules() if isinstance(part, PreactivatedBlock)])

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Compute the features of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized.

        Returns:
            Seven maps, the stem's and each stage's: 64, 128, 256, 512, 1024, 2048 and 4096 channels, at the picture's
            size, a half, a quarter, and four times an 8th of it, rounded up.
        """
        features = [self.stem(batch)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


def _blocks(in_channels: int, stage: Stage, divisor: int) -> Iterator[nn.Module]:
    if stage.is_pooled:
        yield nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    channels = [thin(n, divisor) for n in stage.channels]
    stride = stage.stride
    for _ in range(stage.blocks):
        yield PreactivatedBlock(in_channels, channels, stride=stride, dilation=stage.dilation, dropout=stage.dropout)
        in_channels, stride = channels[-1], 1


def _branch(
    in_channels: int, channels: Sequence[int], stride: int, dilation: int, dropout: float
) -> Iterator[nn.Module]:
    kernels = (3, 3) if len(channels) == 2 else (1, 3, 1)
    for i, (out_channels, kernel) in enumerate(zip(channels, kernels, strict=True)):
        if i > 0:
            yield nn.BatchNorm2d(in_channels)
            yield nn.ReLU(inplace=True)
        if dropout and i == len(channels) - 1:
            yield nn.Dropout2d(dropout)
        rate = dilation if kernel == 3 else 1
        yield nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride if i == 0 else 1,
            padding=kernel // 2 * rate,
            dilation=rate,
            bias=False,
        )
        in_channels = out_channels
