"""Arrays of a caller that a GPU reaches: tensors and lent arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._errors import InputError
from .compiler import require_cuda
from .errors import join_lines

_CUDA, _MANAGED = 2, 13  # device types of DLPack


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """Memory of a caller's tensor on a GPU. Named like an array of NumPy where `check_image` looks.

    Attributes:
        address: of the first value.
        shape: sides in values.
        strides: distances in bytes.
        dtype: type of the values.
        is_writable: whether results may go there.
        owner: tensor of the caller.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    is_writable: bool
    owner: Any

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def bounds(self) -> tuple[int, int]:
        """Addresses of the first byte and the one behind the last."""
        return self.address, self.address + extent(self)

    def channels_last(self) -> DeviceArray:
        """Return a view with the first axis last."""
        (c, *shape), (step, *strides) = self.shape, self.strides
        return replace(self, shape=(*shape, c), strides=(*strides, step))


def extent(array: Any) -> int:
    """Return the bytes from the first value of an array to behind the last. Its strides are not negative."""
    reach = sum((side - 1) * stride for side, stride in zip(array.shape, array.strides, strict=True))
    return int(reach + array.dtype.itemsize) if 0 not in array.shape else 0


def is_on_gpu(value: Any) -> bool:
    """Tell whether a value is a tensor in memory of a GPU."""
    if isinstance(value, np.ndarray):
        return False
    try:
        if hasattr(value, "__dlpack_device__"):
            return value.__dlpack_device__()[0] in (_CUDA, _MANAGED)
        return hasattr(value, "__cuda_array_interface__")
    except Exception:  # libraries raise many kinds for devices that DLPack does not know
        return False


def import_array(owner: Any, device: int, name: str, stream: Any) -> DeviceArray:
    """Return the memory of a tensor on a GPU.

    Work of the caller's stream comes before later work of `stream`: by DLPack the stream that is current in the
    tensor's library, by `__cuda_array_interface__` the one that it names.

    Args:
        owner: tensor with `__dlpack__` or `__cuda_array_interface__`.
        device: index of the GPU of the model.
        name: name of that GPU.
        stream: a stream of cuda-core.

    Raises:
        InputError: if the tensor lies elsewhere, or its library refuses.
    """
    kind = type(owner).__name__
    if hasattr(owner, "__dlpack_device__"):  # libraries refuse a stream of another device in words of their own
        _check_device(owner.__dlpack_device__()[1], device, name, kind)
    try:
        view = require_cuda("cuda.core.utils").StridedMemoryView.from_any_interface(
            owner.detach() if hasattr(owner, "detach") else owner, stream_ptr=int(stream.handle)
        )
    except Exception as error:  # every library has its own
        raise InputError(
            f"expected a tensor of CUDA device {device} on a valid stream, got {kind} ({join_lines(error)}); make it "
            "contiguous there, or copy it to the host"
        ) from error
    _check_device(view.device_id, device, name, kind)
    try:
        shape, dtype = tuple(view.shape), np.dtype(view.dtype)
    except TypeError as error:
        raise InputError(
            f"expected a tensor of a type that NumPy has, got {kind} of {view.dtype}; convert it"
        ) from error
    steps = view.strides or [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return DeviceArray(
        int(view.ptr), shape, tuple(step * dtype.itemsize for step in steps), dtype, not view.readonly, owner
    )


def _check_device(there: int, device: int, name: str, kind: str) -> None:
    if there != device:
        raise InputError(
            f"expected a tensor of CUDA device {device} ({name}), where the model is, got {kind} of device {there}; "
            "move it there, or open the model on that device"
        )


class Lent:
    """Pinned memory that lives as long as arrays of it.

    Args:
        buffer: pinned buffer of cuda-core.
        free: called with the buffer, once no array is left, in any thread at any moment. It must not wait.
    """

    def __init__(self, buffer: Any, free: Callable[[Any], None]) -> None:
        self._buffer, self._free = buffer, free
        self.start, self.stop = int(buffer.handle), int(buffer.handle) + buffer.size
        self.__array_interface__ = {
            "data": (self.start, False),
            "shape": (buffer.size,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        self._free(self._buffer)
