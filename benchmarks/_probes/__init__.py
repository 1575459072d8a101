"""Probes of the first run on a GPU, one module each.

`first_contact_probe.py` starts them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FRAME_HW = (1080, 1920)

Image = NDArray[np.uint8]


def report(name: str, value: object) -> None:
    """Print one result."""
    sys.stdout.write(f"PROBE {name}: {value}\n")
    sys.stdout.flush()


def median_ms(call: Callable[[], object], count: int = 30, warm: int = 5) -> float:
    """Return the median wall-clock time of a call, in milliseconds."""
    times = []
    for _ in range(warm + count):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times[warm:]), 3)


def make_frames(count: int) -> list[Image]:
    """Return (H, W, 3) uint8 pictures of noise."""
    return [np.random.default_rng(i).integers(0, 256, (*FRAME_HW, 3), np.uint8) for i in range(count)]
