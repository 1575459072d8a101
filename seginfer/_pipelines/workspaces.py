"""Workspaces: the buffers of calls in flight, reused so that a steady stream of frames allocates no batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Workspace:
    """The buffers of one call in flight."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.batch = np.zeros(shape, dtype)  # a fixed batch size may leave places that no image fills
        self.outputs: dict[str, NDArray[Any]] | None = None


class Workspaces:
    """Buffers of finished calls, kept for the next call of the same shape; each is used by one thread at a time."""

    _CAPACITY = 8  # free workspaces kept in all; the longest unused goes first

    def __init__(self) -> None:
        self._free: list[Workspace] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, shape: tuple[int, ...], dtype: str) -> Iterator[Workspace]:
        """Lend a workspace for batches of `shape`; one that saw an error is not kept."""
        space = self._take(shape) or Workspace(shape, dtype)
        yield space
        with self._lock:
            self._free.append(space)
            del self._free[: -self._CAPACITY]

    def clear(self) -> None:
        """Drop every free workspace."""
        with self._lock:
            self._free.clear()

    def _take(self, shape: tuple[int, ...]) -> Workspace | None:
        """Return the workspace of that shape that was used last, while its memory is still in the cache."""
        with self._lock:
            for i in reversed(range(len(self._free))):
                if self._free[i].batch.shape == shape:
                    return self._free.pop(i)
        return None
