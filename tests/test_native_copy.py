"""The core's copy writes what NumPy's does, for any shape, type and strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import needs_core

from seginfer import InputError, _native

pytestmark = needs_core


def strided(draw: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of noise with drawn strides."""
    steps = [draw(st.sampled_from([1, 1, 2, 3])) for _ in shape]
    room = tuple(side * step + draw(st.integers(0, 3)) for side, step in zip(shape, steps, strict=True))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    noise = rng.integers(0, 256, (*room, np.dtype(dtype).itemsize), np.uint8).view(dtype)[..., 0]
    view = noise[tuple(slice(0, side * step, step) for side, step in zip(shape, steps, strict=True))]
    return view[::-1] if draw(st.booleans()) else view


@settings(max_examples=150)
@given(data=st.data())
def test_every_shape_and_stride(data: st.DataObject) -> None:
    draw = data.draw
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    source, target = strided(draw, shape, dtype), strided(draw, shape, dtype)
    whole = target if target.base is None else target.base
    expected = whole.copy()
    _native.copy(source, target, _native.new_threads(draw(st.sampled_from([1, 3]))))
    np.testing.assert_array_equal(target.view(np.uint8) if dtype is np.uint8 else target, source)
    changed = np.zeros(whole.shape, bool)
    changed[whole != expected] = True
    assert changed.sum() <= target.nbytes


@pytest.mark.parametrize("shape", [(1080, 1920, 3), (1 << 20,), (7, (1 << 18) + 1)])
def test_large_arrays_are_split_among_threads(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    source = rng.integers(0, 256, shape, np.uint8)
    for target in (np.zeros_like(source), np.zeros((*shape[:-1], shape[-1] + 5), np.uint8)[..., : shape[-1]]):
        _native.copy(source, target, _native.new_threads(3))
        np.testing.assert_array_equal(target, source)


def test_arrays_that_do_not_fit_are_errors() -> None:
    threads, source = _native.new_threads(1), np.zeros((4, 6), np.uint8)
    for target in (np.zeros((6, 4), np.uint8), np.zeros((4, 6), np.uint16), np.zeros(24, np.uint8)):
        with pytest.raises(InputError, match="the target must have the source's shape and type"):
            _native.copy(source, target, threads)
    with pytest.raises(InputError, match="must not share memory"):
        _native.copy(source[:3], source[1:], threads)
