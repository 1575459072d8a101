"""Checks of arrays that a caller provides to be filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError


def check_no_overlap(out: NDArray[Any]) -> None:
    """Raise an InputError if two elements of an array to fill are the same memory."""
    if out.flags.c_contiguous:
        return
    span = out.itemsize
    for stride, extent in sorted(zip(map(abs, out.strides), out.shape, strict=True)):
        if extent > 1 and stride < span:
            raise InputError(f"out must not overlap itself, got strides {out.strides}; allocate it with numpy.empty")
        span += stride * (extent - 1)


def check_apart(out: Sequence[NDArray[Any]] | None, sources: Sequence[object], what: str) -> None:
    """Raise an InputError if an array to fill shares memory with one that is read, which would change meanwhile."""
    arrays = [source for source in sources if isinstance(source, np.ndarray)]
    if out is not None and any(np.may_share_memory(a, b) for a in out for b in arrays):
        raise InputError(f"out must not share memory with {what}; allocate it by itself")
