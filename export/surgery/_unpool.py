"""Max pooling with indices, and unpooling.

TensorRT has neither the second output of MaxPool nor MaxUnpool. A pooled value is therefore kept with a *code*, its
position in the window: 0..k*k-1, in the type of the activations. If windows tile the image (kernel = stride), unpooling
lays each value out over its window and keeps it at the position of its code. TensorRT fuses each half into one kernel.
Other windows use flat indices, as PyTorch does, and a scatter.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from ._splice import arguments, is_known, pair, replace, result, sizes, splice

_UNPOOL = torch.ops.aten.max_unpool2d.default
_PLAIN = torch.ops.aten.max_pool2d.default


class Window(NamedTuple):
    """Pooling window. Every pair is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    @property
    def tiles(self) -> bool:
        """Whether every pixel belongs to at most one window."""
        return self.kernel == self.stride and self.padding == (0, 0) and self.dilation == (1, 1)


def pool_with_indices(node: Node) -> str | None:
    """Rewrite aten.max_pool2d_with_indices and the unpooling after it."""
    values, indices = result(node, 0), result(node, 1)
    window, x = _window(node), node.args[0]
    if indices is None:
        node.target = _PLAIN
        if values is not None:
            values.replace_all_uses_with(node)
        node.meta["val"] = node.meta["val"][0]
        return pool(node) or "max pooling without indices, which nothing reads"
    pooled, code = splice(node, max_pool_with_codes, x, window)
    if values is not None:
        values.replace_all_uses_with(pooled)
    paired = [user for user in indices.users if _undoes(user, indices, node, window)]
    for unpool in paired:
        replace(unpool, unpool_codes, unpool.args[0], code, window, unpool.args[2])
    if len(paired) < len(indices.users):
        indices.replace_all_uses_with(splice(node, indices_from_codes, x, code, window))
        return "max-pooling indices computed from window positions"
    return "max-pooling indices kept as window positions, unpooled without scatter"


def pool(node: Node) -> str | None:
    """Rewrite aten.max_pool2d if its windows are dilated."""
    window = _window(node)
    if window.dilation == (1, 1):
        return None
    replace(node, lambda x, window: max_pool_with_codes(x, window)[0], node.args[0], window)
    return "dilated max pooling as a maximum over slices"


def unpool(node: Node) -> str | None:
    """Rewrite an aten.max_unpool2d of any indices."""
    replace(node, unpool_indices, *node.args)
    return "unpooling by indices as a scatter"


def max_pool_with_codes(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Pool (N, C, H, W), and return maxima and codes.

    The code is that of the first of equal values.
    """
    views = _views(x, window)
    best, code = views[0], torch.zeros_like(views[0])
    for position, view in enumerate(views[1:], 1):
        code = torch.where(view > best, float(position), code)
        best = torch.maximum(best, view)
    return best, code


def unpool_codes(values: Tensor, code: Tensor, window: Window, output_size: list[int]) -> Tensor:
    """Put every value at the position of its code, and 0 elsewhere.

    Returns:
        (N, C, *output_size).
    """
    (kh, kw), (n, c, h, w) = window.kernel, values.shape
    height, width = output_size
    position = torch.arange(kh * kw, dtype=code.dtype, device=code.device).view(kh, 1, kw)
    laid_out = torch.where(code[:, :, :, None, :, None] == position, values[:, :, :, None, :, None], 0.0)
    laid_out = laid_out.reshape(n, c, h * kh, w * kw)
    if is_known(height == h * kh) and is_known(width == w * kw):
        return laid_out
    if window.ceil_mode:
        return laid_out[:, :, :height, :width]
    return F.pad(laid_out, (0, width - w * kw, 0, height - h * kh))


def indices_from_codes(x: Tensor, code: Tensor, window: Window) -> Tensor:
    """Return PyTorch's int64 indices, `row * W + column` without padding."""
    (_, kw), (sh, sw), (ph, pw), (dh, dw), _ = window
    position = code.long()
    row = torch.arange(code.shape[2], device=code.device)[:, None] * sh - ph + position // kw * dh
    column = torch.arange(code.shape[3], device=code.device) * sw - pw + position % kw * dw
    return row * x.shape[3] + column


def unpool_indices(values: Tensor, indices: Tensor, output_size: list[int]) -> Tensor:
    """Put every value at its flat index, and 0 elsewhere.

    Returns:
        (N, C, *output_size).
    """
    n, c = values.shape[:2]
    height, width = output_size
    flat = values.new_zeros(n, c, height * width)
    return flat.scatter(2, indices.flatten(2), values.flatten(2)).reshape(n, c, height, width)


def _views(x: Tensor, window: Window) -> list[Tensor]:
    """Return the (N, C, h, w) pixels at each position of the windows."""
    padding: list[int] = []
    counts = []
    for size, k, s, p, d in zip(x.shape[2:], *window[:4], strict=True):
        extent = d * (k - 1) + 1
        count = (size + 2 * p - extent) // s + 1
        if window.ceil_mode and (size + 2 * p - extent) % s != 0 and count * s < size + p:
            count += 1  # a window that starts inside the image counts even if it ends outside
        padding = [p, max(p, (count - 1) * s + extent - size - p), *padding]
        counts.append(count)
    if window.ceil_mode or any(padding):
        x = F.pad(x, padding, value=-torch.inf)
    starts = (range(0, k * d, d) for k, d in zip(window.kernel, window.dilation, strict=True))
    (h, w), (sh, sw) = counts, window.stride
    return [
        x[:, :, i : i + (h - 1) * sh + 1 : sh, j : j + (w - 1) * sw + 1 : sw] for i, j in itertools.product(*starts)
    ]


def _window(node: Node) -> Window:
    given = arguments(node)
    kernel = pair(given["kernel_size"])
    stride, padding, dilation = (pair(given[name]) for name in ("stride", "padding", "dilation"))
    return Window(kernel, stride or kernel, padding or (0, 0), dilation or (1, 1), bool(given["ceil_mode"]))


def _undoes(user: Node, indices: Node, pooling: Node, window: Window) -> bool:
    """Return whether a node undoes exactly this pooling."""
    if user.target != _UNPOOL or user.args[1] is not indices or not window.tiles:
        return False
    source: Any = pooling.args[0]
    same_extent = all(is_known(a == b) for a, b in zip(sizes(user), sizes(source), strict=True))
    same_windows = all(is_known(a == b) for a, b in zip(sizes(user.args[0]), sizes(indices), strict=True))  # type: ignore[arg-type]
    return same_extent and same_windows
