"""Turns of recordings, and of what must not happen during one."""

# A wait for the whole device breaks every recording on it, and fails itself. Freeing pinned memory, loading code, and
# making or closing a network may wait like that, in whichever thread.

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class _Turns:
    """Lock that many makers share, or one recorder has. A thread may take its turn again within it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._makers = self._waiting = self._recorder = 0
        self._own = threading.local()

    @property
    def is_taken(self) -> bool:
        """See `would_wait`."""
        return bool(self._recorder or self._waiting)

    @contextmanager
    def make(self) -> Iterator[None]:
        """See `making`."""
        me, depth = threading.get_ident(), getattr(self._own, "depth", 0)
        with self._changed:
            while depth == 0 and self._recorder != me and (self._recorder or self._waiting):
                self._changed.wait()
            self._makers += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            with self._changed:
                self._makers -= 1
                self._changed.notify_all()

    @contextmanager
    def record(self) -> Iterator[None]:
        """See `recording`."""
        if getattr(self._own, "depth", 0):
            raise RuntimeError("a recording within `making` would wait for ever")
        with self._changed:
            self._waiting += 1
            try:
                while self._makers or self._recorder:
                    self._changed.wait()
            finally:
                self._waiting -= 1
            self._recorder = threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                self._recorder = 0
                self._changed.notify_all()


_TURNS = _Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_TURNS.__init__)  # type: ignore[misc]  # its other threads are not there


def making() -> AbstractContextManager[None]:
    """Allocate, free, load or wait for the device within the block. No recording of the process runs meanwhile."""
    return _TURNS.make()


def would_wait() -> bool:
    """Return whether `making` would wait now."""
    return _TURNS.is_taken


@contextmanager
def recording() -> Iterator[None]:
    """Record a stream within the block, which must not lie within `making`.

    Python's garbage collector is off, since it may free memory of a GPU.
    """
    with _TURNS.record():
        was_on = gc.isenabled()
        gc.collect(1)  # young objects: a full collection takes up to 0.2 s, and old ones are safe while it is off
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.enable()
