"""Transposed convolution with stride and dilation.

TensorRT cannot build it. Zeros between the weights replace the dilation.
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from ._splice import arguments, pair, replace


def fill_kernel(node: Node) -> str | None:
    """Rewrite aten.conv_transpose2d."""
    given = arguments(node)
    stride, dilation = pair(given["stride"]), pair(given["dilation"])
    if max(stride) == 1 or max(dilation) == 1:
        return None
    weight = given["weight"]

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        filled = insert_zeros(weight, dilation)
        return F.conv_transpose2d(x, filled, bias, stride, given["padding"], given["output_padding"], given["groups"])

    replace(node, convolve, given["input"], weight, given["bias"])
    return "dilated transposed convolution with zeros in its kernel"


def insert_zeros(weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Put zeros between the weights of a (..., kh, kw) kernel."""
    (*channels, kh, kw), (dh, dw) = weight.shape, dilation
    spread = F.pad(weight.reshape(*channels, kh, 1, kw, 1), (0, dw - 1, 0, 0, 0, dh - 1))
    return spread.reshape(*channels, kh * dh, kw * dw)[..., : dh * (kh - 1) + 1, : dw * (kw - 1) + 1]
