"""The thirteen convolutions of VGG16, and their mirror image.

Source: K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
arXiv:1409.1556, Table 1, column D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from ._parts import thin

Stages = Sequence[Sequence[int]]

VGG16: Stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels after each convolution. A max-pooling follows every stage."""
VGG16_MIRRORED: Stages = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64, 64))
"""Channels of the mirror image. An unpooling precedes every stage, which ends with the next stage's channels."""
FC_CHANNELS = 4096
"""Channels of fc6 and fc7, the fully connected layers that segmentation networks turn into convolutions."""


def conv_stages(
    in_channels: int,
    stages: Stages,
    *,
    divisor: int = 1,
    layer: type[nn.Conv2d] | type[nn.ConvTranspose2d] = nn.Conv2d,
    has_norm: bool = True,
    first_padding: int = 1,
) -> nn.ModuleList:
    """Build 3x3 convolutions with ReLU and optional batch normalization.

    Args:
        in_channels: channels of the first convolution's input.
        stages: channels after each convolution, as published.
        divisor: divides these channels, see `thin`.
        layer: the kind of convolution.
        has_norm: whether batch normalization follows each convolution. The convolution keeps its bias, as in the
            published networks, although normalization removes it.
        first_padding: of the first convolution. The others have 1, so height and width stay.

    Returns:
        One `nn.Sequential` per stage, without the poolings.
    """
    result = nn.ModuleList()
    padding = first_padding
    for stage in stages:
        parts: list[nn.Module] = []
        for channels in stage:
            out_channels = thin(channels, divisor)
            parts += activate(layer(in_channels, out_channels, kernel_size=3, padding=padding), has_norm)
            in_channels, padding = out_channels, 1
        result.append(nn.Sequential(*parts))
    return result


def activate(layer: nn.Conv2d | nn.ConvTranspose2d, has_norm: bool) -> Iterator[nn.Module]:
    """Yield a convolution, optional batch normalization, and ReLU."""
    yield layer
    if has_norm:
        yield nn.BatchNorm2d(layer.out_channels)
    yield nn.ReLU(inplace=True)
