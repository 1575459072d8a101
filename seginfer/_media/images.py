"""Image files, read and written with OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, MissingFileError, OutputWriteError
from .._system.atomic import atomic_path
from .._system.environment import require

Image = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def _cv2() -> Any:
    return require("cv2", extra="cli", purpose="reading and writing images")


def read_image(path: str | Path, *, gray: bool = False) -> Image:
    """Read an image file, with its EXIF orientation applied.

    Returns:
        (H, W, 3) uint8 RGB, or (H, W) uint8 if `gray`.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if OpenCV cannot read it.
    """
    cv2 = _cv2()
    if not Path(path).exists():
        raise MissingFileError(f"no image at {path}; check the path")
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        raise InputError(f"{path} is not an image that OpenCV can read; convert it to PNG or JPEG")
    return np.asarray(image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def write_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write an image file atomically.

    Args:
        path: the suffix selects the format.
        image: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

    Raises:
        OutputWriteError: if the suffix is unknown or the file system refuses.
    """
    cv2 = _cv2()
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        is_ok, encoded = cv2.imencode(Path(path).suffix, pixels)
    except cv2.error as error:
        raise OutputWriteError(f"cannot write {path}: unknown image format; use the suffix .png or .jpg") from error
    if not is_ok:
        raise OutputWriteError(
            f"cannot write {path}: the format does not support {image.dtype} {image.shape}; use .png"
        )
    with atomic_path(path) as part:
        part.write_bytes(encoded.tobytes())
