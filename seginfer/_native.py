"""Selection of the compiled core or the NumPy reference.

Only this module imports `seginfer._ext`.
"""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._errors import InputError
from ._geometry.geometry import Geometry

if TYPE_CHECKING:
    from . import _ext

_log = logging.getLogger("seginfer")

core: Any = None
"""The compiled module. None if it is missing or disabled by SEGINFER_PURE=1."""

_reason = ""


def _load() -> tuple[Any, str]:
    """Return the compiled core, or None with reason and remedy."""
    if os.environ.get("SEGINFER_PURE") == "1":
        return None, "SEGINFER_PURE=1 disables it; unset it"
    try:
        import seginfer._ext as extension
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "seginfer._ext":
            return None, "it was not built when seginfer was installed; install a C++17 compiler and seginfer again"
        # Built on another machine: for a newer C library, or for another Python.
        remedy = "build it here: pip install --force-reinstall --no-deps --no-binary seginfer seginfer"
        return None, f"it was built and does not load ({error}); {remedy}"
    requested = os.environ.get("SEGINFER_SIMD")
    if requested:
        try:
            extension.use_target(requested)
        except InputError as error:  # not raised: `seginfer doctor` is there to show it
            return extension, f"SEGINFER_SIMD is ignored: {error}"
    return extension, ""


core, _reason = _load()


def describe() -> str:
    """Describe the pixel implementation in one line.

    It is the compiled core with its instruction set, or NumPy with reason and remedy.
    """
    if core is None:
        return f"NumPy; no compiled core: {_reason}"
    return f"compiled core, {core.target()} of {', '.join(core.targets())}{_reason and f'; {_reason}'}"


@lru_cache(maxsize=1)
def log_once() -> None:
    """Log the pixel implementation once per process, as a warning where a setting is ignored."""
    _log.log(logging.WARNING if core and _reason else logging.INFO, "pixels: %s", describe())


def new_threads(size: int) -> _ext.Threads | None:
    """Make a pool of `size` threads, including the caller.

    Return None without a compiled core.
    """
    return core.Threads(size) if core else None


@lru_cache(maxsize=8)
def _shared_threads(size: int) -> Any:
    return new_threads(size)


def shared_threads(size: int) -> _ext.Threads | None:
    """Return the shared pool of `size` threads.

    Return None without a compiled core.
    """
    return _shared_threads(size) if core else None


def copy(source: NDArray[Any], target: NDArray[Any], threads: Any) -> None:
    """Copy an array to one of its shape and dtype. A pool of threads of the core is used if there is one."""
    if core is None or threads is None:
        np.copyto(target, source)
    else:
        core.copy(source, target, threads)


def has_packed_rows(array: NDArray[Any], axes: int) -> bool:
    """Tell whether the last `axes` axes are packed.

    Rows must not overlap, and values must be aligned.
    """
    if array.flags.c_contiguous and array.flags.aligned:
        return True
    expected = array.itemsize
    for axis in range(array.ndim - 1, array.ndim - 1 - axes, -1):
        if array.strides[axis] != expected and array.shape[axis] != 1:
            return False
        expected *= array.shape[axis]
    if not array.flags.aligned:
        return False
    for axis in range(array.ndim - 1 - axes, -1, -1):
        if array.strides[axis] < expected and array.shape[axis] != 1:
            return False
        expected = max(expected, array.strides[axis] * array.shape[axis])
    return True


def placement(geometry: Geometry) -> dict[str, tuple[int, int]]:
    """Return a geometry as arguments of the core."""
    return {
        "image_hw": geometry.image_hw,
        "input_hw": geometry.input_hw,
        "resized_hw": geometry.resized_hw,
        "offset_yx": geometry.offset_yx,
    }
