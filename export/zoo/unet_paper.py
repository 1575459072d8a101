"""U-Net as published, and the same with padding.

The published network has unpadded convolutions and cropped skips. The soccer example's smaller network with batch
normalization is in `unet.py`.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, arXiv:1505.04597, Fig. 1 and sections 2 and 3.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ._parts import initialize, thin

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels per resolution, from the finest to the coarsest."""
CROPS = (4, 16, 40, 88)
"""Pixels to cut off each side of a skip, the coarsest first: half of 64 - 56, 136 - 104, and so on."""
MARGIN = 92
"""Pixels that each side of the output lacks: half of 572 - 388."""


class UpBlock(nn.Module):
    """Doubles the resolution, and merges features of the encoder.

    Args:
        in_channels: channels that come from below.
        out_channels: channels of the skip connection, and of the output.
        padding: of the convolutions.
        crop: pixels to cut off each side of the skip.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: int, crop: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.merge = _double_conv(2 * out_channels, out_channels, padding)
        self.crop = crop

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Merge (N, in_channels, h, w) with (N, out_channels, 2h + 2 crop, 2w + 2 crop)."""
        if self.crop:
            skip = skip[..., self.crop : -self.crop, self.crop : -self.crop]
        merged: Tensor = self.merge(torch.cat([skip, self.up(below)], dim=1))
        return merged


class PaperUNet(nn.Module):
    """The network of Fig. 1.

    It has 23 convolutions, no batch normalization, and dropout at the end of the contracting path.

    Args:
        in_channels: channels of the input image.
        num_classes: channels of the output.
        is_padded: False as published. Each 3x3 convolution takes a pixel off each side, and the output shows only the
            pixels whose whole neighbourhood is in the input, 388 x 388 of 572 x 572. True pads with zeros, so the
            output is as large as the input.
        divisor: divides all numbers of channels but those of input and output, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    size_multiple = 16
    """If padded, height and width of the input must be multiples of this number. Otherwise they must be 12 more than a
    multiple, so that every pooling halves an even size, and at least 188."""
    margin: int
    """Pixels of the input that the output lacks at each side: 92, or 0 if padded."""

    def __init__(
        self, in_channels: int = 1, num_classes: int = 2, *, is_padded: bool = False, divisor: int = 1
    ) -> None:
        super().__init__()
        widths = [thin(width, divisor) for width in WIDTHS]
        padding, crops, self.margin = (1, (0,) * len(CROPS), 0) if is_padded else (0, CROPS, MARGIN)
        encoder = [_double_conv(a, b, padding) for a, b in pairwise([in_channels, *widths])]
        for block in encoder[-2:]:
            block.append(nn.Dropout())
        self.encoder = nn.ModuleList(encoder)
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.decoder = nn.ModuleList(
            UpBlock(a, b, padding, crop) for (a, b), crop in zip(pairwise(reversed(widths)), crops, strict=True)
        )
        self.head = nn.Conv2d(widths[0], num_classes, kernel_size=1)
        initialize(self)

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, in_channels, H, W) float32, normalized. See `size_multiple` for H and W.

        Returns:
            (N, num_classes, H - 2 margin, W - 2 margin) float32 logits.
        """
        features: list[Tensor] = []
        for block in self.encoder:
            features.append(block(self.pool(features[-1]) if features else batch))
        x = features.pop()
        for block, skip in zip(self.decoder, reversed(features), strict=True):
            x = block(x, skip)
        logits: Tensor = self.head(x)
        return logits


def unet_valid(num_classes: int = 2, *, in_channels: int = 1, divisor: int = 1) -> PaperUNet:
    """Build the published U-Net: 572 x 572 gray pixels to 388 x 388 logits.

    Its weights are random.
    """
    return PaperUNet(in_channels, num_classes, divisor=divisor)


def unet_same(num_classes: int = 2, *, in_channels: int = 1, divisor: int = 1) -> PaperUNet:
    """Build the padded U-Net with random weights.

    Logits are as large as the input, a multiple of 16.
    """
    return PaperUNet(in_channels, num_classes, is_padded=True, divisor=divisor)


def _double_conv(in_channels: int, out_channels: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=padding),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=padding),
        nn.ReLU(inplace=True),
    )
