"""Memory between two pages that may not be touched, and arrays of any strides that end, or begin, where it does."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)


class Arena:
    """Writable memory of whole pages; a byte before or behind it cannot be read or written without a crash."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // _PAGE) * _PAGE
        self._memory = mmap.mmap(-1, self.size + 2 * _PAGE)
        whole = np.frombuffer(self._memory, np.uint8)
        self.bytes: NDArray[np.uint8] = whole[_PAGE : _PAGE + self.size]
        for guard in (whole.ctypes.data, whole.ctypes.data + _PAGE + self.size):
            if _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(_PAGE), _PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...], *, at_end: bool, shift: int = 0
    ) -> NDArray[Any] | None:
        """Return an array whose last byte is the last here, or its first the first; None if too large.

        Args:
            shape: sides of the array; a stride of 0 makes room for any.
            dtype: type of the elements.
            strides: in bytes, of any sign.
            at_end: whether it ends where the memory does.
            shift: bytes between the array and the guard, which may leave it misaligned.
        """
        if 0 in shape:
            return np.zeros(shape, dtype)
        reaches = [(side - 1) * stride for side, stride in zip(shape, strides, strict=True)]
        low, high = sum(r for r in reaches if r < 0), sum(r for r in reaches if r > 0) + dtype.itemsize
        if high - low + shift > self.size:
            return None
        offset = (self.size - high if at_end else -low) + (-shift if at_end else shift)
        array: NDArray[Any] = np.ndarray(shape, dtype, self.bytes, offset, strides)
        return array
