"""Tensors in GPU memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._errors import InputError
from .gpu import Gpu

_DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")


class DeviceTensor(NamedTuple):
    """A contiguous tensor in GPU memory."""

    address: int
    shape: tuple[int, ...]
    dtype: str


class DeviceMemory:
    """GPU memory for the tensors of one execution.

    Attributes:
        stream: a cuda-core stream for work before the first call of `Execution.enqueue`.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self.stream = gpu.stream
        self._buffers: list[Any] = []

    def tensor(self, shape: Sequence[int], dtype: str) -> DeviceTensor:
        """Allocate a tensor of zeros.

        Raises:
            InputError: if NumPy has no such dtype, for example bfloat16.
            BackendError: if memory runs out.
        """
        if dtype not in _DTYPES:
            raise InputError(f"tensors on a GPU must be {', '.join(_DTYPES)}, got {dtype}; add a cast to the graph")
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._gpu.allocate(nbytes)
        self._buffers.append(buffer)
        self._gpu.clear(buffer)
        return DeviceTensor(int(buffer.handle), tuple(shape), dtype)

    def close(self) -> None:
        """Free every tensor. Idempotent."""
        while self._buffers:
            self._gpu.free(self._buffers.pop())
