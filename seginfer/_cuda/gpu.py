"""One GPU: kernels, streams, buffers and copies."""

from __future__ import annotations

import math
import os
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import BackendError, BackendUnavailableError, InputError
from .._system.driver import find_gpu
from .._system.fork import leak_in_children
from . import kernel_args
from .arrays import DeviceArray, Lent, extent, import_array
from .compiler import require_cuda
from .errors import join_lines, translate_errors
from .kernels import OVERLAY
from .loader import Loader
from .memory import Memory, as_bytes, unwrap
from .recording import making, would_wait

__all__ = ["Clear", "Gpu", "Kernel", "as_bytes", "unwrap"]

AFTER_FORK = "a GPU cannot be used in a forked process; open the model in the child, or use multiprocessing's 'spawn'"


WAITS = ("block", "spin")
"""Values of SEGINFER_WAIT: a thread that waits for a GPU sleeps, or takes a core for some microseconds less."""


class Kernel(NamedTuple):
    """A kernel with its grid, and the address of its arguments."""

    name: str
    grid: tuple[int, int, int]
    records: int


class Clear(NamedTuple):
    """Memory to fill with zeros."""

    address: int
    nbytes: int


class Gpu(Memory):
    """One GPU with loaded kernels.

    Streams and buffers are objects of cuda-core. Several threads may use one object, each after calling `use`. `close`
    frees all remaining buffers.

    Args:
        device_id: index of the GPU.

    Attributes:
        is_integrated: whether host and GPU share their memory, as on a Jetson.
        waits: how a thread waits for the GPU, "block" or "spin", from SEGINFER_WAIT.

    Raises:
        InputError: if SEGINFER_WAIT has another value.
        BackendUnavailableError: if the GPU does not exist, or cuda-core or NVRTC is missing.
    """

    def __init__(self, device_id: int = 0) -> None:
        super().__init__(require_cuda())
        self.driver = require_cuda("cuda.bindings.driver")
        self.info = find_gpu(device_id)
        self.waits = os.environ.get("SEGINFER_WAIT") or "block"
        if self.waits not in WAITS:
            raise InputError(f"SEGINFER_WAIT must be one of {', '.join(WAITS)}, got {self.waits!r}; unset it")
        self._lent: weakref.WeakSet[Lent] = weakref.WeakSet()
        self._returned: deque[Any] = deque()
        self._process = os.getpid()
        leak_in_children(self)
        self._is_closed = False
        try:
            self.device = self._core.Device(device_id)
            with making():
                self.device.set_current()
            self.is_integrated = bool(self.device.properties.integrated)
            self._kernels = Loader(self._core, f"sm_{self.device.arch}")
            self._kernels.get(OVERLAY)  # shows here whether compiler and driver fit each other; it compiles fastest
            self.stream = self.new_stream()
            self._pinned = self._core.LegacyPinnedMemoryResource()
        except BackendUnavailableError:
            raise
        except Exception as error:  # cuda-core raises types of its own, of several parents
            raise BackendUnavailableError(
                f"CUDA device {device_id} cannot be used: {join_lines(error)}; see `seginfer doctor`, or run on the CPU"
            ) from error

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
        with making(), translate_errors("creating a stream"):
            return self.device.create_stream()

    def new_event(self) -> Any:
        """Create an event that a host thread can wait for."""
        with translate_errors("creating an event"):
            return self.device.create_event(self._core.EventOptions(blocking_sync=self.waits == "block"))

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

    def launch(self, kernel: str, grid: tuple[int, int, int], records: int, stream: Any) -> None:
        """Launch a kernel. `records` is the address of its arguments."""
        config = self._core.LaunchConfig(grid=grid, block=kernel_args.BLOCK)
        self._core.launch(stream, config, self._kernels.get(kernel), records)

    def adopt(self, tensor: Any) -> DeviceArray:
        """Return the memory of a caller's tensor on this GPU.

        Later work of `stream` follows work of the caller. See `import_array`.

        Raises:
            InputError: if the tensor lies elsewhere, or its library refuses.
        """
        self.use()
        return import_array(tensor, self.info.index, self.info.name, self.stream)

    def lend(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of zeros in pinned memory. It outlives the GPU.

        Raises:
            BackendError: if memory runs out.
        """
        self.use()
        self._free_returned()
        nbytes = math.prod(shape) * dtype.itemsize
        buffer = self.allocate_pinned(nbytes)
        with self._lock:
            del self._live[id(buffer)]
            lent = Lent(buffer, self._take_back)
            self._lent.add(lent)
        array = np.asarray(lent)[:nbytes].view(dtype).reshape(shape)
        array[...] = 0
        return array

    def _take_back(self, buffer: Any) -> None:
        self._returned.append(buffer)
        if self._is_closed and not self.is_forked and not would_wait():
            self._free_returned()

    def _free_returned(self) -> None:
        """Free lent memory of which no array is left."""
        # Not when an array goes: that may be in a thread that waits for a recording, or in the collector.
        while self._returned:
            with making(), suppress(Exception):  # another thread may have taken the last one
                self._returned.popleft().close()

    def reach(self, array: NDArray[Any] | DeviceArray) -> int | None:
        """Return the address of an array without negative strides that this GPU reaches itself. Else None."""
        if isinstance(array, DeviceArray):
            return array.address
        if not self._lent:
            return None
        start = int(array.__array_interface__["data"][0])
        with self._lock:
            known = list(self._lent)
        return start if any(start >= lent.start and start + extent(array) <= lent.stop for lent in known) else None

    def kernel(self, name: str) -> Any:
        """Return a kernel of cuda-core, which is loaded once.

        Raises:
            BackendUnavailableError: if NVRTC does not compile it, or the driver does not load it.
        """
        return self._kernels.get(name)

    def start(self, work: Clear | Kernel, stream: Any) -> None:
        """Start work without a graph."""
        if isinstance(work, Kernel):
            self.launch(work.name, work.grid, work.records, stream)
        else:
            unwrap(self.driver.cuMemsetD8Async(work.address, 0, work.nbytes, stream.handle))

    def close(self) -> None:
        """Free everything and return memory to the driver. Idempotent.

        No work may be in flight.
        """
        with self._lock:
            is_closed, self._is_closed = self._is_closed, True
            buffers, self._staged = list(self._live.values()), None
        if is_closed or self.is_forked:
            return
        with suppress(Exception):  # the GPU may have failed, and the rest must still be freed
            self.use()
        for buffer in buffers:
            self.free(buffer)
        self._free_returned()
        self.trim()
        with making():
            self._kernels.close()
            self.stream.close()

    def trim(self) -> None:
        """Return unused memory of the driver's pool to the GPU."""
        # The pool keeps freed memory by default, and other processes may need it.
        with suppress(Exception):  # the GPU may have failed, and the caller must continue
            self.stream.sync()
            pool = getattr(self.device.memory_resource, "handle", None)  # none where the GPU has no pools
            if pool is not None:
                with making():
                    self.driver.cuMemPoolTrimTo(pool, 0)
