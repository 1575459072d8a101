"""Memory that both the host and kernels reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .gpu import Gpu
from .memory import as_bytes

_NOTHING = np.empty(0, np.uint8)


class Mirror:
    """Pinned memory with its counterpart on the GPU, which copies keep equal.

    Where host and GPU share their memory, both are one, and nothing is copied.

    Args:
        gpu: GPU of the counterpart.
        nbytes: size of either.

    Attributes:
        address: of the memory that kernels take.
        host: address of the pinned memory.
        array: bytes of the pinned memory. Empty once it is freed.
        nbytes: size of all memory together.
    """

    def __init__(self, gpu: Gpu, nbytes: int) -> None:
        self._gpu = gpu
        self._buffers: list[Any] = []
        self.array: NDArray[np.uint8] = _NOTHING
        try:
            self._buffers.append(gpu.allocate_pinned(nbytes))
            if not gpu.is_integrated:
                self._buffers.append(gpu.allocate(nbytes))
        except BaseException:
            self.close()
            raise
        self.host, self.address = int(self._buffers[0].handle), int(self._buffers[-1].handle)
        self.array = as_bytes(self._buffers[0])
        self.nbytes: int = sum(buffer.size for buffer in self._buffers)

    def upload(self, start: int, stop: int, stream: Any) -> None:
        """Start a copy of bytes to the GPU."""
        if self.host != self.address:
            self._gpu.copy(self.address + start, self.host + start, stop - start, stream)

    def download(self, start: int, stop: int, stream: Any) -> None:
        """Start a copy of bytes to the host."""
        if self.host != self.address:
            self._gpu.copy(self.host + start, self.address + start, stop - start, stream)

    def close(self) -> None:
        """Free the memory. No work may be in flight. Idempotent."""
        self.array = _NOTHING
        while self._buffers:
            self._gpu.free(self._buffers.pop())
