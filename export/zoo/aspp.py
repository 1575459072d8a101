"""Atrous spatial pyramid pooling.

Source: L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation",
2017, arXiv:1706.05587, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .resnet import normalize

RATES = (12, 24, 36)
"""Of the dilated convolutions, for features at an 8th of the picture's size."""


class AtrousPyramid(nn.Module):
    """Five views of one feature map, side by side.

    They are a 1x1 convolution, three dilated 3x3 convolutions, and the mean over the whole map.

    Args:
        in_channels: channels of the input.
        channels: channels of each view.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pointwise = _activate(nn.Conv2d(in_channels, channels, kernel_size=1, bias=False))
        self.dilated = nn.ModuleList(
            _activate(nn.Conv2d(in_channels, channels, kernel_size=3, padding=rate, dilation=rate, bias=False))
            for rate in RATES
        )
        self.pooled = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            *_activate(nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 5 * channels, H, W), float32."""
        everywhere = self.pooled(x).expand(-1, -1, x.shape[2], x.shape[3])
        return torch.cat([self.pointwise(x), *(branch(x) for branch in self.dilated), everywhere], dim=1)


def _activate(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(*normalize(convolution), nn.ReLU(inplace=True))
