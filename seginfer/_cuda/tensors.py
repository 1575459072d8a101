"""TensorMemory: what the executions of a network have of a GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._errors import InputError
from .gpu import Gpu

_DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")


class DeviceTensor(NamedTuple):
    """A contiguous tensor in the memory of a GPU."""

    address: int
    shape: tuple[int, ...]
    dtype: str


class TensorMemory:
    """Memory of a GPU for tensors of an execution; all zeros at first."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._buffers: list[Any] = []

    def tensor(self, shape: Sequence[int], dtype: str) -> DeviceTensor:
        """Return a new tensor.

        Raises:
            InputError: if NumPy has no such dtype, as bfloat16.
            BackendError: if memory runs out.
        """
        if dtype not in _DTYPES:
            raise InputError(f"tensors on a GPU must be {', '.join(_DTYPES)}, got {dtype}; add a cast to the graph")
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._gpu.allocate(nbytes)
        self._buffers.append(buffer)
        self._gpu.clear(buffer)
        return DeviceTensor(int(buffer.handle), tuple(shape), dtype)

    def buffer(self, tensor: DeviceTensor) -> Any:
        """Return the buffer of a tensor."""
        return next(buffer for buffer in self._buffers if int(buffer.handle) == tensor.address)

    def close(self) -> None:
        """Free everything."""
        while self._buffers:
            self._gpu.free(self._buffers.pop())
