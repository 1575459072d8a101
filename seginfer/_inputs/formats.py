"""Image formats: validation, sizes and conversion to RGB."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError
from .._geometry.geometry import Size
from .._reference.resize import rgb_from_nv12, rgb_from_yuyv
from .._spec.model_spec import MAX_SIDE, InputSpec

PixelFormat = Literal["rgb", "bgr", "rgba", "bgra", "gray", "nv12", "yuyv"]
"""Layout of an image, always uint8.

nv12 is (H * 3 / 2, W): luma rows above chroma rows, as in OpenCV and V4L2. yuyv is (H, W, 2). Both are BT.601 with
limited range and have an even width.
"""

_SHAPES: dict[str, str] = {
    "rgb": "(H, W, 3)",
    "bgr": "(H, W, 3)",
    "rgba": "(H, W, 4)",
    "bgra": "(H, W, 4)",
    "gray": "(H, W) or (H, W, 1)",
    "nv12": "(H * 3 / 2, W) with even H and W",
    "yuyv": "(H, W, 2) with even W",
}
_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "gray": 1, "yuyv": 2}


def resolve_color(color: PixelFormat | None, spec: InputSpec) -> PixelFormat:
    """Validate the image format.

    None becomes "rgb", or "gray" for a gray model.

    Raises:
        InputError: if the network does not take images of this format.
    """
    if color is None:
        return "gray" if spec.color == "gray" else "rgb"
    if color not in get_args(PixelFormat):
        *others, last = map(repr, get_args(PixelFormat))
        raise InputError(f"color must be {', '.join(others)} or {last}, got {color!r}")
    if (color == "gray") != (spec.color == "gray"):
        raise InputError(f"the network takes {spec.color} images, got color={color!r}; convert them first")
    return color


def check_image(image: object, color: PixelFormat) -> None:
    """Check dtype, shape and strides of an image.

    Raises:
        InputError: if the image does not have this format.
    """
    shape = _SHAPES[color]
    if not isinstance(image, np.ndarray):
        raise InputError(f"image must be a NumPy array uint8 {shape}, got {type(image).__name__}; use numpy.asarray")
    got = f"got {image.dtype} {image.shape}"
    if image.dtype != np.uint8:
        raise InputError(f"image must be uint8 {shape} with values 0..255, {got}; do not normalise, the spec does")
    if not _has_shape(image, color):
        raise InputError(f"image must be uint8 {shape}, {got}; reorder or drop channels first")
    if 0 in image.shape:
        raise InputError(f"image must not be empty, {got}")
    if max(image.shape) > MAX_SIDE:
        raise InputError(f"image must have sides of at most {MAX_SIDE}, {got}; cut it")
    if any(stride < 0 for stride in image.strides):
        raise InputError(
            "image must not have negative strides; use numpy.ascontiguousarray, "
            "or state the channel order with color= instead of flipping it"
        )


def _has_shape(image: NDArray[Any], color: PixelFormat) -> bool:
    if color == "nv12":
        return image.ndim == 2 and image.shape[0] % 3 == 0 and image.shape[1] % 2 == 0
    if color == "yuyv" and image.ndim == 3 and image.shape[1] % 2:
        return False
    return (image.ndim == 3 and image.shape[2] == _CHANNELS[color]) or (color == "gray" and image.ndim == 2)


def image_size(image: NDArray[np.uint8], color: PixelFormat) -> Size:
    """Return (height, width) of a valid image in pixels."""
    height, width = image.shape[:2]
    return (height // 3 * 2 if color == "nv12" else height), width


def even(size: Size) -> Size:
    """Round a size up to even sides.

    Every format has such sizes.
    """
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def image_shape(size: Size, color: PixelFormat) -> tuple[int, ...]:
    """Return the array shape of an image.

    `size` is (height, width) in pixels.
    """
    height, width = size
    if color == "nv12":
        return height * 3 // 2, width
    return (height, width) if color == "gray" else (height, width, _CHANNELS[color])


def pattern_image(size: Size, color: PixelFormat) -> NDArray[np.uint8]:
    """Return a patterned image of (height, width) pixels."""
    # Networks that divide by the spread of an image fail on a constant one.
    shape = image_shape(size, color)
    return (np.arange(math.prod(shape)) % 251).astype(np.uint8).reshape(shape)


def pixels_of(image: NDArray[np.uint8], color: PixelFormat) -> tuple[NDArray[np.uint8], PixelFormat]:
    """Convert an image to RGB, BGR or gray.

    The image must be valid. Returns the pixels, (H, W, 3) or (H, W, 1) for gray, and their format.
    """
    if color == "nv12":
        return rgb_from_nv12(image), "rgb"
    if color == "yuyv":
        return rgb_from_yuyv(image), "rgb"
    if color in ("rgba", "bgra"):
        return image[..., :3], "rgb" if color == "rgba" else "bgr"
    return image.reshape(*image.shape[:2], -1), color
