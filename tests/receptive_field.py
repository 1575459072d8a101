"""Receptive fields measured by gradient: how far around one output pixel the input has a say in it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


def receptive_field(module: nn.Module, size: tuple[int, int], *, channels: int = 3) -> tuple[int, int]:
    """Measure the receptive field of a network's central output pixel.

    What is asked is which input pixels *can* matter, whatever the weights and the picture: those on which the gradient
    of one output pixel of the `linearized` network is positive. Only the extent counts: the field of dilated
    convolutions alone has holes.

    Args:
        module: maps (1, channels, H, W) to (1, K, h, w); left as it is.
        size: (H, W) of the input, larger than the receptive field.
        channels: channels of the input.

    Returns:
        (height, width) of the receptive field in input pixels.

    Raises:
        ValueError: if the field reaches the border of the input, which may have cut it off; if the module subtracts,
            which positive weights do not undo; or if its max-poolings are dilated or return indices: neither has a
            mean.
    """
    image = torch.ones(1, channels, *size, dtype=torch.float64, requires_grad=True)
    output = linearized(module)(image)
    output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum().backward()
    assert image.grad is not None
    seen = image.grad[0].sum(0) > 0
    return _extent(seen.any(1)), _extent(seen.any(0))


def linearized(module: nn.Module) -> nn.Module:
    """Return a copy of a network that is a weighted mean of its input.

    Weights and activations of the network itself hide pixels: a negative weight cancels a positive one, a ReLU or a
    maximum passes nothing of what it does not choose. In the copy, each convolution or linear layer is the mean of what
    it sees, so that of a positive input every activation is positive and ReLU is the identity; batch norm is the
    identity too; and every max-pooling, module or function, is the mean over the same window.

    Args:
        module: left as it is.

    Returns:
        The same network in eval mode, without gradients of its parameters, for positive float64 input: the corner of
        the receptive field of a deep network has a share of about 1e-17.
    """
    copied = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        for part in copied.modules():
            for parameter in part.parameters(recurse=False):
                parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0)
            if isinstance(part, _BatchNorm):
                part.reset_running_stats()
                part.reset_parameters()
    return _Linearized(copied.requires_grad_(False))


class _Linearized(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Any:
        with _MeanPooling():
            return self.module(x)


class _MeanPooling(TorchFunctionMode):
    """Replaces max-pooling by mean-pooling while it is active."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.max_pool2d, torch.max_pool2d):
            return _mean_pool(*args, **(kwargs or {}))
        if func is F.max_pool2d_with_indices:
            raise ValueError("a max-pooling that returns indices has no mean; measure the part before it")
        return func(*args, **(kwargs or {}))


def _mean_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if return_indices or dilation not in (1, (1, 1)):
        raise ValueError(f"no mean-pooling is like a max-pooling with {dilation=}, {return_indices=}")
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)


def _extent(seen: Tensor) -> int:
    positions = seen.nonzero().flatten()
    if len(positions) == 0:
        raise ValueError("the output depends on no pixel: the module subtracts somewhere, and a ReLU closes")
    first, last = int(positions[0]), int(positions[-1])
    if first == 0 or last == len(seen) - 1:
        raise ValueError(f"the receptive field reaches the border of {len(seen)} pixels; give a larger size")
    return last - first + 1
