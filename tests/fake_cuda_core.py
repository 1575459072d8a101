"""As much of cuda-core as seginfer uses, on the CPU: what launching code does can be seen without a GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import kernels_on_cpu as on_cpu


class Buffer:
    """Memory of the host, as if of the device."""

    def __init__(self, size: int) -> None:
        self._memory = (ctypes.c_char * size)()
        self.size = size

    @property
    def handle(self) -> int:
        return ctypes.addressof(self._memory)

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        assert isinstance(stream, Stream)
        assert source.size == self.size
        ctypes.memmove(self.handle, source.handle, self.size)

    def copy_to(self, target: Buffer, *, stream: Stream) -> None:
        target.copy_from(self, stream=stream)

    def fill(self, value: int, *, stream: Stream) -> None:
        assert isinstance(stream, Stream)
        ctypes.memset(self.handle, value, self.size)


class Stream:
    """Everything is done when it is started."""

    def sync(self) -> None:
        """Return."""

    def record(self, event: Event) -> None:
        """Forget it."""


class Event:
    """A point in no time."""

    def sync(self) -> None:
        """Return."""

    def __sub__(self, other: Event) -> float:
        return 1.0


class Device:
    """The only one."""

    arch = "90"
    name = "A CPU"

    def __init__(self, device_id: int) -> None:
        assert device_id == 0

    def set_current(self) -> None:
        """Be it."""

    def create_stream(self) -> Stream:
        return Stream()

    def create_event(self, options: EventOptions) -> Event:
        assert isinstance(options, EventOptions)
        return Event()

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        assert isinstance(stream, Stream)
        return Buffer(size)


class LegacyPinnedMemoryResource:
    """Memory of the host."""

    def allocate(self, size: int) -> Buffer:
        return Buffer(size)


class LaunchConfig:
    """Grid and block."""

    def __init__(self, *, grid: tuple[int, int, int], block: tuple[int, int, int]) -> None:
        self.grid, self.block = grid, block


class EventOptions:
    """Of no consequence."""

    def __init__(self, *, timing_enabled: bool) -> None:
        assert timing_enabled


class FakeCore:
    """The module."""

    Device = Device
    LaunchConfig = LaunchConfig
    EventOptions = EventOptions
    LegacyPinnedMemoryResource = LegacyPinnedMemoryResource

    def __init__(self, cpu: on_cpu.Cpu) -> None:
        self._cpu = cpu

    @property
    def ObjectCode(self) -> Any:  # noqa: N802 (cuda-core's name)
        return self

    def from_cubin(self, cubin: bytes) -> Any:
        assert cubin == b"cubin of sm_90"
        return self

    def get_kernel(self, name: str) -> str:
        return name

    def launch(self, stream: Stream, config: LaunchConfig, kernel: str, records: Buffer) -> None:
        assert isinstance(stream, Stream)
        x, y, z = config.grid
        assert (config.block, z <= 65535) == ((32, 8, 1), True)
        arguments = ctypes.c_void_p(records.handle), *map(ctypes.c_uint, (x, y, z))
        assert self._cpu.library.launch(kernel.encode(), *arguments)
