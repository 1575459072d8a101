"""Video files, read and written with PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, MissingFileError, OutputWriteError
from .._system.atomic import atomic_path
from .._system.environment import require

Image = NDArray[np.uint8]

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})

_CODEC = "libvpx-vp9"  # royalty-free, and every browser plays it
_CODEC_OPTIONS = {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"}


class VideoReader:
    """Iterable over the frames of a video file.

    Frames are (H, W, 3) uint8 RGB.

    Args:
        path: any video that FFmpeg reads.
        gray: yield (H, W) uint8 frames instead.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a readable video. Also during iteration, at a damaged frame.
    """

    def __init__(self, path: str | Path, *, gray: bool = False) -> None:
        if not Path(path).exists():
            raise MissingFileError(f"no video at {path}; check the path")
        self._path = path
        self._format = "gray" if gray else "rgb24"
        with self._open() as stream:
            self.frame_rate = Fraction(stream.average_rate or 25).limit_denominator(1001)
            seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
            if not seconds and stream.container.duration:
                seconds = stream.container.duration / _av().time_base
            self.approximate_length = stream.frames or round(seconds * self.frame_rate)
            """Number of frames in the header of the file, 0 if unknown."""

    def __iter__(self) -> Iterator[Image]:
        count = 0
        with self._open() as stream:
            for frame in stream.container.decode(stream):
                count += 1
                yield frame.to_ndarray(format=self._format)
        if not count:
            raise InputError(f"{self._path} holds no readable frame; convert it to MP4 or WebM")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        av = _av()
        try:
            with av.open(str(self._path)) as container:
                if not container.streams.video:
                    raise InputError(f"{self._path} holds no video; expected MP4, WebM or another video file")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield stream
        except av.FFmpegError as error:
            raise InputError(f"{self._path} is not a readable video ({error}); convert it to MP4 or WebM") from error


class VideoSink:
    """Writer of the frames of a video."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container = container
        self._stream = stream

    def write(self, image: Image) -> None:
        """Append one (H, W, 3) uint8 RGB frame."""
        frame = _av().VideoFrame.from_ndarray(image, format="rgb24")
        self._container.mux(self._stream.encode(frame))


@contextmanager
def video_writer(path: str | Path, size: tuple[int, int], frame_rate: Fraction) -> Iterator[VideoSink]:
    """Write a WebM (VP9) video atomically.

    The file appears when the block ends without an error.

    Args:
        path: must end in .webm.
        size: (height, width) of the frames.
        frame_rate: frames per second.

    Raises:
        OutputWriteError: if the file cannot be written.
    """
    av = _av()
    with atomic_path(path) as part:
        try:
            with av.open(str(part), "w", format="webm") as container:
                stream = container.add_stream(_CODEC, rate=frame_rate, options=_CODEC_OPTIONS)
                stream.height, stream.width = size
                stream.pix_fmt = "yuv420p"
                yield VideoSink(container, stream)
                container.mux(stream.encode())
        except av.FFmpegError as error:
            raise OutputWriteError(f"cannot write {path}: {error}; check the folder and its free space") from error


def _av() -> Any:
    return require("av", extra="cli", purpose="reading and writing video")
