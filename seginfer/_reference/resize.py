"""Resizing and normalisation of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .taps import Floats, Image, linear_taps, nearest_indices, opencv_taps, sum_in_order, triangle_taps


def resize_opencv(image: Image, size: tuple[int, int]) -> Image:
    """Resize (h, w, c) uint8 like cv2.resize with INTER_LINEAR.

    Weights have 11 bits, rows are kept at 2^7, and there is no antialiasing.

    Source: OpenCV imgproc/src/resize.cpp, the fixed-point path for uchar.
    """
    x0, x1, ax, bx = opencv_taps(image.shape[1], size[1])
    y0, y1, ay, by = opencv_taps(image.shape[0], size[0], clamp_weights=False)
    top, bottom = (
        ((image[y][:, x0] * ax[:, None] + image[y][:, x1] * bx[:, None] >> 4) * weight[:, None, None] >> 16)
        for y, weight in ((y0, ay), (y1, by))
    )
    resized: Image = (top + bottom + 2 >> 2).astype(np.uint8)
    return resized


def resize_pillow(image: Image, size: tuple[int, int]) -> Image:
    """Resize (h, w, c) uint8 like Pillow with BILINEAR.

    It is antialiased, with 22-bit weights and uint8 between the passes. The columns are first, as in every version for
    usual sizes. Pillow 13 begins with the rows for some sizes whose height shrinks. Some pixels then differ by 1.

    Source: Pillow src/libImaging/Resample.c.
    """
    columns = _pillow_pass(image, size[1], axis=1)
    return _pillow_pass(columns, size[0], axis=0)


def resize_torch(image: Image, size: tuple[int, int]) -> Floats:
    """Resize (h, w, c) to float32 like torch, bilinear.

    Source: torch.nn.functional.interpolate(mode="bilinear"), with half-pixel centres.
    """
    rows, cols = (linear_taps(n, m) for n, m in zip(image.shape, size, strict=False))
    pixels = image.astype(np.float32)
    wide = sum_in_order(pixels[:, index] * weight[:, None] for index, weight in zip(*cols, strict=True))
    return sum_in_order(wide[index] * weight[:, None, None] for index, weight in zip(*rows, strict=True))


def resize_torch_antialias(image: Image, size: tuple[int, int]) -> Floats:
    """Resize (h, w, c) to float32 like torch, antialiased.

    Source: torch.nn.functional.interpolate(mode="bilinear", antialias=True).
    """
    columns = _weighted_pass(image.astype(np.float32), size[1], axis=1)
    return _weighted_pass(columns, size[0], axis=0)


def resize_nearest(image: Image, size: tuple[int, int]) -> Image:
    """Resize (h, w, c) uint8 like torch, nearest.

    It takes the floor of the float32 source position.

    Source: torch.nn.functional.interpolate(mode="nearest").
    """
    y, x = (nearest_indices(n, m) for n, m in zip(image.shape, size, strict=False))
    return image[y[:, None], x]


RESIZE: dict[str, Callable[[Image, tuple[int, int]], NDArray[Any]]] = {
    "opencv": resize_opencv,
    "pillow": resize_pillow,
    "torch": resize_torch,
    "torch-antialias": resize_torch_antialias,
    "nearest": resize_nearest,
}


def _pillow_pass(image: Image, m: int, axis: int) -> Image:
    total: NDArray[Any] = np.array(1 << 21)
    for index, weight in triangle_taps(image.shape[axis], m, np.float64):
        fixed = (weight * (1 << 22) + 0.5).astype(np.int64)
        total = total + image.take(index, axis) * np.expand_dims(fixed, tuple({0, 1, 2} - {axis}))
    resized: Image = np.clip(total >> 22, 0, 255).astype(np.uint8)
    return resized


def _weighted_pass(image: Floats, m: int, axis: int) -> Floats:
    total: NDArray[Any] = np.array(0, np.float32)
    for index, weight in triangle_taps(image.shape[axis], m, np.float32):
        total = total + image.take(index, axis) * np.expand_dims(weight, tuple({0, 1, 2} - {axis}))
    return total


def normalize(pixels: NDArray[Any], gain: Floats, bias: Floats) -> Floats:
    """Return `pixels * gain + bias` per channel.

    The result is (h, w, c) float32. Each operation is rounded to float32.
    """
    return pixels.astype(np.float32) * gain + bias
