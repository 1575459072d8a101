"""Gated-SCNN: a regular stream, and a thin shape stream beside it.

Source: T. Takikawa, D. Acuna, V. Jampani, S. Fidler, "Gated-SCNN: Gated Shape CNNs for Semantic Segmentation", ICCV
2019, arXiv:1907.05740, section 3.1 and Fig. 2. Numbers of channels are those of the authors' program.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._parts import initialize, thin
from .aspp import AtrousPyramid
from .resnet import normalize
from .wide_resnet import WideResNet

SHAPE_CHANNELS = (64, 32, 16, 8)
"""Of the shape stream at its start, and after each of its three steps."""
GATING_STAGES = (2, 3, 6)
"""Stages of the regular stream whose features control the gates of the three steps."""
PYRAMID_CHANNELS = 256
FINE_CHANNELS = 48


class GatedConv(nn.Module):
    """Weighs the shape stream by the regular stream, then convolves it.

    Args:
        channels: channels of the shape stream.

    Source: eqs. 1 and 2 of the paper.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.BatchNorm2d(channels + 1),
            nn.Conv2d(channels + 1, channels + 1, kernel_size=1),
            nn.ReLU(inplace=True),
            *normalize(nn.Conv2d(channels + 1, 1, kernel_size=1)),
            nn.Sigmoid(),
        )
        self.convolution = nn.Conv2d(channels, channels, kernel_size=1, bias=False)

    def forward(self, shape: Tensor, regular: Tensor) -> Tensor:
        """Gate the shape stream.

        A closed gate, 0, leaves a pixel as it is. An open gate, 1, doubles it.

        Args:
            shape: (N, channels, H, W) float32.
            regular: (N, 1, H, W) float32, of the regular stream.

        Returns:
            (N, channels, H, W) float32.
        """
        gate = self.gate(torch.cat([shape, regular], dim=1))
        gated: Tensor = self.convolution(shape * (gate + 1))
        return gated


class ResidualBlock(nn.Module):
    """Residual block of two normalized 3x3 convolutions.

    One ReLU is between them, another follows the sum.

    Args:
        channels: channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *normalize(nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)),
            nn.ReLU(inplace=True),
            *normalize(nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) float32 to the same shape."""
        return torch.relu(x + self.branch(x))


class ImageGradient(nn.Module):
    """Gradient of a picture: |dx| + |dy| of the steepest colour.

    The paper feeds "image gradients" to the shape stream. The authors' program takes cv2.Canny of the batch on the CPU,
    which has no operator in ONNX. Canny starts from this gradient. Its thinning to one pixel, and its two thresholds
    that yield 0 or 255, are left out.

    Source: the Sobel operator, as cv2.Sobel(scale=1 / 8, borderType=BORDER_REPLICATE), in input units per pixel.
    """

    dx: Tensor
    dy: Tensor

    def __init__(self) -> None:
        super().__init__()
        slope, smooth = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
        dx = torch.outer(smooth, slope) / 8
        self.register_buffer("dx", dx.expand(3, 1, 3, 3).clone(), persistent=False)
        self.register_buffer("dy", dx.mT.expand(3, 1, 3, 3).clone(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1, H, W), float32, 0 or more."""
        padded = F.pad(image, [1] * 4, mode="replicate")
        dx, dy = F.conv2d(padded, self.dx, groups=3), F.conv2d(padded, self.dy, groups=3)
        return (dx.abs() + dy.abs()).amax(dim=1, keepdim=True)


class ShapeStream(nn.Module):
    """Three steps at the size of the picture, which find edges.

    Each step is a residual block, a reduction and a gated convolution.

    Args:
        gating_channels: channels of the three features of the regular stream that control the gates.
        divisor: divides the stream's numbers of channels.
    """

    def __init__(self, gating_channels: list[int], *, divisor: int = 1) -> None:
        super().__init__()
        channels = [thin(n, divisor) for n in SHAPE_CHANNELS]
        self.blocks = nn.ModuleList(ResidualBlock(n) for n in channels[:-1])
        self.reductions = nn.ModuleList(nn.Conv2d(a, b, kernel_size=1) for a, b in pairwise(channels))
        self.views = nn.ModuleList(nn.Conv2d(n, 1, kernel_size=1) for n in gating_channels)
        self.gates = nn.ModuleList(GatedConv(n) for n in channels[1:])
        self.edge = nn.Conv2d(channels[-1], 1, kernel_size=1, bias=False)

    def forward(self, shape: Tensor, gating: list[Tensor]) -> Tensor:
        """Find edges.

        Args:
            shape: (N, 64, H, W) float32, the regular stream's first features.
            gating: its three features that control the gates, at any size.

        Returns:
            (N, 1, H, W) float32, the probability that a pixel is on an edge.
        """
        for block, reduction, view, gate, features in zip(
            self.blocks, self.reductions, self.views, self.gates, gating, strict=True
        ):
            shape = gate(reduction(block(shape)), _resize(view(features), like=shape))
        return torch.sigmoid(self.edge(shape))


class GatedSCNN(nn.Module):
    """WideResNet-38, the shape stream, and a pyramid that joins both.

    It differs from the authors' program in `ImageGradient` only. Interpolations that keep the size are left out.

    Args:
        num_classes: channels of the logits. 19 are those of Cityscapes.
        divisor: divides all numbers of channels but those of input and outputs, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 8.
    """

    size_multiple = 1
    """Any height and width."""

    def __init__(self, num_classes: int = 19, *, divisor: int = 1) -> None:
        super().__init__()
        pyramid, fine = thin(PYRAMID_CHANNELS, divisor), thin(FINE_CHANNELS, divisor)
        channels = [thin(n, divisor) for n in (64, 128, 256, 512, 1024, 2048, 4096)]
        self.shape_stream = ShapeStream([channels[i] for i in GATING_STAGES], divisor=divisor)
        self.gradient = ImageGradient()
        self.edge_and_gradient = nn.Conv2d(2, 1, kernel_size=1, bias=False)
        self.pyramid = AtrousPyramid(channels[-1], pyramid)
        self.edge_branch = nn.Sequential(
            *normalize(nn.Conv2d(1, pyramid, kernel_size=1, bias=False)), nn.ReLU(inplace=True)
        )
        self.coarse = nn.Conv2d(6 * pyramid, pyramid, kernel_size=1, bias=False)
        self.fine = nn.Conv2d(channels[1], fine, kernel_size=1, bias=False)
        self.classifier = nn.Sequential(
            *normalize(nn.Conv2d(pyramid + fine, pyramid, kernel_size=3, padding=1, bias=False)),
            nn.ReLU(inplace=True),
            *normalize(nn.Conv2d(pyramid, pyramid, kernel_size=3, padding=1, bias=False)),
            nn.ReLU(inplace=True),
            nn.Conv2d(pyramid, num_classes, kernel_size=1, bias=False),
        )
        initialize(self)
        self.backbone = WideResNet(divisor=divisor)  # draws its own weights

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Compute the logits and the edges of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized.

        Returns:
            `out` is (N, num_classes, H, W) float32 logits. `edges` is (N, 1, H, W) float32 in 0..1, the probability
            that a pixel is on the edge of an object.
        """
        features = self.backbone(batch)
        edges = self.shape_stream(features[0], [features[i] for i in GATING_STAGES])
        shape = torch.sigmoid(self.edge_and_gradient(torch.cat([edges, self.gradient(batch)], dim=1)))
        seen = self.pyramid(features[-1])
        coarse = self.coarse(torch.cat([seen, self.edge_branch(_resize(shape, like=seen))], dim=1))
        fine = self.fine(features[1])
        logits = self.classifier(torch.cat([fine, _resize(coarse, like=fine)], dim=1))
        return {"out": F.interpolate(logits, size=batch.shape[2:], mode="bilinear"), "edges": edges}


def gated_scnn(num_classes: int = 19, *, divisor: int = 1) -> GatedSCNN:
    """Build Gated-SCNN with random weights."""
    return GatedSCNN(num_classes, divisor=divisor)


def _resize(x: Tensor, *, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
