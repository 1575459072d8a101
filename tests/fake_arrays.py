"""Tensors in the memory of the fake GPU, and as much of cuda.core.utils as reads them."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import fake_cuda_core
import numpy as np
from numpy.typing import NDArray


class FakeTensor:
    """What CuPy or Numba has: an array on a GPU, with the stream of the work that fills it.

    Attributes:
        array: the same memory, for the host.
    """

    def __init__(self, content: NDArray[Any], device: int = 0, stream: Any = None, readonly: bool = False) -> None:
        fake_cuda_core._world.thread.device = device
        self._buffer = fake_cuda_core.Buffer(max(1, content.nbytes), "device")
        self.fake_device = device
        memory = (ctypes.c_uint8 * content.nbytes).from_address(self._buffer.handle)
        self.array: NDArray[Any] = np.ctypeslib.as_array(memory).view(content.dtype).reshape(content.shape)
        self.array[...] = content
        self._stream, self._readonly = stream, readonly

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        stream = self._stream if isinstance(self._stream, int) else getattr(self._stream, "handle", None)
        array = self.array
        return {
            "data": (array.__array_interface__["data"][0], self._readonly),
            "shape": array.shape,
            "strides": None if array.flags.c_contiguous else array.strides,
            "typestr": array.dtype.str,
            "stream": stream,
            "version": 3,
        }

    def view(self, array: NDArray[Any]) -> FakeTensor:
        """Return a tensor of part of the memory."""
        part = object.__new__(type(self))
        vars(part).update(vars(self), array=array)
        return part

    def close(self) -> None:
        """Free the memory."""
        fake_cuda_core._world.buffers.pop(self._buffer.handle, None)


class FakeDLPackTensor:
    """What PyTorch has: DLPack alone, on a stream that it makes the consumer's wait for."""

    def __init__(self, tensor: FakeTensor, stream: Any = None) -> None:
        self._tensor, self._stream, self.fake_device = tensor, stream, tensor.fake_device

    def close(self) -> None:
        """Free the memory."""
        self._tensor.close()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.fake_device

    def __dlpack__(self, *, stream: int) -> dict[str, Any]:
        if self._stream is not None:
            fake_cuda_core._world.streams[stream].wait(self._stream)
        return {**self._tensor.__cuda_array_interface__, "stream": None}


class StridedMemoryView:
    """Reads what tensors say of themselves."""

    ptr: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    device_id: int
    is_device_accessible: bool
    readonly: bool

    @classmethod
    def from_any_interface(cls, obj: Any, stream_ptr: int | None = None) -> StridedMemoryView:
        assert stream_ptr is not None
        given = obj.__dlpack__(stream=stream_ptr) if hasattr(obj, "__dlpack__") else obj.__cuda_array_interface__
        if given["stream"] == 0:
            raise BufferError("stream=0 is disallowed")
        if given["stream"] is not None:
            streams = fake_cuda_core._world.streams
            streams[stream_ptr].wait(streams[given["stream"]])
        found = cls()
        found.ptr, found.readonly = given["data"]
        found.shape, found.dtype, found.device_id = given["shape"], np.dtype(given["typestr"]), obj.fake_device
        steps = given["strides"]
        found.strides = None if steps is None else tuple(step // found.dtype.itemsize for step in steps)
        found.is_device_accessible = True
        return found


UTILS = SimpleNamespace(StridedMemoryView=StridedMemoryView)
