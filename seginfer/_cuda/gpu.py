"""One GPU: kernels, streams, buffers and copies."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import BackendError, BackendUnavailableError, InputError
from .._system.driver import find_gpu
from .._system.fork import leak_in_children
from . import kernel_args
from .compiler import cubins, require_cuda
from .errors import join_lines, translate_errors

KERNELS = tuple(
    f"seginfer_{name}" for name in ("preprocess", "preprocess_filtered", "label", "mask", "maps", "overlay")
)

AFTER_FORK = "a GPU cannot be used in a forked process; open the model in the child, or use multiprocessing's 'spawn'"

_log = logging.getLogger("seginfer")


class Gpu:
    """One GPU with loaded kernels.

    Streams and buffers are objects of cuda-core. Addresses are device addresses. Several threads may use one object,
    each after calling `use`. `close` frees all remaining buffers.

    Args:
        device_id: index of the GPU.

    Raises:
        BackendUnavailableError: if the GPU does not exist, or cuda-core or NVRTC is missing.
    """

    def __init__(self, device_id: int = 0) -> None:
        self._core = require_cuda()
        self.driver = require_cuda("cuda.bindings.driver")
        self.info = find_gpu(device_id)
        self._lock = threading.Lock()
        self._live: dict[int, Any] = {}
        self._process = os.getpid()
        leak_in_children(self)
        self._is_closed = False
        try:
            self.device = self._core.Device(device_id)
            self.device.set_current()
            self._kernels = self._load_kernels(f"sm_{self.device.arch}")
            self.stream = self.new_stream()
            self._pinned = self._core.LegacyPinnedMemoryResource()
        except BackendUnavailableError:
            raise
        except Exception as error:  # cuda-core raises types of its own, of several parents
            raise BackendUnavailableError(
                f"CUDA device {device_id} cannot be used: {join_lines(error)}; check nvidia-smi, or run on the CPU"
            ) from error

    def _load_kernels(self, architecture: str) -> dict[str, Any]:
        """Load the first cubin that the driver accepts."""
        # An older driver rejects cubins of a newer compiler.
        refusal: Exception = RuntimeError(f"there are no kernels for {architecture}")
        for origin, cubin in cubins(architecture):
            try:
                code = self._core.ObjectCode.from_cubin(cubin)
                return {name: code.get_kernel(name) for name in KERNELS}
            except Exception as error:  # cuda-core raises types of its own, of several parents
                _log.info("the driver does not load the kernels from %s: %s", origin, join_lines(error))
                refusal = error
        raise refusal

    @property
    def is_forked(self) -> bool:
        """Whether another process opened the GPU, and this one is its fork."""
        return os.getpid() != self._process

    def use(self) -> None:
        """Set this GPU current for the calling thread.

        Every thread must call this once before it uses the GPU.

        Raises:
            BackendError: if a fork of the process calls it, or the GPU has failed.
        """
        if self.is_forked:
            raise BackendError(AFTER_FORK)
        with translate_errors("selecting the GPU"):
            self._core.Device(self.info.index).set_current()

    def new_stream(self) -> Any:
        """Create a stream that is independent of others."""
        with translate_errors("creating a stream"):
            return self.device.create_stream()

    def check_stream(self, stream: Any) -> None:
        """Check that a caller's stream belongs to this GPU.

        Raises:
            InputError: if the stream belongs to another GPU.
        """
        there, here = stream.device, self.info
        if there.device_id != here.index:
            raise InputError(
                f"expected a stream of CUDA device {here.index} ({here.name}), where the model is, got one of device "
                f"{there.device_id} ({there.name}); create the stream there, or open the model on that device"
            )

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
        with translate_errors("allocating a buffer", nbytes):
            buffer = self._keep(self.device.allocate(nbytes, stream=self.stream))
            self.stream.sync()
        return buffer

    def allocate_pinned(self, nbytes: int) -> Any:
        """Allocate a pinned host buffer for copies and graphs.

        `as_bytes` returns its content.

        Raises:
            BackendError: if memory runs out.
        """
        nbytes = max(1, nbytes)
        with translate_errors("allocating a buffer", nbytes, memory="pinned memory of the host"):
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
            with suppress(Exception):  # the GPU may have failed, and the caller must continue
                buffer.close(self.stream)

    def view(self, address: int, nbytes: int) -> Any:
        """Return part of another buffer. It need not be freed."""
        return self._core.Buffer.from_handle(address, nbytes)

    def clear(self, buffer: Any) -> None:
        """Fill a buffer with zeros and wait."""
        with translate_errors("clearing memory"):
            buffer.fill(0, stream=self.stream)
            self.stream.sync()

    def fill(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a contiguous array to a buffer and wait.

        The buffer has the size of the array.
        """
        staged = self.allocate_pinned(array.nbytes)
        try:
            as_bytes(staged)[: array.nbytes] = array.reshape(-1).view(np.uint8)
            with translate_errors("copying to the GPU"):
                buffer.copy_from(staged, stream=stream)
                stream.sync()
        finally:
            self.free(staged)

    def upload(self, array: NDArray[Any]) -> Any:
        """Copy an array into a new buffer."""
        array = np.ascontiguousarray(array)
        buffer = self.allocate(array.nbytes)
        if array.nbytes:
            self.fill(buffer, array, self.stream)
        return buffer

    def download(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a buffer to a contiguous array and wait.

        The copy starts after earlier work on the stream. The array has the size of the buffer.
        """
        staged = self.allocate_pinned(array.nbytes)
        try:
            with translate_errors("copying from the GPU"):
                buffer.copy_to(staged, stream=stream)
                stream.sync()
            ctypes.memmove(array.ctypes.data, int(staged.handle), array.nbytes)
        finally:
            self.free(staged)

    def launch(self, kernel: str, grid: tuple[int, int, int], records: int, stream: Any) -> None:
        """Launch a kernel. `records` is the address of its arguments."""
        config = self._core.LaunchConfig(grid=grid, block=kernel_args.BLOCK)
        self._core.launch(stream, config, self._kernels[kernel], records)

    def close(self) -> None:
        """Free everything and return memory to the driver. Idempotent.

        No work may be in flight.
        """
        with self._lock:
            is_closed, self._is_closed = self._is_closed, True
            buffers = list(self._live.values())
        if is_closed or self.is_forked:
            return
        with suppress(Exception):  # the GPU may have failed, and the rest must still be freed
            self.use()
        for buffer in buffers:
            self.free(buffer)
        self.trim()
        self._kernels.clear()
        self.stream.close()

    def trim(self) -> None:
        """Return unused memory of the driver's pool to the GPU."""
        # The pool keeps freed memory by default, and other processes may need it.
        with suppress(Exception):  # the GPU may have failed, and the caller must continue
            self.stream.sync()
            pool = getattr(self.device.memory_resource, "handle", None)  # none where the GPU has no pools
            if pool is not None:
                self.driver.cuMemPoolTrimTo(pool, 0)


def as_bytes(buffer: Any) -> NDArray[np.uint8]:
    """Return a pinned buffer as an array of bytes.

    Delete the array before the buffer is freed.
    """
    memory = (ctypes.c_uint8 * buffer.size).from_address(int(buffer.handle))
    return np.ctypeslib.as_array(memory)
