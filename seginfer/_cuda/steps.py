"""Kernel launches at fixed addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .arena import Arena
from .gpu import Clear, Gpu, Kernel

MAX_GRID_Z = 65535
"""Most blocks of a launch in z, on every GPU."""

Records = NDArray[Any]
Upload = Callable[[NDArray[Any]], int]
"""Copies an array to the GPU and returns its address. The copy lives as long as the step."""


class Launch(NamedTuple):
    """A kernel with its arguments and grid."""

    kernel: str
    records: Records
    grid: tuple[int, int, int]


class Step:
    """Launches with their arguments on the GPU.

    Attributes:
        work: what to run, in this order. It neither allocates nor waits.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._arena = Arena(gpu)
        self.work: list[Clear | Kernel] = []

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._arena.nbytes

    def place(self, launches: Sequence[Launch]) -> None:
        """Append launches and copy their arguments to the GPU."""
        placed: dict[int, int] = {}  # kernels share records
        for launch in launches:
            key = launch.records.ctypes.data
            if key not in placed:
                placed[key] = self._arena.put(launch.records)
            self.append(launch, placed[key])
        self._arena.upload(self._gpu.stream)

    def append(self, launch: Launch, address: int) -> None:
        """Append a launch whose arguments are on the GPU, at an address."""
        self._gpu.kernel(launch.kernel)  # loaded here, outside of any recording
        x, y, z = launch.grid
        for first in range(0, z, MAX_GRID_Z):  # one record per block in z
            records = address + first * launch.records.itemsize
            self.work.append(Kernel(launch.kernel, (x, y, min(z - first, MAX_GRID_Z)), records))

    def start(self, stream: Any) -> None:
        """Start the work on a stream, call by call."""
        for one in self.work:
            self._gpu.start(one, stream)

    def repeats(self, stream: Any) -> list[Callable[[], None]]:
        """Return one call per kernel, for measuring each alone."""
        return [partial(self._gpu.start, one, stream) for one in self.work if isinstance(one, Kernel)]

    def close(self) -> None:
        """Free the memory. No work may be in flight."""
        self._arena.close()
