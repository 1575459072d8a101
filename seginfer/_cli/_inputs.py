"""Pictures, videos and folders named on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, MissingFileError
from .._images import IMAGE_SUFFIXES, read_image
from .._video import VIDEO_SUFFIXES, VideoReader

Image = NDArray[np.uint8]


def is_video(path: Path) -> bool:
    """Tell a video from a picture by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def expand(paths: Sequence[Path]) -> list[Path]:
    """Return the files behind the arguments: a folder stands for its pictures and videos, sorted by name.

    Raises:
        MissingFileError: if a path does not exist.
        InputError: if a folder holds neither pictures nor videos.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MissingFileError(f"no file or folder at {path}; check the path")
        found = sorted(p for p in path.iterdir() if _is_media(p)) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path} holds no pictures or videos; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
        files += found
    return files


def sample(paths: Sequence[Path], limit: int, *, gray: bool) -> list[Image]:
    """Read at most `limit` pictures: every picture named, and frames of videos spread over their length.

    Raises:
        MissingFileError: if a path does not exist.
        InputError: if a file cannot be read.
    """
    files = expand(paths)
    per_file = max(1, limit // len(files))
    images = (image for file in files for image in islice(_images(file, per_file, gray), per_file))
    return list(islice(images, limit))


def _images(file: Path, count: int, gray: bool) -> Iterator[Image]:
    if not is_video(file):
        yield read_image(file, gray=gray)
        return
    if gray:
        raise InputError(f"{file} is a video and the model takes gray pictures; extract gray frames first")
    video = VideoReader(file)
    step = max(1, video.approximate_length // count)
    for i, frame in enumerate(video):
        if i % step == 0:
            yield frame


def _is_media(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
