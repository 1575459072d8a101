"""Arrays to fuzz with: mostly what a call expects, in any memory order, and sometimes anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
from driver import Provider
from guarded import Arena
from numpy.typing import NDArray

HUGE = (2**31 - 1, 2**31, 2**31 + 1, 2**20, 2**20 + 1, 2**32, 2**40, 2**62)
DTYPES = ("u1", "u2", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?", "c8", ">f4", ">u2", "M8[s]", "V3", "O")


def any_size(provider: Provider) -> int:
    """Return a side or an offset from anywhere, often at a limit."""
    if provider.boolean():
        return provider.pick([0, -1, 1, 65536, 2**20, 2**20 + 1, -(2**20), *HUGE, -(2**31), -(2**63)])
    return provider.integer(-(2**31), 2**31 - 1)


def any_value(provider: Provider) -> Any:
    """Return what no argument is meant to be."""
    some: tuple[object, ...] = (None, True, "", "rgb", b"rgb", 1.5, float("nan"), float("inf"))
    values = (*some, (), (1,), [1, 2, 3], {}, object())
    kind = provider.integer(0, len(values) + 2)
    if kind < len(values):
        return values[kind]
    if kind == len(values):
        return provider.text(8)
    return any_size(provider) if kind == len(values) + 1 else (any_size(provider), any_size(provider))


def any_array(provider: Provider, arena: Arena, shape: tuple[int, ...], dtype: str, *, one_in: int = 20) -> Any:
    """Return an array in the arena that is `shape` and `dtype`, but for one in about `one_in` of its properties."""
    if provider.chance(6 * one_in):
        return any_value(provider)
    if provider.chance(one_in):
        dtype = provider.pick(DTYPES)
    if provider.chance(one_in):
        shape = _other_shape(provider, shape)
    kind = np.dtype(dtype)
    if kind.hasobject:
        return np.zeros(tuple(min(side, 9) for side in shape), kind)
    strides = _strides(provider, shape, kind.itemsize, one_in)
    shift = provider.integer(0, 9) if provider.chance(one_in) else 0
    array = arena.array(shape, kind, strides, at_end=provider.boolean(), shift=shift)
    if array is None:
        array = arena.array(shape, kind, (0,) * len(shape), at_end=True)
    if array is not None and provider.chance(2 * one_in):
        array.flags.writeable = False
    return array


def _other_shape(provider: Provider, shape: tuple[int, ...]) -> tuple[int, ...]:
    sides = list(shape)
    change = provider.integer(0, 4)
    if change == 0 or not sides:
        sides.insert(provider.integer(0, len(sides)), provider.integer(0, 4))
    elif change == 1:
        del sides[provider.integer(0, len(sides) - 1)]
    elif change == 2:
        sides.reverse()
    else:
        sizes = [0, 1, 2, 3, 4, 9, *HUGE] if change == 3 else list(range(12))
        sides[provider.integer(0, len(sides) - 1)] = provider.pick(sizes)
    if int(np.prod([float(side) for side in sides])) >= 2**57:  # NumPy has no such array, of any strides
        return shape
    return tuple(sides)


def _strides(provider: Provider, shape: tuple[int, ...], itemsize: int, one_in: int) -> tuple[int, ...]:
    """Return strides of packed rows, of some other order of axes, or with steps, gaps, flips and overlaps."""
    order = list(range(len(shape)))
    if provider.chance(one_in):
        order.reverse()
    elif provider.chance(one_in) and len(order) > 1:
        order[-1], order[0] = order[0], order[-1]
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(order):
        if provider.chance(one_in):
            step += itemsize * provider.integer(0, 5)
        elif provider.chance(2 * one_in):
            step += provider.integer(-3, 5)
        strides[axis] = step if abs(step) < 2**40 else 0
        if provider.chance(2 * one_in):
            strides[axis] = provider.pick([0, -step, 1, itemsize, -itemsize])
        step *= max(1, min(shape[axis], 2**20))
    return tuple(stride if abs(stride) < 2**40 else 0 for stride in strides)


def elements(array: NDArray[Any], arena: Arena) -> NDArray[np.bool_]:
    """Return which bytes of the arena an array in it consists of."""
    inside = np.zeros(arena.size, bool)
    first = array.__array_interface__["data"][0] - arena.bytes.__array_interface__["data"][0]
    view = np.ndarray((*array.shape, array.itemsize), bool, inside, first, (*array.strides, 1))
    view[...] = True
    return inside
