"""Native objects in forked child processes."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_KEPT: weakref.WeakSet[Any] = weakref.WeakSet()
_WAS_USED = threading.Event()

_MAKING = threading.RLock()


@contextmanager
def hold_forks() -> Iterator[None]:
    """Delay forks of other threads until the block ends.

    In the block a native library is loaded, or an object is made and registered.
    """
    with _MAKING:
        _WAS_USED.set()
        yield


def leak_in_children(owner: object) -> None:
    """Keep an object alive for ever in forked children.

    Its parent process frees it as usual.

    Args:
        owner: object that holds threads or GPU memory of this process. It must allow weak references.
    """
    # A child has no threads but one. Destructors that join threads, or ask a GPU, would wait for ever or crash there.
    _KEPT.add(owner)
    _WAS_USED.set()


def _leak() -> None:
    for owner in list(_KEPT):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(owner))
    if _WAS_USED.is_set():  # libraries keep threads after their last object too
        _skip_destructors()


def _skip_destructors() -> None:
    """End this process without the destructors of libraries, once Python has ended."""
    # ONNX Runtime's waits for a thread that is not here. Handlers of exit() run from the last to the first, so that
    # output is written, and then the process ends with its status.
    with suppress(OSError, AttributeError):  # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)
        libc.__cxa_atexit(libc.fflush, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leak)
    os.register_at_fork(before=_MAKING.acquire, after_in_parent=_MAKING.release, after_in_child=_MAKING.release)
