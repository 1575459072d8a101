"""Buffers of one GPU, and copies of them."""

from __future__ import annotations

import ctypes
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import translate_errors
from .recording import making

_STAGED_BYTES = 8 << 20


class Memory:
    """Buffers on the GPU and pinned ones on the host. See `Gpu`, which sets the attributes.

    Buffers are objects of cuda-core. Addresses are device addresses.
    """

    driver: Any
    device: Any
    stream: Any

    def __init__(self, core: Any) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._live: dict[int, Any] = {}
        self._staging_lock = threading.Lock()
        self._staged: Any = None
        self._done: Any = None
        self._pinned: Any = None

    @property
    def live_buffers(self) -> int:
        """Number of device and pinned buffers in use."""
        return len(self._live)

    def allocate(self, nbytes: int) -> Any:
        """Allocate a device buffer for use on any stream.

        Its address is `int(buffer.handle)`.

        Raises:
            BackendError: if memory runs out.
        """
        nbytes = max(1, nbytes)
        with making(), translate_errors("allocating a buffer", nbytes):
            buffer = self._keep(self.device.allocate(nbytes, stream=self.stream))
            self.stream.sync()
        return buffer

    def allocate_pinned(self, nbytes: int) -> Any:
        """Allocate a pinned host buffer, which kernels reach at its address too.

        `as_bytes` returns its content.

        Raises:
            BackendError: if memory runs out.
        """
        nbytes = max(1, nbytes)
        with making(), translate_errors("allocating a buffer", nbytes, memory="pinned memory of the host"):
            return self._keep(self._pinned.allocate(nbytes))

    def _keep(self, buffer: Any) -> Any:
        with self._lock:
            self._live[id(buffer)] = buffer
        return buffer

    def free(self, buffer: Any) -> None:
        """Free a buffer. Idempotent.

        No work in flight may use the buffer.
        """
        with self._lock:
            is_live = self._live.pop(id(buffer), None) is buffer
        if is_live:
            with making(), suppress(Exception):  # the GPU may have failed, and the caller must continue
                buffer.close(self.stream)

    def view(self, address: int, nbytes: int) -> Any:
        """Return part of another buffer. It need not be freed."""
        return self._core.Buffer.from_handle(address, nbytes)

    def clear(self, buffer: Any) -> None:
        """Fill a buffer with zeros and wait."""
        with translate_errors("clearing memory"):
            buffer.fill(0, stream=self.stream)
            self.stream.sync()

    def copy(self, target: int, source: int, nbytes: int, stream: Any) -> None:
        """Start a copy between addresses of the GPU and of pinned memory."""
        unwrap(self.driver.cuMemcpyAsync(target, source, nbytes, stream.handle))

    def copy_rows(
        self, target: tuple[int, int], source: tuple[int, int], row_bytes: int, rows: int, stream: Any
    ) -> None:
        """Start a copy of rows. Target and source are (address, pitch in bytes)."""
        copy, either = self.driver.CUDA_MEMCPY2D(), self.driver.CUmemorytype.CU_MEMORYTYPE_UNIFIED
        copy.dstMemoryType, (copy.dstDevice, copy.dstPitch) = either, target
        copy.srcMemoryType, (copy.srcDevice, copy.srcPitch) = either, source
        copy.WidthInBytes, copy.Height = row_bytes, rows
        unwrap(self.driver.cuMemcpy2DAsync(copy, stream.handle))

    def fill_rows(self, target: tuple[int, int], value: int, itemsize: int, width: int, rows: int, stream: Any) -> None:
        """Start filling rows of `width` values of one or two bytes. Target is (address, pitch in bytes)."""
        start = self.driver.cuMemsetD2D8Async if itemsize == 1 else self.driver.cuMemsetD2D16Async
        unwrap(start(*target, value, width, rows, stream.handle))

    def fill(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a contiguous array to a buffer of its size and wait."""
        source, address = array.reshape(-1).view(np.uint8), int(buffer.handle)
        with self._staging_lock, translate_errors("copying to the GPU"):
            for start in range(0, len(source), _STAGED_BYTES):
                piece = source[start : start + _STAGED_BYTES]
                as_bytes(self._staging())[: len(piece)] = piece
                self.copy(address + start, int(self._staged.handle), len(piece), stream)
                self._wait(stream)

    def upload(self, array: NDArray[Any]) -> Any:
        """Copy an array into a new buffer."""
        array = np.ascontiguousarray(array)
        buffer = self.allocate(array.nbytes)
        self.fill(buffer, array, self.stream)
        return buffer

    def download(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a buffer to a contiguous array of its size and wait.

        The copy starts after earlier work on the stream.
        """
        target, address = array.reshape(-1).view(np.uint8), int(buffer.handle)
        with self._staging_lock, translate_errors("copying from the GPU"):
            for start in range(0, len(target), _STAGED_BYTES):
                piece = target[start : start + _STAGED_BYTES]
                self.copy(int(self._staging().handle), address + start, len(piece), stream)
                self._wait(stream)
                piece[...] = as_bytes(self._staged)[: len(piece)]

    def _staging(self) -> Any:
        """Return pinned memory for copies. Pinning takes longer than a copy, so it is kept."""
        if self._staged is None:
            self._staged = self.allocate_pinned(_STAGED_BYTES)
            self._done = self.new_event()
        return self._staged

    def _wait(self, stream: Any) -> None:
        stream.record(self._done)
        self._done.sync()

    def new_event(self) -> Any:
        """Create an event that a host thread can wait for."""
        raise NotImplementedError


def as_bytes(buffer: Any) -> NDArray[np.uint8]:
    """Return a pinned buffer as an array of bytes.

    Delete the array before the buffer is freed.
    """
    memory = (ctypes.c_uint8 * buffer.size).from_address(int(buffer.handle))
    return np.ctypeslib.as_array(memory)


def unwrap(result: tuple[Any, ...]) -> Any:
    """Return the value of a driver call, or raise its error."""
    code, *values = result
    if int(code):
        raise RuntimeError(getattr(code, "name", f"CUresult {code}"))
    return values[0] if values else None
