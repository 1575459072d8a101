"""Calls of the compiled core, their arguments, and the memory that they may read and write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from arrays import any_array, any_size, any_value, elements
from driver import Provider
from guarded import Arena
from numpy.typing import NDArray

from seginfer import SegInferError, _native

core: Any = _native.core
MOST = 90  # pixels along a side; seldom more than a fifth of that
REFUSALS = (SegInferError, TypeError, ValueError, OverflowError, MemoryError)

inputs, targets, maps = Arena(1 << 16), Arena(1 << 16), (Arena(1 << 16), Arena(1 << 16))
pools = [core.Threads(1), core.Threads(3)]


class RefusedError(Exception):
    """The core refused, as it may."""


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call into the core; its refusals become `RefusedError`, and anything else is a finding."""
    try:
        return function(*arguments, **named)
    except REFUSALS as error:
        raise RefusedError from error


def side(provider: Provider) -> int:
    return provider.integer(1, provider.pick((MOST // 5, MOST // 5, MOST // 5, MOST)))


def size(provider: Provider) -> tuple[int, int]:
    return side(provider), side(provider)


def placement(provider: Provider, *, even: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """Return how an image is placed: by one of the policies, or anyhow."""
    image = tuple(n + (-n) % k for n, k in zip(size(provider), even, strict=True))
    resized = image if provider.boolean() else size(provider)
    offset = tuple(provider.integer(-MOST // 3, MOST // 3) if provider.boolean() else 0 for _ in resized)
    return {"image_hw": image, "input_hw": size(provider), "resized_hw": resized, "offset_yx": offset}


def spoiled(provider: Provider, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments, now and then with one that is wrong."""
    if not provider.chance(6):
        return arguments
    arguments = dict(arguments)
    key = provider.pick(sorted(arguments))
    value = arguments[key]
    if isinstance(value, tuple) and value and provider.boolean():
        at = provider.integer(0, len(value) - 1)
        arguments[key] = (*value[:at], any_size(provider), *value[at + 1 :])
    elif provider.chance(8):
        del arguments[key]
    else:
        arguments[key] = any_size(provider) if isinstance(value, int) else any_value(provider)
    return arguments


def array_from(provider: Provider, arena: Arena, shape: tuple[int, ...], dtype: str) -> Any:
    array = any_array(provider, arena, shape, dtype)
    if array is None:
        raise RefusedError  # no room for it
    return array


class Memory(NamedTuple):
    """What every byte was before a call."""

    before: list[tuple[Arena, NDArray[np.uint8]]]

    @classmethod
    def now(cls) -> Memory:
        return cls([(arena, arena.bytes.copy()) for arena in (inputs, targets, *maps)])

    def check(self, *written: NDArray[Any]) -> None:
        """Assert that only elements of the arrays that were written differ."""
        for arena, old in self.before:
            changed = arena.bytes != old
            for array in written:
                if np.may_share_memory(array, arena.bytes):
                    changed &= ~elements(array, arena)
            assert not changed.any(), f"bytes {np.flatnonzero(changed)[:9]} changed that are no result"


def fill(memory: Memory, written: list[Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call, and look at the memory afterwards, however the call ends."""
    try:
        result = call(function, *arguments)
    except RefusedError:
        memory.check()
        raise
    memory.check(*(array for array in written if array is not None))
    return result


def copy_of(array: Any) -> Any:
    """Return a copy of an array, unless it is one of the huge ones, which are refused."""
    return array.copy() if isinstance(array, np.ndarray) and array.size <= 1 << 16 else None


def generator(provider: Provider) -> np.random.Generator:
    return np.random.default_rng(provider.integer(0, 2**32 - 1))


def fill_memory(provider: Provider) -> None:
    """Write noise, of few levels some of the time, into all memory that a call may read or write."""
    noise, levels = generator(provider), provider.pick([256, 256, 2, 3])
    for arena in (inputs, targets, *maps):
        arena.bytes[:] = noise.integers(0, levels, arena.size, np.uint8)


def set_floats(provider: Provider, values: Any) -> None:
    """Make an array's values small and finite; some of the time one of them is not."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.size > 1 << 14:
        return
    if not values.flags.writeable:
        return
    noise = generator(provider)
    values[...] = np.round(4 * noise.normal(size=values.shape)) / provider.pick([1, 2, 64])
    if values.size and provider.chance(8):
        values.flat[provider.integer(0, values.size - 1)] = provider.pick([np.nan, np.inf])


def assert_equal(got: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(np.ascontiguousarray(got), expected, strict=True)
