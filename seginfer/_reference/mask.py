"""Interpolation, classification and blending."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .taps import Floats, Image, Indices, Mask, Taps, sum_in_order

_CHUNK = 1 << 20  # values interpolated at a time, so that full-size logits are never stored


def blend(pixels: Image, colors: Image, weight: int) -> Image:
    """Blend class colours (..., 3) over pixels.

    `weight` is in 256ths. Pixels under black stay unchanged.
    """
    mixed = (
        pixels.astype(np.uint16) * np.uint16(256 - weight) + colors.astype(np.uint16) * np.uint16(weight) + 128
    ) >> 8
    return np.where(colors.any(-1, keepdims=True), mixed, pixels).astype(np.uint8)


def interpolate(logits: Floats, rows: Taps, cols: Taps) -> Floats:
    """Interpolate logits at n positions.

    (h, w, C) logits give (n, C) values. `rows` and `cols` hold n taps each, one pair per position. The sum of weights
    times values runs along the row first and then along the column, as in torch.
    """
    # Rounding of this form keeps an order that all neighbours share. `a + (b - a) * t` can reverse it.
    width, flat = logits.shape[1], logits.reshape(-1, logits.shape[2])

    def along(row: Indices) -> Floats:
        return sum_in_order(
            flat.take(row * width + index, 0) * weight[:, None] for index, weight in zip(*cols, strict=True)
        )

    return sum_in_order(along(index) * weight[:, None] for index, weight in zip(*rows, strict=True))


def classify_pixels(logits: Floats, rows: Taps, cols: Taps, classify: Callable[[Floats], Mask], out: Mask) -> None:
    """Fill `out` (H, W) with the class of every pixel.

    If all logit cells around a pixel have the same class, the pixel has this class. This rule is part of the
    specification.

    Args:
        logits: (h, w, C) float32.
        rows: taps of the H output rows.
        cols: taps of the W output columns.
        classify: maps (..., C) values to (...) labels. Ties take the lowest.
        out: (H, W), written completely.
    """
    # Interpolation is a convex combination, so that equal neighbours decide. Without the rule, rounding could make two
    # classes tie there.
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
    """Return the difference of the two largest values.

    (..., C) values give (...) float32. It is infinite if C is 1.
    """
    if values.shape[-1] == 1:
        return np.full(values.shape[:-1], np.inf, np.float32)
    second, first = np.moveaxis(np.partition(values, -2, axis=-1)[..., -2:], -1, 0)
    result: Floats = first - second + np.float32(0)  # makes -0.0 positive: partition does not order the signs of zeros
    return result


def interpolate_rows(logits: Floats, rows: Taps, cols: Taps) -> Iterator[tuple[slice, Floats]]:
    """Interpolate logits in chunks of rows.

    Yields (row slice, logits), where the logits are (rows, W, C).
    """
    height, width = rows.indices.shape[1], cols.indices.shape[1]
    step = max(1, _CHUNK // max(1, width * logits.shape[2]))
    for start in range(0, height if width else 0, step):
        y, x = (grid.ravel() for grid in np.mgrid[start : min(start + step, height), 0:width])
        values = interpolate(logits, rows.at(y), cols.at(x))
        yield slice(start, start + step), values.reshape(-1, width, logits.shape[2])
