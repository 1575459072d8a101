"""What tests of the compiled core share: its instruction sets, thread counts, and images and outputs to draw from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from seginfer import _native
from seginfer._inputs.formats import PixelFormat

needs_core = pytest.mark.skipif(_native.core is None, reason=f"no compiled core: {_native.describe()}")
THREADS = (1, 2, 3, 8)


def targets() -> list[str]:
    return _native.core.targets() if _native.core else []


@contextmanager
def target(name: str) -> Iterator[None]:
    """Compute with one instruction set inside the block."""
    kept = _native.core.target()
    _native.core.use_target(name)
    try:
        yield
    finally:
        _native.core.use_target(kept)


@contextmanager
def pure() -> Iterator[None]:
    """Compute with the reference inside the block."""
    kept, _native.core = _native.core, None
    try:
        yield
    finally:
        _native.core = kept


def assert_native_equals_reference(compute: Callable[..., Any], threads: int) -> None:
    """Compare what `compute(threads=...)` returns with and without the core, on every instruction set, bit for bit."""
    with pure():
        expected = compute(threads=1)
    for name in targets():
        with target(name):
            got = compute(threads=threads)
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes(), f"{name}: {np.flatnonzero(a.ravel() != b.ravel())[:5]}"


def sides(most: int) -> st.SearchStrategy[int]:
    """Sizes along one axis: often 1, or around the widths of vectors and blocks."""
    return st.one_of(st.integers(1, most), st.sampled_from([1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 96]))


def image_of(
    color: PixelFormat, height: int, width: int, rng: np.random.Generator, pitch: int = 0
) -> NDArray[np.uint8]:
    """Return a random image, its rows `pitch` bytes apart from each other."""
    if color in ("nv12", "yuyv"):
        height, width = height + height % 2, width + width % 2
    channels = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "yuyv": 2}.get(color, 1)
    rows = height * 3 // 2 if color == "nv12" else height
    memory = rng.integers(0, 256, (rows, width * channels + pitch), dtype=np.uint8)
    image = memory[:, : width * channels]
    return (
        image
        if channels == 1
        else np.lib.stride_tricks.as_strided(image, (rows, width, channels), (memory.strides[0], channels, 1))
    )
