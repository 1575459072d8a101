"""What tests of the compiled core share: its instruction sets, thread counts, and images and outputs to draw from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from seginfer import _native
from seginfer._inputs.formats import PixelFormat, PixelLayout, YuvFormat, YuvLayout, even, image_shape, parts_of
from seginfer._reference.yuv import YuvMatrix, YuvRange

needs_core = pytest.mark.skipif(_native.core is None, reason=f"no compiled core: {_native.describe()}")
THREADS = (1, 2, 3, 8)
LAYOUTS: tuple[PixelLayout, ...] = get_args(PixelLayout)
YUV_FORMATS = tuple(
    YuvFormat(*parts) for parts in product(get_args(YuvLayout), get_args(YuvMatrix), get_args(YuvRange))
)


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
    is_yuv = parts_of(color)[0] in get_args(YuvLayout)
    shape = image_shape(even((height, width)) if is_yuv else (height, width), color)
    row = int(np.prod(shape[1:]))
    memory = rng.integers(0, 256, (shape[0], row + pitch), dtype=np.uint8)
    strides = (row + pitch, *np.empty(shape, np.uint8).strides[1:])
    return np.lib.stride_tricks.as_strided(memory, shape, strides)


def formats() -> st.SearchStrategy[PixelFormat]:
    """Layouts, and as often YUV formats of any matrix and range."""
    return st.one_of(st.sampled_from(LAYOUTS), st.sampled_from(YUV_FORMATS))
