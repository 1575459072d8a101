"""Gpu: one GPU with the kernels on it, and every buffer that was taken from it."""

from __future__ import annotations

import ctypes
import logging
import threading
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import BackendUnavailableError, InputError
from .._system.driver import find_gpu
from . import kernel_args
from .compiler import cubins, require_cuda
from .errors import join_lines, translate_errors

KERNELS = tuple(
    f"seginfer_{name}" for name in ("preprocess", "preprocess_filtered", "label", "mask", "maps", "overlay")
)

_log = logging.getLogger("seginfer")


class Gpu:
    """One GPU with the kernels on it. Addresses are of its memory; streams and buffers are of cuda-core.

    Several threads may use one object, each after calling `use`. Memory that was not freed is freed by `close`.

    Args:
        device_id: which GPU.

    Raises:
        BackendUnavailableError: if there is no such GPU, or cuda-core or NVRTC is missing.
    """

    def __init__(self, device_id: int = 0) -> None:
        self._core = require_cuda()
        self.driver = require_cuda("cuda.bindings.driver")
        self.info = find_gpu(device_id)
        self._lock = threading.Lock()
        self._live: dict[int, Any] = {}
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
        """Load the first cubin that the driver takes: one from a newer compiler than the driver's may be refused."""
        refusal: Exception = RuntimeError(f"there are no kernels for {architecture}")
        for origin, cubin in cubins(architecture):
            try:
                code = self._core.ObjectCode.from_cubin(cubin)
                return {name: code.get_kernel(name) for name in KERNELS}
            except Exception as error:  # cuda-core raises types of its own, of several parents
                _log.info("the driver does not load the kernels from %s: %s", origin, join_lines(error))
                refusal = error
        raise refusal

    # ------------------------------------------------------------------------------------------------ streams

    def use(self) -> None:
        """Make this GPU the calling thread's, which every thread needs before anything else; it stays so afterwards."""
        with translate_errors("taking the GPU"):
            self._core.Device(self.info.index).set_current()

    def new_stream(self) -> Any:
        """Return a stream that waits for no other."""
        with translate_errors("creating a stream"):
            return self.device.create_stream()

    def check_stream(self, stream: Any) -> None:
        """Hold a stream that someone else made to this GPU.

        Raises:
            InputError: if it belongs to another one.
        """
        there, here = stream.device, self.info
        if there.device_id != here.index:
            raise InputError(
                f"expected a stream of CUDA device {here.index} ({here.name}), where the model is, got one of device "
                f"{there.device_id} ({there.name}); create the stream there, or open the model on that device"
            )

    # ------------------------------------------------------------------------------------------------- memory

    @property
    def live_buffers(self) -> int:
        """How many buffers, of the GPU or pinned, are not freed."""
        return len(self._live)

    def allocate(self, nbytes: int) -> Any:
        """Return a buffer of the GPU, for any stream; its address is `int(buffer.handle)`.

        Raises:
            BackendError: if memory runs out.
        """
        nbytes = max(1, nbytes)
        with translate_errors("allocating a buffer", nbytes):
            buffer = self._keep(self.device.allocate(nbytes, stream=self.stream))
            self.stream.sync()
        return buffer

    def allocate_pinned(self, nbytes: int) -> Any:
        """Return a buffer of the host that copies and graphs can use; see `as_bytes`.

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
        """Free a buffer that no work in flight uses; once more does nothing."""
        with self._lock:
            is_live = self._live.pop(id(buffer), None) is buffer
        if is_live:
            with suppress(Exception):  # of a GPU that has failed; what freed it must go on
                buffer.close(self.stream)

    def view(self, address: int, nbytes: int) -> Any:
        """Return memory that lies somewhere in another buffer as a buffer, which need not be freed."""
        return self._core.Buffer.from_handle(address, nbytes)

    def clear(self, buffer: Any) -> None:
        """Fill a buffer with zeros, and wait for it."""
        with translate_errors("clearing memory"):
            buffer.fill(0, stream=self.stream)
            self.stream.sync()

    def fill(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a contiguous array into a buffer of its size, and wait for it."""
        staged = self.allocate_pinned(array.nbytes)
        try:
            as_bytes(staged)[: array.nbytes] = array.reshape(-1).view(np.uint8)
            with translate_errors("copying to the GPU"):
                buffer.copy_from(staged, stream=stream)
                stream.sync()
        finally:
            self.free(staged)

    def upload(self, array: NDArray[Any]) -> Any:
        """Return a buffer that holds an array."""
        array = np.ascontiguousarray(array)
        buffer = self.allocate(array.nbytes)
        if array.nbytes:
            self.fill(buffer, array, self.stream)
        return buffer

    def download(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a buffer into a contiguous array of its size, after the work on the stream, and wait for it."""
        staged = self.allocate_pinned(array.nbytes)
        try:
            with translate_errors("copying from the GPU"):
                buffer.copy_to(staged, stream=stream)
                stream.sync()
            ctypes.memmove(array.ctypes.data, int(staged.handle), array.nbytes)
        finally:
            self.free(staged)

    # ---------------------------------------------------------------------------------------------------- work

    def launch(self, kernel: str, grid: tuple[int, int, int], records: int, stream: Any) -> None:
        """Start a kernel on records at an address."""
        config = self._core.LaunchConfig(grid=grid, block=kernel_args.BLOCK)
        self._core.launch(stream, config, self._kernels[kernel], records)

    def close(self) -> None:
        """Free everything, and hand the memory back to the driver; no work may be in flight. Once more does nothing."""
        with self._lock:
            is_closed, self._is_closed = self._is_closed, True
            buffers = list(self._live.values())
        if is_closed:
            return
        with suppress(Exception):  # of a GPU that has failed; the rest must go on
            self.use()
        for buffer in buffers:
            self.free(buffer)
        self.trim()
        self._kernels.clear()
        self.stream.close()

    def trim(self) -> None:
        """Let the driver's pool give back what is free, which it keeps otherwise: others may need it."""
        with suppress(Exception):  # of a GPU that has failed; what freed the memory must go on
            self.stream.sync()
            pool = getattr(self.device.memory_resource, "handle", None)  # none where the GPU has no pools
            if pool is not None:
                self.driver.cuMemPoolTrimTo(pool, 0)


def as_bytes(buffer: Any) -> NDArray[np.uint8]:
    """Return a pinned buffer as an array, to be dropped before the buffer is freed."""
    memory = (ctypes.c_uint8 * buffer.size).from_address(int(buffer.handle))
    return np.ctypeslib.as_array(memory)
