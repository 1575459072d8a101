"""Checks of output arrays that a caller provides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError


def check_no_overlap(out: NDArray[Any]) -> None:
    """Raise if elements of an output array share memory.

    Raises:
        InputError: if two elements overlap.
    """
    if out.flags.c_contiguous:
        return
    span = out.itemsize
    for stride, extent in sorted(zip(map(abs, out.strides), out.shape, strict=True)):
        if extent > 1 and stride < span:
            raise InputError(f"out must not overlap itself, got strides {out.strides}; allocate it with numpy.empty")
        span += stride * (extent - 1)


def may_share(a: Any, b: Any) -> bool:
    """Tell whether two arrays, or two tensors of a GPU with `bounds`, may share memory."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.may_share_memory(a, b)
    if not (hasattr(a, "bounds") and hasattr(b, "bounds")):
        return False
    return bool(a.bounds[0] < b.bounds[1] and b.bounds[0] < a.bounds[1])


def check_apart(out: Sequence[NDArray[Any]] | None, sources: Sequence[object], what: str) -> None:
    """Raise if an output array shares memory with an input.

    Args:
        out: arrays that will be written.
        sources: values that will be read. Only arrays among them, and tensors of a GPU, are checked.
        what: name of the sources, for the error.

    Raises:
        InputError: if memory may be shared.
    """
    if out is not None and any(may_share(a, b) for a in out for b in sources):
        raise InputError(f"out must not share memory with {what}; allocate it by itself")
