"""Sampling positions and weights along one axis."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._geometry.axis import Axis

Image = NDArray[np.uint8]


Floats = NDArray[np.float32]


Indices = NDArray[np.intp]


Fixed = NDArray[np.int32]


Mask = NDArray[Any]


Real = np.floating[Any]


class Taps(NamedTuple):
    """Source indices and weights along one axis.

    Each output position has K taps: two, or three after `compose`.
    """

    indices: Indices
    """(K, n)"""
    weights: Floats
    """(K, n) float32, not negative, with sum one."""

    def at(self, positions: Any) -> Taps:
        """Return the taps of a slice or array of positions."""
        return Taps(self.indices[:, positions], self.weights[:, positions])


def linear_taps(n: int, m: int) -> Taps:
    """Return bilinear taps from n samples to m.

    Centres are at half pixels.

    Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False), computed in float32.
    """
    return _taps(m, np.float32(n / m), np.float32(0.5), np.float32(0), 0, n - 1)


def upsampling_taps(n: int, m: int, *, align_corners: bool) -> Taps:
    """Return bilinear taps that upsample n logits to m.

    Source: torch.nn.functional.interpolate(mode="bilinear"), computed in float32.
    """
    if align_corners:
        return _taps(m, np.float32((n - 1) / (m - 1)), np.float32(0), np.float32(0), 0, n - 1)
    return linear_taps(n, m)


def _taps(m: int, scale: Real, centre: Real, shift: Real, low: int, high: int) -> Taps:
    """Return taps at `scale * (i + centre) - centre + shift`.

    Indices are clamped to [low, high]. Positions have the type of `scale`.
    """
    real = type(scale)
    position = scale * (np.arange(m, dtype=real) + centre) - centre + shift
    position = np.maximum(position, real(low))
    i0 = np.minimum(np.floor(position).astype(np.intp), high)
    w1 = np.clip(position - i0.astype(real), real(0), real(1)).astype(np.float32)
    return Taps(np.stack((i0, np.minimum(i0 + 1, high))), np.stack((np.float32(1) - w1, w1)))


def opencv_taps(n: int, m: int, *, clamp_weights: bool = True) -> tuple[Indices, Indices, Fixed, Fixed]:
    """Return two indices and two 11-bit weights .

    `clamp_weights` sets the second weight to zero beyond the border.
    """
    # OpenCV clamps the weights of columns only, not those of rows.
    scale = 1.0 / (m / n)
    position = ((np.arange(m) + 0.5) * scale - 0.5).astype(np.float32)
    i0 = np.floor(position).astype(np.intp)
    w1 = position - i0.astype(np.float32)
    if clamp_weights:
        w1[(i0 < 0) | (i0 >= n - 1)] = 0
    a, b = (np.rint(w * np.float32(2048)).astype(np.int32) for w in (np.float32(1) - w1, w1))
    return np.clip(i0, 0, n - 1), np.clip(i0 + 1, 0, n - 1), a, b


def triangle_taps(n: int, m: int, real: type[np.floating[Any]]) -> Iterator[tuple[Indices, NDArray[Any]]]:
    """Yield the taps of the triangle filter.

    A tap is (indices, normalised weights). The filter widens when the image shrinks.

    Source: Pillow's precompute_coeffs with the bilinear filter, in float64. torch's antialias is the same in float32.
    """
    half = real(0.5)
    scale = real(n / m)
    support = max(scale, real(1))
    centre = scale * (np.arange(m, dtype=real) + half)
    first = np.maximum((centre - support + half).astype(np.intp), 0)
    count = np.minimum((centre + support + half).astype(np.intp), n) - first
    taps = first[:, None] + np.arange(count.max())
    distance = taps.astype(real) - centre[:, None] + half
    weights = np.maximum(real(0), real(1) - np.abs(distance * (real(1) / support)))
    weights[np.arange(count.max()) >= count[:, None]] = 0
    weights /= sum_in_order(iter(weights.T))[:, None]  # both libraries sum in this order
    return zip(np.minimum(taps, n - 1).T, weights.T, strict=True)


def nearest_indices(n: int, m: int) -> Indices:
    """Return the nearest source indices from n samples to m.

    Source: torch.nn.functional.interpolate(mode="nearest"), computed in float32.
    """
    position = np.arange(m, dtype=np.float32) * np.float32(n / m)
    index: Indices = np.minimum(position.astype(np.intp), n - 1)
    return index


def mirror_indices(positions: Indices, n: int) -> Indices:
    """Map integer positions to n mirrored samples.

    The samples repeat in alternating order. The border sample is not repeated.

    Source: numpy.pad(mode="reflect"), which repeats a single sample.
    """
    period = max(1, 2 * (n - 1))
    index: Indices = positions % period
    return np.minimum(index, period - index)


def is_aligned(axis: Axis, cells: int, align_corners: bool) -> bool:
    """Tell whether the content starts and ends on cell borders.

    A crop then leaves only the content.
    """
    if axis.offset < 0 or axis.offset + axis.resized > axis.input:
        return False
    if align_corners:
        return axis.input in (cells, axis.resized)
    return axis.offset * cells % axis.input == 0 == axis.resized * cells % axis.input


def mask_taps(axis: Axis, cells: int, *, align_corners: bool, real: type[np.floating[Any]]) -> Taps:
    """Return the taps from image samples into the logits.

    The taps are those of the visible samples. The centre of a sample goes through the resize (`image` to `resized`
    samples), the placement (`offset` inside `input` samples) and the stride (`input` samples to `cells`). Taps stay
    inside the cells that show the image. They never read padding.

    Args:
        axis: placement of the image along this axis.
        cells: size of the network output.
        align_corners: as in torch, sizes minus one are scaled and centres are whole numbers.
        real: type of the positions. It is float32 if both axes are aligned. The taps are then those of
            torch.nn.functional.interpolate on the cropped logits. It is float64 if torch has no such operation.
    """
    image, resized, source, steps = axis.image, axis.resized, axis.input, cells
    if align_corners:
        image, resized, source, steps = image - 1, resized - 1, max(source - 1, 1), cells - 1
    centre = real(0 if align_corners else 0.5)
    scale = real(resized * steps / (image * source) if image else 0)
    start = axis.offset * steps // source
    shift = real(axis.offset * steps / source - start)
    end = -(-(axis.offset + resized) * steps // source) - (0 if align_corners else 1)
    first, count = axis.visible
    taps = _taps(first + count, scale, centre, shift, max(0, start) - start, min(cells - 1, end) - start)
    taps = taps.at(slice(first, None))
    return Taps(taps.indices + start, taps.weights)


def crop_taps(taps: Taps, first: int, cells: int) -> Taps:
    """Crop taps to the `cells` samples from `first` on.

    Indices are clamped. Taps outside must have weight zero.
    """
    return Taps(np.clip(taps.indices - first, 0, cells - 1), taps.weights)


def compose(outer: Taps, inner: Taps) -> Taps:
    """Combine the taps of `inner` and then `outer`.

    The result of `inner` must not be coarser than its source.
    """
    # `outer` reads neighbouring samples of this result. Together they reach at most three neighbouring source samples.
    first = inner.indices[0, outer.indices[0]]
    index = first + np.arange(3)[:, None]
    weight = np.zeros(index.shape, np.float32)
    for between, outer_weight in zip(*outer, strict=True):
        for source, inner_weight in zip(*inner.at(between), strict=True):
            weight += np.where(index == source, outer_weight * inner_weight, np.float32(0))
    last: int = inner.indices.max()
    return Taps(np.minimum(index, last), weight)


def sum_in_order(terms: Iterator[Floats]) -> Floats:
    """Add up the terms in order.

    Each sum is rounded.
    """
    # A zero as the start would lose the sign of a first term -0.0.
    return reduce(np.add, terms)


def nearest_labels(axis: Axis, cells: int) -> Indices:
    """Return the label cells at the visible samples' centres."""
    first, count = axis.visible
    i = np.arange(first, first + count, dtype=np.int64)
    cell = ((2 * i + 1) * axis.resized + 2 * axis.offset * axis.image) * cells // (2 * axis.image * axis.input)
    return np.clip(cell, 0, cells - 1).astype(np.intp)
