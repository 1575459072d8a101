"""Media files: their kinds, and checks that hold for every kind."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .._errors import InputError, MissingFileError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
    ".avif", ".gif",
})
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".wmv",
    ".flv", ".ogv",
})
# fmt: on


def check_file(path: str | Path, kind: str) -> None:
    """Raise unless `path` is a regular file.

    Reading a FIFO or a device could wait for ever.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is something else, or cannot be looked up.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise MissingFileError(f"no {kind} at {path}; check the path") from error
    except ValueError as error:  # a zero byte
        raise InputError(f"cannot read {str(path)!r}: {error}; check the path") from error
    except OSError as error:  # a link to itself, a long name, permissions
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder whose files cannot be listed; check its permissions")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a regular file; copy its data into one")
