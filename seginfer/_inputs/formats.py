"""Image formats: validation, sizes and conversion to RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .._cuda.arrays import DeviceArray
from .._errors import InputError
from .._geometry.geometry import Size
from .._reference.yuv import Coefficients, YuvMatrix, YuvRange, coefficients, rgb_from_yuv, yuv_planes
from .._spec.model_spec import MAX_SIDE, InputSpec

YuvLayout = Literal["nv12", "nv21", "i420", "yuyv", "uyvy"]
PixelLayout = Literal["rgb", "bgr", "rgba", "bgra", "gray", YuvLayout]
"""Order of the bytes of an image, always uint8.

nv12, nv21 and i420 are (H * 3 / 2, W): luma rows above chroma rows, as in OpenCV and V4L2. yuyv and uyvy are (H, W, 2).
"""

YUV_420 = ("nv12", "nv21", "i420")
YUV_422 = ("yuyv", "uyvy")


@dataclass(frozen=True)
class YuvFormat:
    """YUV images with their matrix and range.

    The name of a layout alone means BT.601 with limited range, as in OpenCV. HD cameras usually have BT.709.

    Raises:
        InputError: if a field has another value.
    """

    layout: YuvLayout
    matrix: YuvMatrix
    """Weights of the colours in the luma. "bt2020" is the one of non-constant luminance."""
    range: YuvRange
    """Luma of black and white: 16..235 if "limited", and 0..255, as in JPEG, if "full"."""

    def __post_init__(self) -> None:
        for name, values in (
            ("layout", get_args(YuvLayout)), ("matrix", get_args(YuvMatrix)), ("range", get_args(YuvRange)),
        ):  # fmt: skip
            if getattr(self, name) not in values:
                raise InputError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}")


PixelFormat = PixelLayout | YuvFormat
"""Format of an image. A YUV layout alone is BT.601 with limited range."""

_SHAPES: dict[str, str] = {
    "rgb": "(H, W, 3)",
    "bgr": "(H, W, 3)",
    "rgba": "(H, W, 4)",
    "bgra": "(H, W, 4)",
    "gray": "(H, W) or (H, W, 1)",
    **dict.fromkeys(YUV_420, "(H * 3 / 2, W) with even H and W"),
    **dict.fromkeys(YUV_422, "(H, W, 2) with even W"),
}
_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "gray": 1, "yuyv": 2, "uyvy": 2}


def parts_of(color: PixelFormat) -> tuple[PixelLayout, YuvMatrix, YuvRange]:
    """Return layout, matrix and range of a format.

    Only those of a YUV layout have a meaning.
    """
    # A large image is not taken for BT.709: formats are never guessed, and cv2.cvtColor has BT.601 for every size.
    return (color.layout, color.matrix, color.range) if isinstance(color, YuvFormat) else (color, "bt601", "limited")


def coefficients_of(color: PixelFormat) -> Coefficients:
    """Return the conversion of a YUV format to RGB."""
    return coefficients(*parts_of(color)[1:])


def resolve_color(color: PixelFormat | None, spec: InputSpec) -> PixelFormat:
    """Validate the image format.

    None becomes "rgb", or "gray" for a gray model.

    Raises:
        InputError: if the network does not take images of this format.
    """
    if color is None:
        return "gray" if spec.color == "gray" else "rgb"
    if not isinstance(color, YuvFormat) and color not in get_args(PixelLayout):
        names = ", ".join(map(repr, get_args(PixelLayout)))
        raise InputError(f"color must be {names} or a YuvFormat, got {color!r}")
    if (color == "gray") != (spec.color == "gray"):
        raise InputError(f"the network takes {spec.color} images, got color={color!r}; convert them first")
    return color


def check_image(image: object, color: PixelFormat) -> None:
    """Check dtype, shape and strides of an image.

    Raises:
        InputError: if the image does not have this format.
    """
    layout = parts_of(color)[0]
    shape = _SHAPES[layout]
    if not isinstance(image, (np.ndarray, DeviceArray)):
        raise InputError(f"image must be a NumPy array uint8 {shape}, got {type(image).__name__}; use numpy.asarray")
    got = f"got {image.dtype} {image.shape}"
    if image.dtype != np.uint8:
        raise InputError(f"image must be uint8 {shape} with values 0..255, {got}; do not normalise, the spec does")
    if not _has_shape(image, layout):
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
    if isinstance(image, DeviceArray):
        _check_rows(image, layout)


def _check_rows(image: DeviceArray, layout: PixelLayout) -> None:
    """Check that kernels can read a tensor where it lies.

    Raises:
        InputError: if pixels of a row, or rows of i420, do not lie side by side.
    """
    packed = tuple(math.prod(image.shape[axis + 1 :]) for axis in range(image.ndim))
    differs = [a != b and side > 1 for side, a, b in zip(image.shape, image.strides, packed, strict=True)]
    if any(differs[1:]) or (differs[0] and (layout == "i420" or image.strides[0] < packed[0])):
        raise InputError(
            f"a tensor on a GPU must have pixels of uint8 {_SHAPES[layout]} side by side, strides {packed} in bytes, "
            f"got {image.strides}; make it contiguous, in PyTorch with .permute(1, 2, 0).contiguous() if channels are "
            "first"
        )


def _has_shape(image: NDArray[Any] | DeviceArray, layout: PixelLayout) -> bool:
    if layout in YUV_420:
        return image.ndim == 2 and image.shape[0] % 3 == 0 and image.shape[1] % 2 == 0
    if layout in YUV_422 and image.ndim == 3 and image.shape[1] % 2:
        return False
    return (image.ndim == 3 and image.shape[2] == _CHANNELS[layout]) or (layout == "gray" and image.ndim == 2)


def image_size(image: NDArray[np.uint8], color: PixelFormat) -> Size:
    """Return (height, width) of a valid image in pixels."""
    height, width = image.shape[:2]
    return (height // 3 * 2 if parts_of(color)[0] in YUV_420 else height), width


def check_size(size: Any) -> Size | None:
    """Validate a (height, width), or None.

    Raises:
        InputError: if it is not two integers of 1..MAX_SIDE.
    """
    if size is None:
        return None
    is_pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not is_pair or any(type(side) is not int or not 1 <= side <= MAX_SIDE for side in size):
        raise InputError(f"image_hw must be (height, width), two integers of 1..{MAX_SIDE}, got {size!r}")
    return size[0], size[1]


def even(size: Size) -> Size:
    """Round a size up to even sides.

    Every format has such sizes.
    """
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def image_shape(size: Size, color: PixelFormat) -> tuple[int, ...]:
    """Return the array shape of an image.

    `size` is (height, width) in pixels.
    """
    (height, width), layout = size, parts_of(color)[0]
    if layout in YUV_420:
        return height * 3 // 2, width
    return (height, width) if layout == "gray" else (height, width, _CHANNELS[layout])


def pattern_image(size: Size, color: PixelFormat) -> NDArray[np.uint8]:
    """Return a patterned image of (height, width) pixels."""
    # Networks that divide by the spread of an image fail on a constant one.
    shape = image_shape(size, color)
    return (np.arange(math.prod(shape)) % 251).astype(np.uint8).reshape(shape)


def pixels_of(image: NDArray[np.uint8], color: PixelFormat) -> tuple[NDArray[np.uint8], PixelFormat]:
    """Convert an image to RGB, BGR or gray.

    The image must be valid. Returns the pixels, (H, W, 3) or (H, W, 1) for gray, and their format.
    """
    layout = parts_of(color)[0]
    if layout in get_args(YuvLayout):
        return rgb_from_yuv(*yuv_planes(image, layout), coefficients_of(color)), "rgb"
    if layout in ("rgba", "bgra"):
        return image[..., :3], "rgb" if layout == "rgba" else "bgr"
    return image.reshape(*image.shape[:2], -1), layout
