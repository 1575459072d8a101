"""Models, images and videos named on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, MissingFileError
from .._media.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .._media.images import read_image
from .._media.video import VideoReader
from .._segmenter import Segmenter
from .output import Output

Image = NDArray[np.uint8]


def open_segmenter(args: argparse.Namespace, output: Output, model: Path) -> Segmenter:
    """Open a model with the arguments of `add_device`."""
    with output.phases() as on_step:
        return Segmenter.open(
            model, backend=args.backend, device=args.device, threads=args.threads, on_progress=on_step
        )


def is_video(path: Path) -> bool:
    """Return whether the suffix is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def expand(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by their images and videos, sorted by name.

    Raises:
        MissingFileError: if a path does not exist.
        InputError: if a folder holds neither images nor videos.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MissingFileError(f"no file or folder at {path}; check the path")
        found = sorted(p for p in path.iterdir() if _is_media(p)) if path.is_dir() else [path]
        if not found:
            raise InputError(
                f"{path} holds no images or videos; expected suffixes like {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        files += found
    return files


def sample(paths: Sequence[Path], limit: int, *, gray: bool) -> list[Image]:
    """Read up to `limit` images, spread over files and videos.

    Raises:
        MissingFileError: if a path does not exist.
        InputError: if a file cannot be read.
    """
    files = expand(paths)
    files = [files[i] for i in spread(len(files), limit)]
    videos = sum(map(is_video, files))
    per_video = (limit - (len(files) - videos)) // max(videos, 1)
    return [image for file in files for image in _images(file, per_video, gray)]


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` different indices, spread evenly over `count`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(wanted, count)).tolist()})


def _images(file: Path, count: int, gray: bool) -> list[Image]:
    if not is_video(file):
        return [read_image(file, gray=gray)]
    length = sum(1 for _ in VideoReader(file))  # the length in the header may be wrong
    wanted = set(spread(length, count))
    return [frame for i, frame in enumerate(VideoReader(file, gray=gray)) if i in wanted]


def _is_media(path: Path) -> bool:
    # By the suffix alone, so that a dangling link is reported when it is read.
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not path.is_dir()
