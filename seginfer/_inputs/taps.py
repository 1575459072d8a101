"""Resize taps as arrays for the kernels.

The reference computes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._cuda.kernel_args import Filter
from .._geometry.geometry import Geometry, Rect
from .._reference.taps import linear_taps, mirror_indices, nearest_indices, opencv_taps, triangle_taps
from .._spec.model_spec import InputSpec


class AxisTaps(NamedTuple):
    """K source samples per content position along an axis."""

    indices: NDArray[np.int32]
    """(K, n)"""
    weights: NDArray[Any] | None
    """(K, n) float32, or int32 in fixed point. None if samples are picked."""


class InputTaps(NamedTuple):
    """Taps and filter for the content of one network input."""

    rows: AxisTaps
    cols: AxisTaps
    filter: Filter
    content: Rect


_FILTERS = {
    "opencv": Filter.OPENCV,
    "pillow": Filter.PILLOW,
    "torch": Filter.WEIGHTED,
    "torch-antialias": Filter.WEIGHTED,
    "nearest": Filter.PICK,
}


def input_taps(geometry: Geometry, spec: InputSpec) -> InputTaps:
    """Return the taps from image to network input."""
    if spec.resize == "tile":
        content = Rect(0, 0, *geometry.input_hw)
        rows, cols = (_mirror_taps(geometry, axis) for axis in (0, 1))
        return InputTaps(rows, cols, Filter.PICK, content)
    content = geometry.content
    is_resized = geometry.resized_hw != geometry.image_hw
    resampling = spec.resampling if is_resized else "nearest"
    rows, cols = (_crop_taps(_resize_taps(geometry, axis, resampling), geometry, axis) for axis in (0, 1))
    return InputTaps(rows, cols, _FILTERS[resampling], content)


def _resize_taps(geometry: Geometry, axis: int, resampling: str) -> AxisTaps:
    """Return the taps of the whole resized image."""
    n, m = geometry.image_hw[axis], geometry.resized_hw[axis]
    if resampling == "torch":
        return _axis(*linear_taps(n, m))
    if resampling == "opencv":
        first, second, *weights = opencv_taps(n, m, clamp_weights=axis == 1)
        return _axis(np.stack((first, second)), np.stack(weights))
    if resampling == "nearest":
        return _axis(nearest_indices(n, m)[None], None)
    real = np.float64 if resampling == "pillow" else np.float32
    index, weight = map(np.stack, zip(*triangle_taps(n, m, real), strict=True))
    return _axis(index, (weight * (1 << 22) + 0.5).astype(np.int32) if resampling == "pillow" else weight)


def _crop_taps(taps: AxisTaps, geometry: Geometry, axis: int) -> AxisTaps:
    """Keep the taps of the part in the input."""
    first = geometry.content[axis] - geometry.offset_yx[axis]
    part = slice(first, first + geometry.content[axis + 2])
    return _axis(taps.indices[:, part], None if taps.weights is None else taps.weights[:, part])


def _mirror_taps(geometry: Geometry, axis: int) -> AxisTaps:
    positions = np.arange(geometry.input_hw[axis]) - geometry.offset_yx[axis]
    return _axis(mirror_indices(positions, geometry.image_hw[axis])[None], None)


def _axis(index: NDArray[Any], weight: NDArray[Any] | None) -> AxisTaps:
    return AxisTaps(np.ascontiguousarray(index, np.int32), None if weight is None else np.ascontiguousarray(weight))
