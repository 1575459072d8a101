"""Arrays packed into one buffer, for a single copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arena import align_size


class Block(NamedTuple):
    """Position of an array in a buffer. The offset is in bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def view(self, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the array, given the bytes of the buffer."""
        return memory[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)


class Packer:
    """Aligned layout of consecutive arrays."""

    def __init__(self) -> None:
        self.nbytes = 0

    def add(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Block:
        """Append an array and return its position."""
        block = Block(self.nbytes, tuple(shape), dtype)
        self.nbytes = align_size(self.nbytes + block.nbytes)
        return block
