"""Conversion of what holds an image to a NumPy array."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._cuda.arrays import DeviceArray, is_on_gpu
from .._errors import InputError
from .._reference.taps import Mask
from .formats import PixelFormat


class HasArray(Protocol):
    """Image of Pillow, or whatever else has NumPy's array interface."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """See NumPy."""


class HasDLPack(Protocol):
    """Tensor of PyTorch, or of any library that exchanges tensors by DLPack."""

    def __dlpack__(self) -> Any:
        """See the array API standard."""


class HasCudaArray(Protocol):
    """Tensor of CuPy or Numba, or whatever else has the CUDA array interface."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """See Numba."""


ImageLike: TypeAlias = NDArray[np.uint8] | str | os.PathLike[str] | HasArray | HasDLPack | HasCudaArray
"""Whatever holds an image. See `Segmenter.__call__`."""

MaskLike: TypeAlias = Mask | HasDLPack | HasCudaArray
"""Whatever takes a mask: an array of the host, or a tensor on a GPU."""

_MODES: dict[Any, str] = {"rgb": "RGB", "bgr": "RGB", "rgba": "RGBA", "bgra": "RGBA", "gray": "L"}  # of Pillow


def as_array(image: Any, color: PixelFormat, adopt: Callable[[Any], DeviceArray] | None = None) -> Any:
    """Return an image as an array in a format.

    Arrays are returned as they are, or copied if a stride is negative, as in `frame[..., ::-1]`.

    Args:
        image: an array, a path of an image file, an image of Pillow, or a tensor of PyTorch or anything else with
            `__dlpack__`. A tensor may be (C, H, W) too, on a GPU as a view of (H, W, C). A path is turned upright as
            its metadata state. An image of Pillow is taken as it is.
        color: format of the result. Files and images of Pillow are converted to it.
        adopt: takes a tensor in memory of a GPU. None if only host memory is read.

    Raises:
        InputError: if a file cannot be read, a format cannot be made of it, or a tensor is not in host memory.
        MissingFileError: if there is no such file.
    """
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image) if any(stride < 0 for stride in image.strides) else image
    if isinstance(image, (str, os.PathLike)):
        from .._media.images import read_image

        return _from_rgb(read_image(os.fspath(image), gray=color == "gray"), color)
    if hasattr(image, "convert") and hasattr(image, "getbands"):  # Pillow
        return _from_rgb(_from_pillow(image, _mode(color)), color)
    if is_on_gpu(image):
        if adopt is None:
            raise InputError(f"image must be in host memory, got {type(image).__name__} on a GPU; copy it with .cpu()")
        found = adopt(image)
        return found.channels_last() if _is_channels_first(found, color) else found
    if hasattr(image, "__dlpack__"):
        return _from_tensor(image, color)
    return np.asarray(image) if hasattr(image, "__array_interface__") else image


def _from_pillow(image: Any, mode: str) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):  # `convert` would cut their values at 255
        raise InputError(f"image of Pillow has mode {image.mode}; scale it to 8 bits, or give its path")
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"image of Pillow holds {image.n_frames} pictures; give a copy() of each")
    try:
        return np.asarray(image.convert(mode))
    except OSError as error:  # a file that is read only now
        raise InputError(f"image of Pillow cannot be read: {error}; copy its file again") from error


def _mode(color: PixelFormat) -> str:
    if color not in _MODES:
        raise InputError(f"a file or an image of Pillow has no {color} pixels; open the model with color='rgb'")
    return _MODES[color]


def _from_rgb(image: NDArray[np.uint8], color: PixelFormat) -> NDArray[np.uint8]:
    _mode(color)
    if color in ("rgba", "bgra") and image.shape[2] == 3:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    if color in ("bgr", "bgra"):
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    return np.ascontiguousarray(image)


def _from_tensor(tensor: Any, color: PixelFormat) -> NDArray[Any]:
    try:
        array = np.from_dlpack(tensor.detach() if hasattr(tensor, "detach") else tensor)
    except Exception as error:  # libraries raise many kinds for memory of a device
        raise InputError(
            f"image must be in host memory, got {type(tensor).__name__} ({error}); copy it, in PyTorch with .cpu()"
        ) from error
    return np.ascontiguousarray(np.moveaxis(array, 0, -1) if _is_channels_first(array, color) else array)


def _is_channels_first(array: Any, color: PixelFormat) -> bool:
    channels = len(_MODES.get(color, "").replace("L", "1"))
    return bool(array.ndim == 3 and array.shape[0] == channels and array.shape[2] != channels)
