"""Video files, read and written with PyAV (FFmpeg)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, MissingDependencyError, OutputWriteError
from .._system.atomic import atomic_path
from .._system.environment import require
from .files import check_file

Image = NDArray[np.uint8]

_CODEC = "libvpx-vp9"  # royalty-free, and every browser plays it
_CODEC_OPTIONS = {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"}
_TICK = Fraction(1, 1000)  # WebM has no finer time stamps
_UNSPECIFIED = 2  # FFmpeg's code for unknown colour primaries and transfer characteristics


class VideoReader:
    """Iterable over the frames of a video file, as players show them.

    They are upright, and decoded with the matrix that the file names. Frames are (H, W, 3)
    uint8 RGB. Files that name no matrix are decoded with that of BT.601, as by FFmpeg.

    Args:
        path: any video that FFmpeg reads. Of several video streams, FFmpeg's choice is read.
        gray: yield (H, W) uint8 frames instead.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a readable video. Also during iteration, at a damaged frame, or where frames are
            missing at the end.
    """

    def __init__(self, path: str | Path, *, gray: bool = False) -> None:
        check_file(path, "video")
        self._path = path
        self._format = "gray" if gray else "rgb24"
        with self._open() as stream:
            rate = max(Fraction(stream.average_rate or 0), Fraction(0)) or Fraction(25)
            self.frame_rate = rate.limit_denominator(1001) or rate
            self._end = _end(stream)
            self._is_avi = stream.container.format.name == "avi"
            self.approximate_length = max(0, stream.frames or round((self._end or 0) * self.frame_rate))
            """Number of frames in the header of the file, 0 if unknown."""

    def __iter__(self) -> Iterator[Image]:
        return (image for _, image in self.timed())

    def timed(self) -> Iterator[tuple[Fraction, Image]]:
        """Yield the time of each frame in seconds after the first, and the frame."""
        count = 0
        start = end = Fraction(0)
        with self._open() as stream:
            for frame in self._frames(stream):
                time = end if frame.pts is None else frame.pts * frame.time_base
                start = start if count else time
                end = time + (frame.duration * frame.time_base if frame.duration else 1 / self.frame_rate)
                count += 1
                yield time - start, self._pixels(frame)
        if not count:
            raise InputError(f"{self._path} holds no readable frame; convert it to MP4 or WebM")
        # AVI has no time stamps, and its empty frames fill gaps: the last frames may seem two early.
        slack = 5 * end / count / 2 if self._is_avi else 1 / self.frame_rate / 2
        if self._end is not None and self._end - end > slack + _TICK:
            raise InputError(
                f"{self._path} breaks off after {count} frames, at {float(end):.2f} of {float(self._end):.2f} seconds; "
                "copy it again"
            )

    def _frames(self, stream: Any) -> Iterator[Any]:
        count = damaged = 0
        try:
            for packet in stream.container.demux(stream):
                damaged += packet.is_corrupt
                for frame in packet.decode():
                    count += 1
                    yield frame
        except _av().FFmpegError as error:
            if not count:
                raise
            raise InputError(
                f"{self._path} is damaged after {count} frames ({error.strerror}); copy or record it again"
            ) from error
        if damaged:  # decoders make up what is missing
            raise InputError(f"{self._path} holds {damaged} damaged packets, whose frames may be wrong; copy it again")

    def _pixels(self, frame: Any) -> Image:
        # PyAV 17 hands these to a conversion that refuses some. The matrix and the range alone decide RGB.
        frame.color_primaries = frame.color_trc = _UNSPECIFIED
        return self._turned(frame.to_ndarray(format=self._format), *_display_matrix(frame))

    def _turned(self, image: Image, a: float, b: float, c: float, d: float) -> Image:
        """Turn an image so that (x, y) is shown at (ax + cy, bx + dy)."""
        straight, crossed = abs(a) + abs(d), abs(b) + abs(c)
        if min(straight, crossed) * 100 > max(straight, crossed):
            raise InputError(
                f"{self._path} is turned by an angle other than quarter turns; turn it while converting it"
            )
        if crossed > straight:
            image, a, d = image.swapaxes(0, 1), c, b
        elif a > 0 and d > 0:
            return image
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        av = _av()
        try:
            # With its protocol, or a colon in a relative name would be taken for one. Playlists may name files alone.
            name = f"file:{os.path.abspath(self._path)}"
            options = {"protocol_whitelist": "file"}
            with av.open(name, options=options, metadata_errors="replace") as container:  # tags may be in Latin-1
                stream = container.streams.best("video")
                if stream is None:
                    raise InputError(f"{self._path} holds no video; expected MP4, WebM or another video file")
                stream.thread_type = "AUTO"
                yield stream
        except av.FFmpegError as error:
            raise InputError(f"{self._path} is not a readable video ({error.strerror}); convert it to MP4") from error


def _display_matrix(frame: Any) -> tuple[float, float, float, float]:
    """Return a, b, c, d of the display matrix of a frame (ISO/IEC 14496-12)."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV lacks a name for something else there, such as EXIF, and gives the rotation alone
        turn = math.radians(frame.rotation)
        return math.cos(turn), -math.sin(turn), math.sin(turn), math.cos(turn)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return a, b, c, d


def _end(stream: Any) -> Fraction | None:
    """Return the time at which a stream ends by the header of its file, in seconds. None if it is unknown."""
    container = stream.container
    if tag := stream.metadata.get("DURATION"):  # of Matroska, such as 00:01:02.500000000
        with suppress(ValueError):
            hours, minutes, seconds = map(Fraction, tag.split(":"))
            return hours * 3600 + minutes * 60 + seconds
    if stream.duration:
        return Fraction(((stream.start_time or 0) + stream.duration) * stream.time_base)
    if container.duration and len(container.streams) == 1:  # else another stream may be longer
        return Fraction(container.duration, _av().time_base)  # counted from zero, in FLV and Matroska
    return None


class VideoSink:
    """Writer of the frames of a video."""

    def __init__(self, container: Any, stream: Any, period: Fraction) -> None:
        self._container = container
        self._stream = stream
        self._period = period
        self._time = Fraction(0)
        self._tick = -1

    def write(self, image: Image, seconds: Fraction | None = None) -> None:
        """Append one (H, W, 3) uint8 RGB frame.

        Args:
            image: the frame.
            seconds: its time after the first frame, or None for one period after the frame before.
        """
        frame = _av().VideoFrame.from_ndarray(image, format="rgb24")
        frame.time_base = _TICK
        time = self._time if seconds is None else seconds
        self._time = time + self._period
        self._tick = frame.pts = max(self._tick + 1, round(time / _TICK))
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
            # The same frames give the same bytes, without a random number.
            with av.open(str(part), "w", format="webm", options={"fflags": "+bitexact"}) as container:
                stream = container.add_stream(_CODEC, rate=frame_rate, options=_CODEC_OPTIONS)
                stream.height, stream.width = size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = _TICK
                yield VideoSink(container, stream, 1 / frame_rate)
                container.mux(stream.encode())
        except av.FFmpegError as error:
            raise OutputWriteError(f"cannot write {path}: {error}; check the folder and its free space") from error


def _av() -> Any:
    av = require("av", extra="cli", purpose="reading and writing video")
    if int(av.__version__.partition(".")[0]) < 17:  # they convert every video with the matrix of BT.601
        raise MissingDependencyError(f"video needs PyAV 17 or newer, found {av.__version__}; pip install -U av")
    return av
