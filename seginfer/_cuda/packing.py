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


class Piece(NamedTuple):
    """Part of a buffer that is copied at once, and the indices of what it holds."""

    start: int
    stop: int
    indices: range


def pieces(ends: Sequence[int], least: int) -> list[Piece]:
    """Group consecutive parts of a buffer into pieces of at least `least` bytes.

    Args:
        ends: offset of the end of each part.
        least: size in bytes. The last piece may be smaller.
    """
    found, start, first = [], 0, 0
    for i, end in enumerate(ends):
        if end - start >= least or i == len(ends) - 1:
            found.append(Piece(start, end, range(first, i + 1)))
            start, first = end, i + 1
    return found
