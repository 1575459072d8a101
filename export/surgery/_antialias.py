"""Antialiased resizing as two matrix products.

TensorRT's Resize has no antialias. Every output row is a weighted sum of input rows, and every output column of input
columns. The weights depend on the sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ._splice import arguments, replace

_BICUBIC = -0.5  # torch uses it with antialias, as Pillow does; without antialias it is -0.75


def resize(node: Node) -> str:
    """Rewrite aten._upsample_bilinear2d_aa and aten._upsample_bicubic2d_aa."""
    given = arguments(node)
    function = partial(
        resize_by_matrix, align_corners=bool(given["align_corners"]), bilinear="bilinear" in str(node.target)
    )
    replace(node, function, node.args[0], given["output_size"], given["scale_factors"])
    return "antialiased resize as two matrix products"


def resize_by_matrix(
    x: Tensor,
    output_size: list[int] | None,
    factors: list[float] | None = None,
    *,
    align_corners: bool = False,
    bilinear: bool = True,
) -> Tensor:
    """Resize (N, C, H, W) with antialias.

    Args:
        x: (N, C, H, W) floating point.
        output_size: height and width of the result. None multiplies those of x by `factors`.
        factors: vertical and horizontal scale factor. Positions follow these, not the rounded sizes.
        align_corners: as in torch.
        bilinear: use the triangle filter. Otherwise the filter is bicubic.
    """
    kernel, reach = (_triangle, 1) if bilinear else (_cubic, 2)
    sizes = output_size or [torch.sym_int(n * factor) for n, factor in zip(x.shape[2:], factors or (), strict=True)]
    rows, columns = (
        _weights(n, m, _scale(n, m, factor, align_corners), kernel, reach, x)
        for n, m, factor in zip(x.shape[2:], sizes, factors or (None, None), strict=True)
    )
    return rows @ (x @ columns.T)


def _weights(n: int, m: int, scale: Any, kernel: Callable[[Tensor], Tensor], reach: int, like: Tensor) -> Tensor:
    """Return the (m, n) matrix of weights.

    Source: torch's _compute_indices_weights_aa. The filter is widened by the scale if the image shrinks, cut to the
    samples with centres within its support, and normalized.
    """
    widened: Any = torch.sym_max(scale, 1.0)
    centre = scale * (torch.arange(m, device=like.device, dtype=torch.float32)[:, None] + 0.5)
    support = reach * widened
    sample = torch.arange(n, device=like.device, dtype=torch.float32)
    inside = (sample >= (centre - support + 0.5).trunc()) & (sample < (centre + support + 0.5).trunc())
    weight = torch.where(inside, kernel((sample - centre + 0.5) / widened), 0.0)
    return (weight / weight.sum(1, keepdim=True)).to(like.dtype)


def _scale(n: int, m: int, factor: float | None, align_corners: bool) -> Any:
    """Return the number of input samples per output sample.

    Source: torch's area_pixel_compute_scale.
    """
    if align_corners:
        return (n - 1) / (m - 1) if m > 1 else 0.0
    return 1 / factor if factor else n / m


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Return Keys' cubic convolution kernel."""
    a, x = _BICUBIC, x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
