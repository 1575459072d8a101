"""Shared parts of the reference networks: widths and initial weights."""

from __future__ import annotations

import math

import torch
from torch import nn


def thin(channels: int, divisor: int) -> int:
    """Divide a published number of channels, for quick networks.

    Args:
        channels: as published.
        divisor: 1 keeps them.

    Raises:
        ValueError: if the division leaves a remainder.
    """
    if divisor < 1 or channels % divisor:
        raise ValueError(f"divisor must divide {channels} channels, got {divisor}; try 1, 2, 4 or 8")
    return channels // divisor


def initialize(network: nn.Module) -> None:
    """Draw the weights of all convolutions, and zero the biases.

    Activations keep their size through ReLUs. Weights are normal with variance 2 / n, where n is the number of products
    in the sum of one output value. A transposed convolution spreads its kernel over stride x stride outputs, so each
    sums that many times fewer.

    Source: K. He et al., "Delving Deep into Rectifiers", ICCV 2015, eq. 10.
    """
    for part in network.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            products = part.in_channels // part.groups * math.prod(part.kernel_size)
            if isinstance(part, nn.ConvTranspose2d):
                products //= math.prod(part.stride)
            nn.init.normal_(part.weight, std=math.sqrt(2 / products))
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def amplify(layer: nn.Module, factor: float) -> None:
    """Multiply the weights of a new layer for a sparse input.

    Only one input value in factor x factor is not zero, so the sum has 1 / factor**2 of the products that `initialize`
    assumes.
    """
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(factor)
