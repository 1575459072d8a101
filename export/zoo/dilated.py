"""Dilated VGG16 front end and context module of Yu and Koltun.

Source: F. Yu, V. Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016, arXiv:1511.07122
(context module in section 3 and Table 1, front end in section 4). Paddings are those of the authors' released networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ._parts import initialize, thin
from .vgg import FC_CHANNELS, VGG16, activate

MARGIN = 186
"""Pixels around the picture that its outermost cells see. They hold its reflection."""
POOLINGS = 3
"""Number of VGG16's five poolings that are kept."""
FRONT_END_DILATIONS = (1, 1, 1, 1, 2)
"""Of the five stages of convolutions. fc6 has 4. Each missing pooling doubles the dilations after it."""
CONTEXT_DILATIONS = (1, 1, 2, 4, 8, 16, 1)
"""Of the 3x3 convolutions of the context module. A 1x1 convolution follows them."""
CONTEXT_WIDTHS = {"basic": (1,) * 8, "large": (2, 2, 4, 8, 16, 32, 32, 1)}
"""Channels after each of its layers, as multiples of the classes. Source: Table 1 of the paper."""
NOISE = 0.001
"""Of the large module's initial weights, see `context_module`. In the paper it is just much less than 1."""

Context = Literal["basic", "large"]


class DilatedFrontEnd(nn.Module):
    """VGG16 without its last two poolings.

    Dilations keep the view of the later convolutions as wide. No convolution is padded. The picture is padded once, by
    reflection, so 8h x 8w pixels yield exactly h x w cells, each from its own 8 x 8 pixels and the 186 around them.

    Args:
        num_classes: channels of the output.
        divisor: divides all numbers of channels but those of input and output, for quick tests.

    Raises:
        ValueError: if `divisor` does not divide 64.
    """

    size_multiple = 8
    """Height and width of the input must be multiples of this."""

    def __init__(self, num_classes: int = 21, *, divisor: int = 1) -> None:
        super().__init__()
        self.stages = nn.Sequential(*_dilated_stages(divisor))
        fc = thin(FC_CHANNELS, divisor)
        self.classifier = nn.Sequential(
            *activate(nn.Conv2d(thin(VGG16[-1][-1], divisor), fc, kernel_size=7, dilation=4), has_norm=False),
            nn.Dropout(),
            *activate(nn.Conv2d(fc, fc, kernel_size=1), has_norm=False),
            nn.Dropout(),
            nn.Conv2d(fc, num_classes, kernel_size=1),
        )
        initialize(self)

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch.

        Args:
            batch: (N, 3, H, W) float32, normalized. H and W are multiples of 8.

        Returns:
            (N, num_classes, H / 8, W / 8) float32 logits.
        """
        logits: Tensor = self.classifier(self.stages(reflect_pad(batch, MARGIN)))
        return logits


class DilatedNetwork(nn.Module):
    """The front end, and the context module behind it.

    The paper's ReLUs cut negative values, so the new module yields the positive part of the front end's logits.

    Args:
        num_classes: channels of the output.
        context: the paper's "basic" module, or its "large" one with up to 32 times as many channels.
        divisor: divides the front end's numbers of channels, for quick tests. Those of the module are multiples of
            `num_classes`.

    Raises:
        ValueError: if `divisor` does not divide 64, or `context` is something else.
    """

    size_multiple = DilatedFrontEnd.size_multiple

    def __init__(self, num_classes: int = 21, *, context: Context = "basic", divisor: int = 1) -> None:
        if context not in CONTEXT_WIDTHS:
            raise ValueError(f"context must be one of {tuple(CONTEXT_WIDTHS)}, got {context!r}")
        super().__init__()
        self.front_end = DilatedFrontEnd(num_classes, divisor=divisor)
        noise = NOISE if context == "large" else 0.0
        self.context = context_module(num_classes, CONTEXT_WIDTHS[context], noise=noise)

    def forward(self, batch: Tensor) -> Tensor:
        """Compute the logits of a batch, with the sizes of `DilatedFrontEnd`."""
        logits: Tensor = self.context(self.front_end(batch))
        return logits


def context_module(
    num_classes: int = 21, widths: Sequence[int] = CONTEXT_WIDTHS["basic"], *, noise: float = 0.0
) -> nn.Sequential:
    """Build seven dilated 3x3 convolutions and a 1x1 convolution.

    They see 67 x 67 cells and keep the size. The first convolution pads with zeros for all seven.

    Args:
        num_classes: channels of input and output.
        widths: channels after each of the eight layers, as multiples of `num_classes`.
        noise: standard deviation of the weights that the identity leaves at zero, relative to its own. Without it,
            equal channels would stay equal.
    """
    channels = [num_classes * width for width in (1, *widths)]
    padding = sum(CONTEXT_DILATIONS)
    layers: list[nn.Module] = []
    for (before, after), dilation in zip(pairwise(channels[:-1]), CONTEXT_DILATIONS, strict=True):
        convolution = nn.Conv2d(before, after, kernel_size=3, dilation=dilation, padding=padding)
        layers += activate(convolution, has_norm=False)
        padding = 0
    layers.append(nn.Conv2d(channels[-2], channels[-1], kernel_size=1))
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            start_as_identity(layer, num_classes, noise=noise)
    return nn.Sequential(*layers)


def reflect_pad(image: Tensor, margin: int) -> Tensor:
    """Pad by reflection on all four sides.

    A margin wider than the image holds several reflections.

    Args:
        image: (N, C, H, W). H and W are 2 or more.
        margin: pixels on each side.

    Returns:
        (N, C, H + 2 * margin, W + 2 * margin), of the same dtype.

    Source: cv2.copyMakeBorder with BORDER_REFLECT_101. F.pad(mode="reflect") takes no margin wider than the image.
    """
    rows, columns = (_reflect_positions(length, margin, image.device) for length in image.shape[2:])
    return image.index_select(2, rows).index_select(3, columns)


def start_as_identity(layer: nn.Conv2d, num_classes: int, *, noise: float = 0.0) -> None:
    """Set the weights to pass each class on, and the biases to zero.

    Channels form `num_classes` groups, one per class. Each output channel is the sum of its group's input channels,
    divided by the number of output channels that share it, so the sum over a group stays.

    Args:
        layer: its numbers of channels are multiples of `num_classes`.
        num_classes: C in the paper.
        noise: standard deviation of the other weights, relative to those that pass a class on.

    Source: eqs. 4 and 5 of the paper.
    """
    share = num_classes / layer.out_channels
    a = torch.arange(layer.in_channels) * num_classes // layer.in_channels
    b = torch.arange(layer.out_channels) * num_classes // layer.out_channels
    height, width = layer.kernel_size
    with torch.no_grad():
        layer.weight.normal_(std=noise * share)
        layer.weight[:, :, height // 2, width // 2][b[:, None] == a] = share
        if layer.bias is not None:
            layer.bias.zero_()


def dilated_front_end(num_classes: int = 21, *, divisor: int = 1) -> DilatedFrontEnd:
    """Build the front end with random weights. 21 classes are those of Pascal VOC."""
    return DilatedFrontEnd(num_classes, divisor=divisor)


def dilated_context(num_classes: int = 21, *, context: Context = "basic", divisor: int = 1) -> DilatedNetwork:
    """Build the front end with random weights, and the context module."""
    return DilatedNetwork(num_classes, context=context, divisor=divisor)


def _reflect_positions(length: int, margin: int, device: torch.device) -> Tensor:
    """Return the pixel of each position of a padded line, as 2 1 0 1 2 3 2 1 0."""
    period = 2 * (length - 1)
    position = (torch.arange(length + 2 * margin, device=device) - margin).abs()
    # Both are tensors, because torch.onnx cannot take the remainder by a dynamic size.
    position = torch.remainder(position, torch.full_like(position, period))
    return torch.minimum(position, period - position)


def _dilated_stages(divisor: int) -> Iterator[nn.Module]:
    """Yield the unpadded convolutions of VGG16, and the first three poolings."""
    in_channels = 3
    for i, (stage, dilation) in enumerate(zip(VGG16, FRONT_END_DILATIONS, strict=True)):
        for channels in stage:
            out_channels = thin(channels, divisor)
            yield from activate(nn.Conv2d(in_channels, out_channels, 3, dilation=dilation), has_norm=False)
            in_channels = out_channels
        if i < POOLINGS:
            yield nn.MaxPool2d(kernel_size=2)
