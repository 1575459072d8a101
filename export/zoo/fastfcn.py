"""FastFCN: ResNet-50 with joint pyramid upsampling.

Source: H. Wu, J. Zhang, K. Huang, K. Liang, Y. Yu, "FastFCN: Rethinking Dilated Convolution in the Backbone for
Semantic Segmentation", 2019, arXiv:1903.11816, section 3.3 and Figs. 2 and 4. Of the authors' heads, this has that of
DeepLabV3: the row "DeepLabV3 + JPU, ResNet-50" of their results on Pascal Context (50.07 % mIoU).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._parts import initialize, thin
from .aspp import AtrousPyramid
from .resnet import CHANNELS, EXPANSION, normalize, resnet50

JPU_CHANNELS = 512
JPU_DILATIONS = (1, 2, 4, 8)
HEAD_CHANNELS = 256


class JointPyramidUpsampling(nn.Module):
    """Joins features of three sizes into one map.

    The features are at an 8th, 16th and 32nd of the picture's size, the map is at an 8th. Each is projected to
    `channels`, the coarse ones are upsampled, and four separable convolutions of different dilations read all three.

    Args:
        in_channels: channels of the three inputs, the finest first.
        channels: channels of each of the four parts of the output.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(*normalize(nn.Conv2d(n, channels, 3, padding=1, bias=False)), nn.ReLU(inplace=True))
            for n in in_channels
        )
        together = len(in_channels) * channels
        self.branches = nn.ModuleList(separable(together, channels, dilation=dilation) for dilation in JPU_DILATIONS)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Upsample and join.

        Args:
            features: (N, C_i, h_i, w_i) float32, the finest first.

        Returns:
            (N, 4 * channels, h_0, w_0) float32.
        """
        projected = [projection(x) for projection, x in zip(self.projections, features, strict=True)]
        finest = projected[0]
        together = torch.cat([finest, *(upsample(x, like=finest) for x in projected[1:])], dim=1)
        return torch.cat([branch(together) for branch in self.branches], dim=1)


class FastFCN(nn.Module):
    """ResNet-50, joint pyramid upsampling, and DeepLabV3's head.

    Logits have the size of the picture. Two things differ from the authors' program. The stem is one 7x7 convolution,
    as in the ResNet that the paper names, not three 3x3 ones. There is no auxiliary classifier: only training uses it.

    Args:
        num_classes: channels of the output. 59 are those of Pascal Context.
        divisor: divides all numbers of channels but those of input and output, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    size_multiple = 1
    """Any height and width."""

    def __init__(self, num_classes: int = 59, *, divisor: int = 1) -> None:
        super().__init__()
        channels, head = thin(JPU_CHANNELS, divisor), thin(HEAD_CHANNELS, divisor)
        self.jpu = JointPyramidUpsampling([EXPANSION * thin(n, divisor) for n in CHANNELS[1:]], channels)
        self.pyramid = AtrousPyramid(len(JPU_DILATIONS) * channels, head)
        self.classifier = nn.Sequential(
            *normalize(nn.Conv2d(5 * head, head, kernel_size=1, bias=False)),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.5),
            *normalize(nn.Conv2d(head, head, kernel_size=3, padding=1, bias=False)),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(head, num_classes, kernel_size=1),
        )
        initialize(self)
        self.backbone = resnet50(divisor=divisor)  # draws its own weights

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized.

        Returns:
            (N, num_classes, H, W) float32 logits.
        """
        features = self.backbone(batch)[1:]
        return upsample(self.classifier(self.pyramid(self.jpu(features))), like=batch)


def separable(in_channels: int, channels: int, *, dilation: int) -> nn.Sequential:
    """Build a normalized depthwise 3x3 and a normalized 1x1 convolution with ReLU."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
    )
    pointwise = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
    return nn.Sequential(*normalize(depthwise), *normalize(pointwise), nn.ReLU(inplace=True))


def upsample(x: Tensor, *, like: Tensor) -> Tensor:
    """Interpolate bilinearly to the size of another tensor, with aligned corners."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


def fastfcn(num_classes: int = 59, *, divisor: int = 1) -> FastFCN:
    """Build FastFCN with random weights."""
    return FastFCN(num_classes, divisor=divisor)
