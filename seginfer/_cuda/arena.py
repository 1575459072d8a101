"""Small arrays for kernels, copied to the GPU together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gpu import Gpu, as_bytes

ALIGNMENT = 256
"""Alignment of addresses in bytes, as cuMemAlloc guarantees it."""

_CHUNK_BYTES = 1 << 17


def align_size(nbytes: int) -> int:
    """Round a size up to the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Arena:
    """Arrays on the GPU that are freed together. Not thread-safe.

    Small arrays share a buffer.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._buffers: list[Any] = []
        self._staged: list[tuple[Any, Any]] = []
        self._free = 0
        self.nbytes = 0

    def put(self, array: NDArray[Any]) -> int:
        """Stage an array and return its address on the GPU.

        The copy is complete after `upload`.
        """
        size = align_size(max(1, array.nbytes))
        if size > self._free:
            self._grow(max(size, _CHUNK_BYTES))
        target, staged = self._staged[-1]
        offset: int = target.size - self._free
        self._free -= size
        as_bytes(staged)[offset : offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        return int(target.handle) + offset

    def _grow(self, nbytes: int) -> None:
        target = self.reserve(nbytes)
        staged = self._gpu.allocate_pinned(nbytes)
        self._staged.append((target, staged))
        self._free = nbytes

    def reserve(self, nbytes: int) -> Any:
        """Return an uninitialised buffer owned by the arena."""
        buffer = self._gpu.allocate(nbytes)
        self._buffers.append(buffer)
        self.nbytes += nbytes
        return buffer

    def upload(self, stream: Any) -> None:
        """Copy the staged arrays to the GPU and wait."""
        for target, staged in self._staged:
            target.copy_from(staged, stream=stream)
        stream.sync()
        self._drop_staged()

    def _drop_staged(self) -> None:
        while self._staged:
            self._gpu.free(self._staged.pop()[1])
        self._free = 0

    def close(self) -> None:
        """Free everything. No work may be in flight."""
        self._drop_staged()
        while self._buffers:
            self._gpu.free(self._buffers.pop())
