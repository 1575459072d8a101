"""Image files, read and written with OpenCV."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, OutputWriteError
from .._system.atomic import atomic_path
from .._system.environment import require
from .files import check_file

Image = NDArray[np.uint8]

_JPEG_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # markers that scans do not hold

_TURNED = re.compile(rb"irot[\x01-\x03]|imir")  # boxes of AVIF (ISO/IEC 23008-12)

_LOW = 1 << 14
"""16-bit pictures below this hold 8 to 14 bits, as far as one can tell."""


def _cv2() -> Any:
    return require("cv2", extra="cli", purpose="reading and writing images")


def is_image(path: str | Path) -> bool:
    """Tell from its first bytes whether OpenCV reads a file. False for what is no regular file."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return bool(_cv2().haveImageReader(_name(file)))
    except OSError:  # reported when it is read
        return False


def read_image(path: str | Path, *, gray: bool = False) -> Image:
    """Read an image file, with its EXIF orientation applied.

    16 bits per channel are divided by 256.

    Returns:
        (H, W, 3) uint8 RGB, or (H, W) uint8 if `gray`.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if OpenCV cannot read it or ignores its orientation, it is cut off, it holds several pictures, or
            the highest of its 16 bits are not used.
    """
    cv2 = _cv2()
    check_file(path, "image")
    flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    try:
        with open(path, "rb") as file, _silence():
            image = _decoded(cv2, path, file, flags)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except cv2.error as error:
        remedy = "cut it, or set OPENCV_IO_MAX_IMAGE_PIXELS" if "CV_IO_MAX_IMAGE" in str(error) else "convert it to PNG"
        raise InputError(f"OpenCV cannot read {path}: {' '.join(str(error).split())}; {remedy}") from error
    return np.asarray(image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _decoded(cv2: Any, path: str | Path, file: BinaryIO, flags: int) -> NDArray[Any]:
    encoded = np.fromfile(file, np.uint8)
    # Older OpenCV fills the rest of a JPEG with what its memory holds. For a PNG it allocates what a length says.
    if _is_cut_jpeg(encoded.data) or _is_cut_png(encoded.data):
        raise InputError(f"{path} breaks off; copy it again")
    if _is_turned(cv2, encoded.data):
        raise InputError(f"{path} is turned in a way that OpenCV {cv2.__version__} ignores; convert it to JPEG or PNG")
    image: NDArray[Any] | None = cv2.imdecode(encoded, flags | cv2.IMREAD_ANYDEPTH) if encoded.size else None
    if image is None:
        raise InputError(f"{path} is not an image that OpenCV can read; convert it to PNG or JPEG")
    if (count := cv2.imcount(_name(file))) > 1:
        raise InputError(f"{path} holds {count} pictures, expected one; save each as a file, or convert it to a video")
    if image.dtype != np.uint8:
        deep, image = image, cv2.imdecode(encoded, flags)
        _check_depth(path, deep, image)
    return image


def _name(file: BinaryIO) -> str:
    # OpenCV crashes at a path that is not UTF-8.
    return f"/proc/self/fd/{file.fileno()}"


@contextmanager
def _silence() -> Iterator[None]:
    """Discard what libraries print to standard error. Errors are raised as well."""
    with open(os.devnull, "w") as null:
        kept = os.dup(2)
        try:
            os.dup2(null.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _is_cut_jpeg(data: memoryview) -> bool:
    """Tell whether a JPEG has no end marker (ITU-T T.81). That of a thumbnail in a segment does not count."""
    if bytes(data[:2]) != b"\xff\xd8":
        return False
    at = 2
    while found := _JPEG_SEGMENT.search(data, at):
        if found[0] == b"\xff\xd9":
            return False
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return True


def _is_cut_png(data: memoryview) -> bool:
    """Tell whether a PNG ends before its last chunk (ISO/IEC 15948)."""
    if bytes(data[:8]) != b"\x89PNG\r\n\x1a\n":
        return False
    at, kind = 8, b""
    while at + 12 <= len(data) and kind != b"IEND":
        kind = bytes(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return kind != b"IEND" or at > len(data)


def _is_turned(cv2: Any, data: memoryview) -> bool:
    """Tell whether OpenCV ignores the orientation of a picture: in AVIF, and before 4.13 in WebP."""
    head = bytes(data[:32])
    if head[4:8] == b"ftyp":
        return _TURNED.search(bytes(data).partition(b"mdat")[0]) is not None
    is_old = tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 13)
    return is_old and head[8:16] == b"WEBPVP8X" and bool(head[20] & 8)  # it holds EXIF


def _check_depth(path: str | Path, deep: NDArray[Any], image: NDArray[np.uint8]) -> None:
    """Raise if 8 bits of a deeper picture lose what it holds."""
    if deep.dtype != np.uint16:
        raise InputError(f"{path} holds {deep.dtype} values, expected 8 or 16 bits; convert it to 8 bits per channel")
    highest = int(deep.max())
    # Where the format states its number of bits, OpenCV scales by it, and `image` is brighter than that.
    if 0 < highest < _LOW and image.max() <= highest // 256 + 1:
        raise InputError(
            f"{path} has 16 bits per channel, and its highest value is {highest}, expected the range 0..65535; "
            f"multiply it by {65535 // highest}, or convert it to 8 bits per channel"
        )


def encode_image(suffix: str, image: NDArray[Any]) -> bytes:
    """Encode an image in the format of a suffix.

    Args:
        suffix: such as ".png".
        image: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.

    Raises:
        OutputWriteError: if the suffix is unknown, or the format does not support the image.
    """
    cv2 = _cv2()
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        is_ok, encoded = cv2.imencode(suffix, pixels)
    except cv2.error:  # it does not know the suffix, or there are too many pixels
        is_ok = False
    if not is_ok:
        raise OutputWriteError(f"OpenCV cannot write {image.dtype} {image.shape} as {suffix!r}; use .png")
    return bytes(encoded)


def write_image(path: str | Path, image: NDArray[Any]) -> None:
    """Write an image file atomically, in the format of its suffix.

    Raises:
        OutputWriteError: as of `encode_image`, or if the file system refuses.
    """
    encoded = encode_image(Path(path).suffix, image)
    with atomic_path(path) as part:
        part.write_bytes(encoded)
