"""Tensors that modules of PyTorch are called with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn


@contextmanager
def record_inputs(channels: int) -> Iterator[list[NDArray[Any]]]:
    """Record the images that PyTorch modules are called with."""
    found: list[NDArray[Any]] = []

    def keep(_module: nn.Module, inputs: Any) -> None:
        for one in inputs.values() if isinstance(inputs, Mapping) else inputs:
            if isinstance(one, Tensor) and one.ndim == 4 and one.shape[1] == channels and one.is_floating_point():
                found.append(one.detach().float().cpu().numpy().copy())

    # In every module of the process: the reference may build its own.
    handle = nn.modules.module.register_module_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
