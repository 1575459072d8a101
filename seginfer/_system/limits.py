"""What this process may use of the machine."""

from __future__ import annotations

import os

from .._errors import InputError


def usable_cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checked_threads(threads: int | None) -> int:
    """Return a number of threads; None is every core that this process may use.

    Raises:
        InputError: if it is not within 1..1024.
    """
    if threads is None:
        return usable_cores()
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise InputError(f"threads must be an integer from 1 to 1024, got {threads!r}; use None for every core")
    return threads


def parse_device(device: str) -> tuple[str, int]:
    """Return (kind, index) of "auto", "cpu", "cuda" or "cuda:<index>".

    Raises:
        InputError: if it is none of them.
    """
    kind, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise InputError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>', got {device!r}")
    return kind, int(index or 0)
