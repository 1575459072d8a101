"""Adaptive pooling to sizes that do not divide the input.

An average becomes two small matrix products, a maximum becomes a maximum over slices. The exporter writes such an
average as one Gather and Add for every row and column, about a hundred nodes for a pyramid. It has no form of such a
maximum.

Source: torch.nn.AdaptiveAvgPool2d. Bin i of o over n samples reaches from floor(i * n / o) to ceil((i + 1) * n / o).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ._splice import is_known, replace, result, sizes


def average(node: Node) -> str | None:
    """Rewrite aten.adaptive_avg_pool2d."""
    if _divides(node):
        return None
    replace(node, average_by_matrix, node.args[0], node.args[1])
    return "adaptive average pooling as two matrix products"


def maximum(node: Node) -> str | None:
    """Rewrite aten.adaptive_max_pool2d."""
    values = result(node, 0)
    if result(node, 1) is not None or values is None:
        return None
    replace(values, maximum_by_slices, node.args[0], node.args[1])
    return "adaptive max pooling as a maximum over slices"


def average_by_matrix(x: Tensor, output_size: list[int]) -> Tensor:
    """Average the bins of (N, C, H, W)."""
    rows, columns = (_weights(size, bins, x) for size, bins in zip(x.shape[2:], output_size, strict=True))
    return rows @ (x @ columns.T)


def maximum_by_slices(x: Tensor, output_size: list[int]) -> Tensor:
    """Take the maximum of the bins of (N, C, H, W)."""
    for axis, bins in zip((2, 3), output_size, strict=True):
        parts = [
            x.narrow(axis, first, last - first).amax(axis, keepdim=True)
            for first, last in (_bin(i, x.shape[axis], bins) for i in range(bins))
        ]
        x = torch.cat(parts, axis)
    return x


def _weights(size: int, bins: int, like: Tensor) -> Tensor:
    """Return the (bins, size) matrix that averages the samples of bins."""
    sample = torch.arange(size, device=like.device)
    first, last = _bin(torch.arange(bins, device=like.device)[:, None], size, bins)
    member: Tensor = (sample >= first) & (sample < last)
    counts: Tensor = last - first
    return member.to(like.dtype) / counts.to(like.dtype)


def _bin(i: Any, size: int, bins: int) -> tuple[Any, Any]:
    """Return begin and end of bin `i`."""
    return i * size // bins, ((i + 1) * size + bins - 1) // bins


def _divides(node: Node) -> bool:
    """Return whether the exporter has one operator for a pooling."""
    # It would freeze dynamic sizes at those of the example.
    source: Any = node.args[0]
    pairs = list(zip(sizes(source), sizes(node), strict=True))
    is_global = all(is_known(m == 1) for _, m in pairs)
    return is_global or all(isinstance(n, int) and n % m == 0 for n, m in pairs)
