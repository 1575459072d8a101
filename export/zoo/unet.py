"""Small U-Net, the network of the soccer example.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv:1505.04597.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

SOCCER_WIDTHS = (16, 24, 48, 80, 112)
SOCCER_NUM_CLASSES = 8


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with batch normalization and ReLU.

    Height and width stay.

    Args:
        in_channels: channels of the input.
        out_channels: channels after the first convolution, and of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # No bias: batch normalization subtracts the mean right after, so a bias would have no effect.
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpBlock(nn.Module):
    """Doubles the resolution, and merges features of the encoder.

    Args:
        in_channels: channels that come from below.
        out_channels: channels of the skip connection, and of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.merge = DoubleConv(2 * out_channels, out_channels)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Merge two resolutions.

        Args:
            below: (N, in_channels, h, w) float32.
            skip: (N, out_channels, 2h, 2w) float32, the encoder's features.

        Returns:
            (N, out_channels, 2h, 2w) float32.
        """
        merged: Tensor = self.merge(torch.cat([skip, self.up(below)], dim=1))
        return merged


class UNet(nn.Module):
    """Encoder and decoder with skip connections.

    Four things differ from the paper. Convolutions are padded, so nothing is cropped and the output is as large as the
    input. Batch normalization follows each convolution. There are far fewer channels, and there is no dropout.

    Args:
        in_channels: channels of the input image.
        num_classes: channels of the output.
        widths: channels per resolution, from the finest to the coarsest. Each step halves height and width.

    Raises:
        ValueError: if `widths` has fewer than two entries.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = SOCCER_NUM_CLASSES,
        widths: Sequence[int] = SOCCER_WIDTHS,
    ) -> None:
        if len(widths) < 2:
            raise ValueError(f"widths must name at least two resolutions, got {tuple(widths)}; try (16, 32)")
        super().__init__()
        above = (in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(DoubleConv(a, b) for a, b in zip(above, widths, strict=True))
        self.decoder = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(reversed(widths)))
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.head = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    @property
    def size_multiple(self) -> int:
        """Height and width of the input must be multiples of this number."""
        return 1 << len(self.decoder)

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, in_channels, H, W) float32, normalized. H and W are multiples of `size_multiple`.

        Returns:
            (N, num_classes, H, W) float32 logits.
        """
        features: list[Tensor] = []
        x = batch
        for block in self.encoder:
            x = block(self.pool(x) if features else x)
            features.append(x)
        skips = reversed(features[:-1])
        for block, skip in zip(self.decoder, skips, strict=True):
            x = block(x, skip)
        logits: Tensor = self.head(x)
        return logits


def soccer_unet() -> UNet:
    """Build the network of the soccer example, with random weights.

    Returns:
        A `UNet` for RGB images and the eight classes of `examples/soccer`, in training mode.
    """
    return UNet(in_channels=3, num_classes=SOCCER_NUM_CLASSES, widths=SOCCER_WIDTHS)
