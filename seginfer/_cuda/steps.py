"""Kernel launches at fixed addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .arena import Arena
from .gpu import Gpu

Records = NDArray[Any]
Upload = Callable[[NDArray[Any]], int]
"""Copies an array to the GPU and returns its address. The copy lives as long as the step."""


class Launch(NamedTuple):
    """A kernel with its arguments and grid."""

    kernel: str
    records: Records
    grid: tuple[int, int, int]


class _Placed(NamedTuple):
    """A launch with its arguments on the GPU."""

    kernel: str
    grid: tuple[int, int, int]
    records: int


class Step:
    """Launches with their arguments on the GPU.

    `start` does not allocate, copy or wait, so that a graph can capture it.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._arena = Arena(gpu)
        self._launches: list[_Placed] = []

    @property
    def nbytes(self) -> int:
        """GPU memory in bytes."""
        return self._arena.nbytes

    def place(self, launches: Sequence[Launch]) -> None:
        """Append launches and copy their arguments to the GPU."""
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
        """Return one call per kernel, for measuring each alone."""
        return [partial(self._gpu.launch, one.kernel, one.grid, one.records, stream) for one in self._launches]

    def close(self) -> None:
        """Free the memory. No work may be in flight."""
        self._arena.close()
