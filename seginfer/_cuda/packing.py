"""Arrays packed into one buffer, so that one copy moves them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arena import align_size


class Block(NamedTuple):
    """An array inside a buffer."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def view(self, memory: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the array that lies in the bytes of the buffer."""
        return memory[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)


class Packer:
    """Lays out arrays one behind the other, each aligned."""

    def __init__(self) -> None:
        self.nbytes = 0

    def add(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Block:
        """Append an array."""
        block = Block(self.nbytes, tuple(shape), dtype)
        self.nbytes = align_size(self.nbytes + block.nbytes)
        return block
