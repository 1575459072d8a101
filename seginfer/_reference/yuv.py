"""Conversion of YUV images to RGB."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .taps import Image

YuvMatrix = Literal["bt601", "bt709", "bt2020"]
YuvRange = Literal["limited", "full"]

_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Weights of red and blue in the luma, Kr and Kb."""


class Coefficients(NamedTuple):
    """Conversion to RGB in 20-bit fixed point."""

    black: int
    """Luma of black. Lower values count as black."""
    luma: int
    red_v: int
    green_u: int
    green_v: int
    blue_u: int


def coefficients(matrix: YuvMatrix, values: YuvRange) -> Coefficients:
    """Return the coefficients of a matrix and a range.

    Source: ITU-R BT.601-7, BT.709-6, BT.2020-2 (non-constant luminance). ITU-T H.273 has the formula for all of them.
    """
    if (matrix, values) == ("bt601", "limited"):
        # OpenCV's, from three decimals, so that images equal those of cv2.cvtColor. At most one level off the formula.
        return Coefficients(16, 1220542, 1673527, 409993, 852492, 2116026)
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    black, luma, chroma = (16, 255 / 219, 255 / 224) if values == "limited" else (0, 1.0, 1.0)
    red_v, blue_u = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    factors = luma, red_v, blue_u * blue / green, red_v * red / green, blue_u
    return Coefficients(black, *(round(factor * (1 << 20)) for factor in factors))


def rgb_from_yuv(y: NDArray[Any], u: NDArray[Any], v: NDArray[Any], k: Coefficients) -> Image:
    """Convert YUV to (..., 3) uint8 RGB.

    Source: the rounding of cv2.cvtColor(COLOR_YUV2RGB_NV12).
    """
    luma = np.maximum(y.astype(np.int32) - k.black, 0) * k.luma + (1 << 19)
    u, v = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    channels = (luma + v * k.red_v, luma - v * k.green_v - u * k.green_u, luma + u * k.blue_u)
    rgb: Image = np.clip(np.stack(channels, -1) >> 20, 0, 255).astype(np.uint8)
    return rgb


def yuv_planes(image: Image, layout: str) -> tuple[Image, Image, Image]:
    """Return Y, U and V of each pixel, (H, W).

    Args:
        image: (H * 3 / 2, W) for "nv12", "nv21" and "i420", whose chroma covers 2 x 2 pixels. (H, W, 2) for "yuyv" and
            "uyvy", whose chroma covers two pixels of a row.
        layout: one of these.
    """
    if layout in ("yuyv", "uyvy"):
        luma = ("yuyv", "uyvy").index(layout)
        u, v = (image[:, first::2, 1 - luma].repeat(2, 1) for first in (0, 1))
        return image[..., luma], u, v
    height, width = image.shape[0] // 3 * 2, image.shape[1]
    if layout == "i420":
        u, v = image[height:].reshape(2, height // 2, width // 2)
    else:
        u, v = np.moveaxis(image[height:].reshape(height // 2, width // 2, 2), 2, 0)
    u, v = (plane.repeat(2, 0).repeat(2, 1) for plane in ((v, u) if layout == "nv21" else (u, v)))
    return image[:height], u, v
