"""Pictures on disk, through OpenCV: always uint8, RGB or gray."""

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
    return require("cv2", extra="cli", purpose="reading and writing pictures")


def read_image(path: str | Path, *, gray: bool = False) -> Image:
    """Read a picture as (H, W, 3) uint8 RGB, or (H, W) if `gray`; EXIF orientation is applied.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a readable picture.
    """
    cv2 = _cv2()
    if not Path(path).exists():
        raise MissingFileError(f"no picture at {path}; check the path")
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    image = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        raise InputError(f"{path} is not a picture that OpenCV can read; convert it to PNG or JPEG")
    return np.asarray(image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def write_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB, in the format of the suffix; atomic.

    Raises:
        OutputWriteError: if the suffix is unknown or the file system refuses.
    """
    cv2 = _cv2()
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        is_ok, encoded = cv2.imencode(Path(path).suffix, pixels)
    except cv2.error as error:
        raise OutputWriteError(f"cannot write {path}: no such picture format; use the suffix .png or .jpg") from error
    if not is_ok:
        raise OutputWriteError(f"cannot write {path}: that format does not take {image.dtype} {image.shape}; use .png")
    with atomic_path(path) as part:
        part.write_bytes(encoded.tobytes())
