"""As much of cuda-core as seginfer uses, on the CPU, and as strict as that is; fake_cuda_driver.py has the driver.

Streams run nothing before they are waited for. A captured stream records, and what a capture forbids breaks it. A wait
for the device by any thread breaks every capture there and fails itself. Freeing pinned memory is such a wait. Memory
is counted, can run out, and is garbage before it is written and after it is freed. Names that start with `fake_` are
for tests; test_cuda_core.py holds all others to the real package.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import kernels_on_cpu as on_cpu
import pytest

from seginfer._cuda import arrays, gpu, loader
from seginfer._cuda.kernels import KERNELS
from seginfer._system.driver import GpuInfo

DEVICES = 2
GARBAGE, FREED = 0xA5, 0xDD


class CUDAError(Exception):
    """What cuda-core raises: its text starts with the driver's name of the error."""


class Work(NamedTuple):
    """Something that a stream will do, and the buffers that must be there then."""

    run: Callable[[], None]
    buffers: tuple[Buffer, ...] = ()


@dataclass
class World:
    """The state behind the module: one per test."""

    cpu: on_cpu.Cpu
    memory_limit: int = 1 << 40
    allocations_left: int = 1 << 30
    refuses_to: set[str] = field(default_factory=set)
    """Functions of the driver that fail, and cubins that do not load."""
    violations: list[str] = field(default_factory=list)
    """What would be undefined behaviour on a GPU."""
    buffers: dict[int, Buffer] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    is_integrated: bool = False
    kernels: dict[int, Kernel] = field(default_factory=dict)
    graphs: dict[int, list[tuple[int, list[Work]]]] = field(default_factory=dict)
    """By handle of the graph, its nodes in their order."""
    executables: dict[int, list[Work]] = field(default_factory=dict)
    captures: int = 0
    launched: list[int] = field(default_factory=list)
    """Handles of the graphs that were started."""
    serial: int = 0x1000
    lock: Any = field(default_factory=threading.RLock)
    thread: Any = field(default_factory=threading.local)

    def new_handle(self) -> int:
        with self.lock:
            self.serial += 16
            return self.serial

    def of_device(self) -> int:
        """Return how many bytes of the GPU are in use."""
        return sum(buffer.size for buffer in self.buffers.values() if buffer.fake_kind == "device")

    def buffer_at(self, address: int, nbytes: int = 1) -> Buffer | None:
        """Return the buffer that holds all bytes at an address."""
        for start, buffer in list(self.buffers.items()):
            if start <= address and address + nbytes <= start + buffer.size:
                return buffer
        return None

    def kind_at(self, address: int) -> str:
        """Return what memory lies at an address."""
        buffer = self.buffer_at(address)
        return "pageable" if buffer is None else buffer.fake_kind

    def count_allocation(self) -> None:
        """Let memory run out after a number of allocations."""
        if self.allocations_left == 0:
            raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate")
        self.allocations_left -= 1

    def check_current(self) -> None:
        if getattr(self.thread, "device", None) is None:
            raise CUDAError("CUDA_ERROR_INVALID_CONTEXT: this thread has no current device")

    def refuse_in_capture(self, what: str) -> None:
        """Break the capture that this thread is in, if any."""
        stream: Stream | None = getattr(self.thread, "capturing", None)
        if stream is not None:
            stream.fake_is_broken = True
            raise CUDAError(f"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: {what}")

    def wait_for_device(self, what: str) -> None:
        """Wait for all streams of the thread's GPU, as the driver does: not while one is captured, by any thread."""
        device = getattr(self.thread, "device", None)
        here = [stream for stream in list(self.streams.values()) if stream._device_id == device]
        captured = [stream for stream in here if stream.fake_record is not None]
        for stream in captured:
            stream.fake_is_broken = True
        if captured:
            is_own = getattr(self.thread, "capturing", None) in captured
            raise CUDAError(f"CUDA_ERROR_STREAM_CAPTURE_{'IMPLICIT' if is_own else 'UNSUPPORTED'}: {what}")
        for stream in here:
            stream.sync()


_world: World


class Buffer:
    """Memory of the host, as if of the device."""

    def __init__(self, size: int, kind: str, address: int = 0) -> None:
        self._memory = None if address else (ctypes.c_char * (size + 256))()
        start = address or ctypes.addressof(self._memory or ctypes.c_char())
        self._address = address or -(-start // 256) * 256  # as aligned as the driver's
        self._size, self.fake_kind, self.fake_is_closed = size, kind, False
        if not address:
            ctypes.memset(self._address, GARBAGE, size)
            _world.buffers[self._address] = self

    @staticmethod
    def from_handle(ptr: int, size: int) -> Buffer:
        return Buffer(size, _world.kind_at(ptr), ptr)

    @property
    def size(self) -> int:
        return self._size

    @property
    def handle(self) -> int:
        return self._address

    def close(self, stream: Stream | None = None) -> None:
        _world.refuse_in_capture("free")
        _world.check_current()
        assert stream is None or not stream.fake_is_closed
        if self.fake_is_closed:
            return
        for other in list(_world.streams.values()):
            if any(self in work.buffers for work in other.fake_queue):
                _world.violations.append(f"{self.fake_kind} memory was freed in flight")
        if self.fake_kind == "pinned":
            _world.wait_for_device("free pinned memory")
        self.fake_is_closed = True
        if self._memory is not None:
            ctypes.memset(self._address, FREED, self._size)
            del _world.buffers[self._address]

    def copy_from(self, src: Buffer, *, stream: Stream) -> None:
        if src.size != self.size:
            raise ValueError(f"buffer sizes mismatch between src and dst: {src.size}, {self.size}")
        if "pageable" in (src.fake_kind, self.fake_kind):
            _world.refuse_in_capture("a copy of memory that is not pinned")
        stream.fake_start(lambda: ctypes.memmove(self.handle, src.handle, self.size), self, src)

    def copy_to(self, dst: Buffer, *, stream: Stream) -> Buffer:
        dst.copy_from(self, stream=stream)
        return dst

    def fill(self, value: int, *, stream: Stream) -> None:
        assert 0 <= value < 256
        stream.fake_start(lambda: ctypes.memset(self.handle, value, self.size), self)


class Stream:
    """A queue that runs when it is waited for."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id
        self._handle = _world.new_handle()
        self.fake_queue: list[Work] = []
        self.fake_record: list[Work] | None = None
        self.fake_is_broken = self.fake_is_closed = False
        _world.streams[self._handle] = self

    @property
    def handle(self) -> int:
        return self._handle

    @property
    def device(self) -> Device:
        return Device(self._device_id)

    def fake_start(self, run: Callable[[], Any], *buffers: Buffer) -> None:
        """Queue or record work, as everything does that takes a stream."""
        _world.check_current()
        assert not self.fake_is_closed
        if self.fake_is_broken:
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: the capture is broken")
        target = self.fake_queue if self.fake_record is None else self.fake_record
        target.append(Work(run, buffers))

    def sync(self) -> None:
        _world.check_current()
        _world.refuse_in_capture("a wait")
        assert not self.fake_is_closed
        with _world.lock:
            works, self.fake_queue = self.fake_queue, []
            for work in works:
                if any(buffer.fake_is_closed for buffer in work.buffers):
                    _world.violations.append("work touched memory that was freed")
                work.run()

    def record(self, event: Event) -> None:
        _world.refuse_in_capture("an event of a frame")
        event.fake_stream = self

    def wait(self, event_or_stream: Event | Stream) -> None:
        other = event_or_stream.fake_stream if isinstance(event_or_stream, Event) else event_or_stream
        self.fake_start(other.sync)

    def close(self) -> None:
        self.fake_is_closed = True
        _world.streams.pop(self._handle, None)


class Event:
    """A point in a stream, whose time is not measured."""

    fake_stream: Stream

    def __init__(self, options: EventOptions) -> None:
        self.fake_options = options

    def sync(self) -> None:
        self.fake_stream.sync()

    def __sub__(self, other: Event) -> float:
        return 1.0


class EventOptions:
    """How an event is waited for."""

    def __init__(self, *, timing_enabled: bool = False, blocking_sync: bool = False) -> None:
        self.timing_enabled, self.blocking_sync = timing_enabled, blocking_sync


class Device:
    """One of two."""

    arch = "90"
    name = "A CPU"

    def __init__(self, device_id: int) -> None:
        if device_id >= DEVICES:
            raise ValueError(f"device_id must be within [0, {DEVICES}), got {device_id}")
        self._device_id = device_id

    @property
    def device_id(self) -> int:
        return self._device_id

    @property
    def memory_resource(self) -> Any:
        return SimpleNamespace(handle="pool")

    @property
    def properties(self) -> Any:
        return SimpleNamespace(integrated=_world.is_integrated)

    def set_current(self) -> None:
        _world.thread.device = self._device_id

    def create_stream(self) -> Stream:
        _world.check_current()
        if "create_stream" in _world.refuses_to:
            raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: no more streams")
        return Stream(self._device_id)

    def create_event(self, options: EventOptions) -> Event:
        assert isinstance(options, EventOptions)
        return Event(options)

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        _world.check_current()
        _world.refuse_in_capture("allocate")
        assert not stream.fake_is_closed
        with _world.lock:
            _world.count_allocation()
            if _world.of_device() + size > _world.memory_limit:
                raise CUDAError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate")
            return Buffer(size, "device")


class LegacyPinnedMemoryResource:
    """Memory of the host."""

    def allocate(self, size: int) -> Buffer:
        _world.check_current()
        _world.refuse_in_capture("allocate pinned memory")
        _world.count_allocation()
        return Buffer(size, "pinned")


class LaunchConfig:
    """Grid and block."""

    def __init__(self, *, grid: tuple[int, int, int], block: tuple[int, int, int]) -> None:
        self.grid, self.block = grid, block


class Kernel:
    """One of the kernels, by its name."""

    def __init__(self, name: str) -> None:
        self.fake_name, self._handle = name, _world.new_handle()
        _world.kernels[self._handle] = self

    @property
    def handle(self) -> int:
        return self._handle


class ObjectCode:
    """Cubins, which are only names here: those of another architecture do not load, and nothing else does."""

    @staticmethod
    def from_cubin(module: bytes) -> ObjectCode:
        _world.check_current()
        if module in (b"cubin of sm_87", b"cubin of sm_80", b"cubin of sm_120"):
            raise CUDAError("CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on the device")
        if module.decode("latin") in _world.refuses_to or module != b"cubin of sm_90":
            raise CUDAError("CUDA_ERROR_INVALID_IMAGE: the device kernel image is invalid")
        return ObjectCode()

    def get_kernel(self, name: str) -> Kernel:
        assert name in KERNELS
        return Kernel(name)


def launch(stream: Stream, config: LaunchConfig, kernel: Kernel, *kernel_args: int) -> None:
    assert config.block == (32, 8, 1)
    (records,) = kernel_args
    stream.fake_start(fake_kernel(kernel, config.grid, records))


def fake_kernel(kernel: Kernel, grid: tuple[int, int, int], records: int) -> Callable[[], None]:
    """Return what a launch runs."""
    assert grid[2] <= 65535
    assert _world.kind_at(records) in ("device", "pinned" if _world.is_integrated else "device")
    run_at = _world.cpu.run_at
    return lambda: run_at(kernel.fake_name, records, grid)


# --------------------------------------------------------------------------------------------------- for the tests

CORE = SimpleNamespace(
    Buffer=Buffer,
    Device=Device,
    Event=Event,
    EventOptions=EventOptions,
    Kernel=Kernel,
    LaunchConfig=LaunchConfig,
    LegacyPinnedMemoryResource=LegacyPinnedMemoryResource,
    ObjectCode=ObjectCode,
    Stream=Stream,
    launch=launch,
)


def module(name: str = "cuda.core") -> Any:
    """Stand in for `require_cuda`."""
    import fake_arrays
    import fake_cuda_driver

    parts = {"cuda.core": CORE, "cuda.core.utils": fake_arrays.UTILS, "cuda.bindings.driver": fake_cuda_driver.DRIVER}
    return parts[name]


@contextmanager
def installed(cpu: on_cpu.Cpu) -> Iterator[World]:
    """Put the fake in place of the real packages; afterwards, fail if anything was undefined behaviour."""
    global _world
    _world = World(cpu)
    with pytest.MonkeyPatch.context() as patch:
        for user in (gpu, arrays):
            patch.setattr(user, "require_cuda", module)
        patch.setattr(loader, "cubins", lambda architecture, _: iter([("a test", f"cubin of {architecture}".encode())]))
        patch.setattr(gpu, "find_gpu", lambda index: GpuInfo(index, "A CPU", (9, 0), 1 << 34, "13.0", ""))
        yield _world
    assert not _world.violations
