"""Steps: the launches between images, the network's input, its output, and masks, at addresses that never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .arena import Arena
from .gpu import Gpu

Records = NDArray[Any]
Upload = Callable[[NDArray[Any]], int]
"""Puts an array where kernels read it, keeps it there, and returns its address."""


class Launch(NamedTuple):
    """A kernel, what it is told, and how many blocks it takes."""

    kernel: str
    records: Records
    grid: tuple[int, int, int]


class _Placed(NamedTuple):
    """A launch whose records lie on the GPU."""

    kernel: str
    grid: tuple[int, int, int]
    records: int


class Step:
    """Launches with all that they read, on the GPU from the start: `start` allocates, copies and waits for nothing.

    A stream can therefore be captured around it.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._arena = Arena(gpu)
        self._launches: list[_Placed] = []

    @property
    def nbytes(self) -> int:
        """How much memory of the GPU this takes."""
        return self._arena.nbytes

    def place(self, launches: Sequence[Launch]) -> None:
        placed: dict[int, int] = {}  # kernels share records
        for launch in launches:
            key = launch.records.ctypes.data
            if key not in placed:
                placed[key] = self._arena.put(launch.records)
            self._launches.append(_Placed(launch.kernel, launch.grid, placed[key]))
        self._arena.upload(self._gpu.stream)

    def start(self, stream: Any) -> None:
        """Start the kernels on a stream."""
        for launch in self._launches:
            self._gpu.launch(launch.kernel, launch.grid, launch.records, stream)

    def repeats(self, stream: Any) -> list[Callable[[], None]]:
        """Return a call for each kernel that starts it alone; for measuring."""
        return [partial(self._gpu.launch, one.kernel, one.grid, one.records, stream) for one in self._launches]

    def close(self) -> None:
        """Free the memory; no work may be in flight."""
        self._arena.close()
