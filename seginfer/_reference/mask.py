"""Interpolation and classification of logits, and blending of colours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .taps import Floats, Image, Indices, Mask, Taps, sum_in_order

_CHUNK = 1 << 20  # values interpolated at a time, so that full-size logits are never stored


def blend(pixels: Image, colors: Image, weight: int) -> Image:
    """Return class colours (..., 3) over pixels, `weight` in 256ths; where the colour is black, pixels stay."""
    mixed = (
        pixels.astype(np.uint16) * np.uint16(256 - weight) + colors.astype(np.uint16) * np.uint16(weight) + 128
    ) >> 8
    return np.where(colors.any(-1, keepdims=True), mixed, pixels).astype(np.uint8)


def interpolate(logits: Floats, rows: Taps, cols: Taps) -> Floats:
    """Interpolate (h, w, C) logits at paired positions; the n of `rows` and of `cols` are the same, giving (n, C).

    Weights times values, summed along the row first and then along the column, as torch does: no rounding of this
    form reverses an order that all neighbours share, which `a + (b - a) * t` can.
    """
    width, flat = logits.shape[1], logits.reshape(-1, logits.shape[2])

    def along(row: Indices) -> Floats:
        return sum_in_order(
            flat.take(row * width + index, 0) * weight[:, None] for index, weight in zip(*cols, strict=True)
        )

    return sum_in_order(along(index) * weight[:, None] for index, weight in zip(*rows, strict=True))


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


def interpolate_rows(logits: Floats, rows: Taps, cols: Taps) -> Iterator[tuple[slice, Floats]]:
    """Yield (row slice, (rows, W, C) interpolated logits) so that full-size logits are never stored at once."""
    height, width = rows.indices.shape[1], cols.indices.shape[1]
    step = max(1, _CHUNK // max(1, width * logits.shape[2]))
    for start in range(0, height if width else 0, step):
        y, x = (grid.ravel() for grid in np.mgrid[start : min(start + step, height), 0:width])
        values = interpolate(logits, rows.at(y), cols.at(x))
        yield slice(start, start + step), values.reshape(-1, width, logits.shape[2])
