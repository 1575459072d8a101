"""The arithmetic of every pixel, stated once in NumPy: the executable specification that fast kernels must equal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Fixed = NDArray[np.int32]
Mask = NDArray[Any]
Real = np.floating[Any]

_CHUNK = 1 << 20  # values interpolated at a time, so that full-size logits are never stored


class Taps(NamedTuple):
    """The K source indices and float32 weights of every output position along one axis; K is 2 or, composed, 3."""

    indices: Indices
    """(K, n)"""
    weights: Floats
    """(K, n), not negative; they sum to one."""

    def at(self, positions: Any) -> Taps:
        """Return the taps of some positions: a slice of them, or their numbers."""
        return Taps(self.indices[:, positions], self.weights[:, positions])


# ---------------------------------------------------------------------------------------------- resizing an image


def resize_opencv(image: Image, size: tuple[int, int]) -> Image:
    """Resize (h, w, c) uint8 as cv2.resize does with INTER_LINEAR: 11-bit weights, rows kept at 2^7, no antialias.

    Source: OpenCV imgproc/src/resize.cpp, the fixed-point path for uchar.
    """
    x0, x1, ax, bx = _opencv_taps(image.shape[1], size[1])
    y0, y1, ay, by = _opencv_taps(image.shape[0], size[0], clamp_weights=False)
    top, bottom = (
        ((image[y][:, x0] * ax[:, None] + image[y][:, x1] * bx[:, None] >> 4) * weight[:, None, None] >> 16)
        for y, weight in ((y0, ay), (y1, by))
    )
    resized: Image = (top + bottom + 2 >> 2).astype(np.uint8)
    return resized


def resize_pillow(image: Image, size: tuple[int, int]) -> Image:
    """Resize (h, w, c) uint8 as Pillow does with BILINEAR: antialiased, 22-bit weights, uint8 between the passes.

    Columns first, as every version does for usual sizes; Pillow 13 begins with the rows for some sizes whose height
    shrinks, which moves some pixels by one level.

    Source: Pillow src/libImaging/Resample.c.
    """
    columns = _pillow_pass(image, size[1], axis=1)
    return _pillow_pass(columns, size[0], axis=0)


def resize_torch(image: Image, size: tuple[int, int]) -> Floats:
    """Resize (h, w, c) to float32 as torch.nn.functional.interpolate(mode="bilinear") does: half-pixel centres."""
    rows, cols = (linear_taps(n, m) for n, m in zip(image.shape, size, strict=False))
    pixels = image.astype(np.float32)
    wide = _sum(pixels[:, index] * weight[:, None] for index, weight in zip(*cols, strict=True))
    return _sum(wide[index] * weight[:, None, None] for index, weight in zip(*rows, strict=True))


def resize_torch_antialias(image: Image, size: tuple[int, int]) -> Floats:
    """Resize (h, w, c) to float32 as torch's interpolate(mode="bilinear", antialias=True) does."""
    columns = _weighted_pass(image.astype(np.float32), size[1], axis=1)
    return _weighted_pass(columns, size[0], axis=0)


def resize_nearest(image: Image, size: tuple[int, int]) -> Image:
    """Resize (h, w, c) uint8 as torch's interpolate(mode="nearest") does: floor of the float32 source position."""
    y, x = (_nearest_indices(n, m) for n, m in zip(image.shape, size, strict=False))
    return image[y[:, None], x]


RESIZE: dict[str, Callable[[Image, tuple[int, int]], NDArray[Any]]] = {
    "opencv": resize_opencv,
    "pillow": resize_pillow,
    "torch": resize_torch,
    "torch-antialias": resize_torch_antialias,
    "nearest": resize_nearest,
}


def linear_taps(n: int, m: int) -> Taps:
    """Return the taps that resize n samples to m with half-pixel centres.

    Source: torch.nn.functional.interpolate(mode="bilinear", align_corners=False), computed in float32.
    """
    return _taps(m, np.float32(n / m), np.float32(0.5), np.float32(0), 0, n - 1)


def upsampling_taps(n: int, m: int, *, align_corners: bool) -> Taps:
    """Return the taps that upsample n logits to m.

    Source: torch.nn.functional.interpolate(mode="bilinear"), computed in float32.
    """
    if align_corners:
        return _taps(m, np.float32((n - 1) / (m - 1)), np.float32(0), np.float32(0), 0, n - 1)
    return linear_taps(n, m)


def _taps(m: int, scale: Real, centre: Real, shift: Real, low: int, high: int) -> Taps:
    """Return taps at `scale * (i + centre) - centre + shift`, kept inside [low, high]; positions in scale's type."""
    real = type(scale)
    position = scale * (np.arange(m, dtype=real) + centre) - centre + shift
    position = np.maximum(position, real(low))
    i0 = np.minimum(np.floor(position).astype(np.intp), high)
    w1 = np.clip(position - i0.astype(real), real(0), real(1)).astype(np.float32)
    return Taps(np.stack((i0, np.minimum(i0 + 1, high))), np.stack((np.float32(1) - w1, w1)))


def _opencv_taps(n: int, m: int, *, clamp_weights: bool = True) -> tuple[Indices, Indices, Fixed, Fixed]:
    """Return two indices and two 11-bit weights; beyond the border OpenCV drops a column's weight but not a row's."""
    scale = 1.0 / (m / n)
    position = ((np.arange(m) + 0.5) * scale - 0.5).astype(np.float32)
    i0 = np.floor(position).astype(np.intp)
    w1 = position - i0.astype(np.float32)
    if clamp_weights:
        w1[(i0 < 0) | (i0 >= n - 1)] = 0
    a, b = (np.rint(w * np.float32(2048)).astype(np.int32) for w in (np.float32(1) - w1, w1))
    return np.clip(i0, 0, n - 1), np.clip(i0 + 1, 0, n - 1), a, b


def _triangle_taps(n: int, m: int, real: type[np.floating[Any]]) -> Iterator[tuple[Indices, NDArray[Any]]]:
    """Yield (indices, normalised weights) per tap of the triangle filter, widened when it shrinks the image.

    Source: Pillow's precompute_coeffs with the bilinear filter, in float64; torch's antialias does the same in float32.
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
    weights /= _sum(iter(weights.T))[:, None]  # in order, as both libraries add them up
    return zip(np.minimum(taps, n - 1).T, weights.T, strict=True)


def _pillow_pass(image: Image, m: int, axis: int) -> Image:
    total: NDArray[Any] = np.array(1 << 21)
    for index, weight in _triangle_taps(image.shape[axis], m, np.float64):
        fixed = (weight * (1 << 22) + 0.5).astype(np.int64)
        total = total + image.take(index, axis) * np.expand_dims(fixed, tuple({0, 1, 2} - {axis}))
    resized: Image = np.clip(total >> 22, 0, 255).astype(np.uint8)
    return resized


def _weighted_pass(image: Floats, m: int, axis: int) -> Floats:
    total: NDArray[Any] = np.array(0, np.float32)
    for index, weight in _triangle_taps(image.shape[axis], m, np.float32):
        total = total + image.take(index, axis) * np.expand_dims(weight, tuple({0, 1, 2} - {axis}))
    return total


def _nearest_indices(n: int, m: int) -> Indices:
    position = np.arange(m, dtype=np.float32) * np.float32(n / m)
    index: Indices = np.minimum(position.astype(np.intp), n - 1)
    return index


def mirrored(positions: Indices, n: int) -> Indices:
    """Return which of n samples stands at any whole position where they are mirrored without repeating the border.

    Source: numpy.pad(mode="reflect"), which repeats a single sample.
    """
    period = max(1, 2 * (n - 1))
    index: Indices = positions % period
    return np.minimum(index, period - index)


def rgb_from_yuv(y: NDArray[Any], u: NDArray[Any], v: NDArray[Any]) -> Image:
    """Return (..., 3) uint8 RGB of BT.601 luma and chroma with limited range, in 20-bit fixed point.

    Source: ITU-R BT.601, rounded as cv2.cvtColor(COLOR_YUV2RGB_NV12) rounds.
    """
    luma = np.maximum(y.astype(np.int32) - 16, 0) * 1220542 + (1 << 19)
    u, v = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    channels = (luma + v * 1673527, luma - v * 852492 - u * 409993, luma + u * 2116026)
    rgb: Image = np.clip(np.stack(channels, -1) >> 20, 0, 255).astype(np.uint8)
    return rgb


def rgb_from_nv12(image: Image) -> Image:
    """Return (H, W, 3) uint8 RGB of an (H * 3 / 2, W) image; each chroma pair stands for 2 x 2 pixels."""
    height = image.shape[0] // 3 * 2
    chroma = image[height:].reshape(height // 2, -1, 2).repeat(2, 0).repeat(2, 1)
    return rgb_from_yuv(image[:height], chroma[..., 0], chroma[..., 1])


def rgb_from_yuyv(image: Image) -> Image:
    """Return (H, W, 3) uint8 RGB of an (H, W, 2) image; each chroma pair stands for two pixels of a row."""
    u, v = (image[:, first::2, 1].repeat(2, 1) for first in (0, 1))
    return rgb_from_yuv(image[..., 0], u, v)


def normalize(pixels: NDArray[Any], gain: Floats, bias: Floats) -> Floats:
    """Return `pixels * gain + bias` per channel, each operation rounded to float32; (h, w, c) float32."""
    return pixels.astype(np.float32) * gain + bias


def blend(pixels: Image, colors: Image, weight: int) -> Image:
    """Return class colours (..., 3) over pixels, `weight` in 256ths; where the colour is black, pixels stay."""
    mixed = (
        pixels.astype(np.uint16) * np.uint16(256 - weight) + colors.astype(np.uint16) * np.uint16(weight) + 128
    ) >> 8
    return np.where(colors.any(-1, keepdims=True), mixed, pixels).astype(np.uint8)


# ------------------------------------------------------------------------------------------- making a mask


def is_aligned(resized: int, offset: int, source: int, logits: int, align_corners: bool) -> bool:
    """Tell whether, along one axis, the content starts and ends on cell borders: a crop then leaves just the content.

    Arguments as in `mask_taps`.
    """
    if offset < 0 or offset + resized > source:
        return False
    if align_corners:
        return source in (logits, resized)
    return offset * logits % source == 0 == resized * logits % source


def mask_taps(
    image: int,
    resized: int,
    offset: int,
    source: int,
    logits: int,
    visible: tuple[int, int],
    *,
    align_corners: bool,
    real: type[np.floating[Any]],
) -> Taps:
    """Return the taps, along one axis, from image pixels into the logits.

    A pixel centre goes through the resize (`image` to `resized` samples), the placement (`offset` inside an input of
    `source` samples) and the stride (`source` to `logits` samples). Taps stay inside the cells that show the image,
    so padding never leaks in.

    Args:
        image: the image's size along the axis, in pixels.
        resized: the image's size after the resize.
        offset: position of the resized image inside the input; negative where it is cut.
        source: size of the network input.
        logits: size of the network output.
        visible: first image pixel and number of image pixels to return taps for.
        align_corners: as in torch, sizes minus one are scaled and centres are whole numbers.
        real: type of the positions. float32 where both axes are aligned: the taps are then those that
            torch.nn.functional.interpolate computes on the cropped logits. float64 where torch has no such operation.
    """
    cells = logits
    if align_corners:
        image, resized, source, cells = image - 1, resized - 1, max(source - 1, 1), logits - 1
    centre = real(0 if align_corners else 0.5)
    scale = real(resized * cells / (image * source) if image else 0)
    start = offset * cells // source
    shift = real(offset * cells / source - start)
    end = -(-(offset + resized) * cells // source) - (0 if align_corners else 1)
    taps = _taps(visible[0] + visible[1], scale, centre, shift, max(0, start) - start, min(logits - 1, end) - start)
    taps = taps.at(slice(visible[0], None))
    return Taps(taps.indices + start, taps.weights)


def windowed(taps: Taps, first: int, cells: int) -> Taps:
    """Return taps into the `cells` samples from `first` on; a tap outside of them has no weight and may read any."""
    return Taps(np.clip(taps.indices - first, 0, cells - 1), taps.weights)


def compose(outer: Taps, inner: Taps) -> Taps:
    """Return the taps that do `inner` and then `outer` at once.

    `outer` reads neighbouring samples of what `inner` makes, which is not coarser than its source: together they reach
    three neighbouring source samples at most.
    """
    first = inner.indices[0, outer.indices[0]]
    index = first + np.arange(3)[:, None]
    weight = np.zeros(index.shape, np.float32)
    for between, outer_weight in zip(*outer, strict=True):
        for source, inner_weight in zip(*inner.at(between), strict=True):
            weight += np.where(index == source, outer_weight * inner_weight, np.float32(0))
    last: int = inner.indices.max()
    return Taps(np.minimum(index, last), weight)


def interpolate(logits: Floats, rows: Taps, cols: Taps) -> Floats:
    """Interpolate (h, w, C) logits at paired positions; the n of `rows` and of `cols` are the same, giving (n, C).

    Weights times values, summed along the row first and then along the column, as torch does: no rounding of this
    form reverses an order that all neighbours share, which `a + (b - a) * t` can.
    """
    width, flat = logits.shape[1], logits.reshape(-1, logits.shape[2])

    def along(row: Indices) -> Floats:
        return _sum(flat.take(row * width + index, 0) * weight[:, None] for index, weight in zip(*cols, strict=True))

    return _sum(along(index) * weight[:, None] for index, weight in zip(*rows, strict=True))


def _sum(terms: Iterator[Floats]) -> Floats:
    """Add up in order, each sum rounded; the first term is not added to a zero, which would lose its sign."""
    return reduce(np.add, terms)


def classify_pixels(logits: Floats, rows: Taps, cols: Taps, classify: Callable[[Floats], Mask], out: Mask) -> None:
    """Fill `out` (H, W) with the class of every pixel.

    Where the logit cells around a pixel all have the same class, the pixel has it too: interpolation is a convex
    combination. Rounding could still make two classes tie there, so this rule is part of the specification.

    Args:
        logits: (h, w, C) float32.
        rows: taps of the H output rows.
        cols: taps of the W output columns.
        classify: maps (..., C) values to (...) labels; ties take the lowest.
        out: (H, W), written completely.
    """
    low = classify(logits).astype(out.dtype)
    out[...] = low[np.ix_(rows.indices[0], cols.indices[0])]
    mixed = np.zeros(out.shape, bool)
    for row, col in itertools.product(rows.indices, cols.indices):
        mixed |= out != low[np.ix_(row, col)]
    y, x = np.nonzero(mixed)
    step = max(1, _CHUNK // logits.shape[2])
    for k in range(0, len(y), step):
        ys, xs = y[k : k + step], x[k : k + step]
        out[ys, xs] = classify(interpolate(logits, rows.at(ys), cols.at(xs)))


def margins(values: Floats) -> Floats:
    """Return by how much the largest of (..., C) values exceeds the next, (...) float32; infinite for a single one."""
    if values.shape[-1] == 1:
        return np.full(values.shape[:-1], np.inf, np.float32)
    second, first = np.moveaxis(np.partition(values, -2, axis=-1)[..., -2:], -1, 0)
    result: Floats = first - second + np.float32(0)  # zeros have two signs, and partition does not order them
    return result


def interpolated_rows(logits: Floats, rows: Taps, cols: Taps) -> Iterator[tuple[slice, Floats]]:
    """Yield (row slice, (rows, W, C) interpolated logits) so that full-size logits are never stored at once."""
    height, width = rows.indices.shape[1], cols.indices.shape[1]
    step = max(1, _CHUNK // max(1, width * logits.shape[2]))
    for start in range(0, height if width else 0, step):
        y, x = (grid.ravel() for grid in np.mgrid[start : min(start + step, height), 0:width])
        values = interpolate(logits, rows.at(y), cols.at(x))
        yield slice(start, start + step), values.reshape(-1, width, logits.shape[2])


def nearest_labels(
    image: int, resized: int, offset: int, source: int, labels: int, visible: tuple[int, int]
) -> Indices:
    """Return the label cell that holds the centre of each visible image pixel; arguments as in `mask_taps`."""
    i = np.arange(visible[0], visible[0] + visible[1], dtype=np.int64)
    cell = ((2 * i + 1) * resized * labels + 2 * offset * labels * image) // (2 * image * source)
    return np.clip(cell, 0, labels - 1).astype(np.intp)
