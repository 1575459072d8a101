"""Pictures and video on disk, through OpenCV: always uint8, RGB or gray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ._atomic import atomic_path
from ._errors import InputError, MissingFileError, OutputWriteError
from ._optional import require

Image = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})


class VideoSink(Protocol):
    """Takes the frames of a video, one by one."""

    def write(self, image: Image) -> None:
        """Append one (H, W, 3) uint8 RGB frame."""


def _cv2() -> Any:
    return require("cv2", extra="cli", purpose="reading and writing pictures")


def read_image(path: str | Path, *, gray: bool = False) -> Image:
    """Read a picture as (H, W, 3) uint8 RGB, or (H, W) if `gray`; EXIF orientation is applied.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a readable picture.
    """
    cv2 = _cv2()
    if not Path(path).is_file():
        raise MissingFileError(f"no picture at {path}; check the path")
    encoded = np.fromfile(path, np.uint8)
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


def read_video(path: str | Path) -> Iterator[Image]:
    """Yield the frames of a video as (H, W, 3) uint8 RGB.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it holds no readable frame.
    """
    cv2 = _cv2()
    with _capture(path) as capture:
        is_ok, frame = capture.read()
        if not is_ok:
            raise InputError(f"{path} holds no frame that OpenCV can read; convert it to MP4 or WebM")
        while is_ok:
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
            is_ok, frame = capture.read()


def video_frame_rate(path: str | Path) -> float:
    """Return frames per second; 25 where the file does not say."""
    with _capture(path) as capture:
        return float(capture.get(_cv2().CAP_PROP_FPS)) or 25.0


def video_length(path: str | Path) -> int:
    """Return the number of frames that the file claims; 0 where it does not say."""
    with _capture(path) as capture:
        return max(0, int(capture.get(_cv2().CAP_PROP_FRAME_COUNT)))


@contextmanager
def video_writer(path: str | Path, size: tuple[int, int], frame_rate: float) -> Iterator[VideoSink]:
    """Write a WebM (VP8) video, which every browser plays; the file appears when the block ends without error.

    Args:
        path: must end in .webm.
        size: (height, width) of the frames.
        frame_rate: frames per second.

    Raises:
        OutputWriteError: if the file cannot be written.
    """
    cv2 = _cv2()
    with atomic_path(path) as part:
        writer = cv2.VideoWriter(str(part), cv2.VideoWriter_fourcc(*"VP80"), frame_rate, size[::-1])
        if not writer.isOpened():
            raise OutputWriteError(f"cannot write {path}: OpenCV opens no WebM writer there; check the folder")
        try:
            yield _Video(writer)
        finally:
            writer.release()


class _Video:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, image: Image) -> None:
        self._writer.write(_cv2().cvtColor(image, _cv2().COLOR_RGB2BGR))


@contextmanager
def _capture(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise MissingFileError(f"no video at {path}; check the path")
    capture = _cv2().VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()
