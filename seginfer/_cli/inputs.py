"""Models, images and videos named on the command line."""

from __future__ import annotations

import argparse
import difflib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError, MissingFileError
from .._media.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .._media.images import is_image, read_image
from .._media.video import VideoReader
from .._segmenter import Segmenter
from .output import Output
from .output_folder import files_written_into

Image = NDArray[np.uint8]


class Input(NamedTuple):
    """One image or video."""

    path: Path
    output: Path
    """Path below the output folder that the names of its results begin with."""

    @property
    def is_video(self) -> bool:
        """Whether it is read as a video. A file of unknown suffix is probed."""
        suffix = self.path.suffix.lower()
        return suffix in VIDEO_SUFFIXES or (suffix not in IMAGE_SUFFIXES and not is_image(self.path))


def open_segmenter(args: argparse.Namespace, output: Output, model: Path, *, verify: bool = True) -> Segmenter:
    """Open a model with the arguments of `add_device`."""
    with output.phases() as on_step:
        return Segmenter.open(
            model,
            backend=args.backend,
            device=args.device,
            threads=args.threads,
            verify=verify,
            on_progress=on_step,
        )


def expand(paths: Sequence[Path]) -> list[Input]:
    """Replace folders by their images and videos, also of folders below, sorted by name.

    Results of one folder have the tree of that folder, and results of several begin with the name of each. Files that
    differ in their suffix alone keep it.

    Raises:
        MissingFileError: if a path does not exist.
        InputError: if a folder holds neither images nor videos, or two results would have one name.
    """
    several = sum(map(os.path.isdir, paths)) > 1
    every = [file for path in paths for file in _found(path, several)]
    found = list({os.path.abspath(file.path): file for file in reversed(every)}.values())[::-1]  # each once
    counts = Counter(file.output.with_suffix("") for file in found)
    files: dict[Path, Input] = {}
    for path, output in found:
        short = output.with_suffix("")
        file = Input(path, short if counts[short] == 1 else output)
        other = files.setdefault(file.output, file)
        if other is not file:
            raise InputError(
                f"{other.path} and {path} would write the same mask; name each once, or run each with its own -o folder"
            )
    return list(files.values())


def sample(paths: Sequence[Path], limit: int, *, gray: bool) -> dict[str, Image]:
    """Read up to `limit` images, spread over files and videos.

    Returns:
        The images by the names of their files, without folders.

    Raises:
        MissingFileError: if a path does not exist.
        InputError: if a file cannot be read.
    """
    files = [file for path in paths for file in _found(path)]
    files = [files[i] for i in spread(len(files), limit)]
    videos = sum(file.is_video for file in files)
    per_video = (limit - (len(files) - videos)) // max(videos, 1)
    found: dict[str, Image] = {}
    for file in files:
        for name, image in _images(file, per_video, gray):
            same = sum(1 for known in found if known.partition(" (")[0] == name)  # files of several folders
            found[f"{name} ({same + 1})" if same else name] = image
    return found


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` different indices, spread evenly over `count`."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(wanted, count)).tolist()})


def _images(file: Input, count: int, gray: bool) -> list[tuple[str, Image]]:
    name = file.path.name
    if not file.is_video:
        return [(name, read_image(file.path, gray=gray))]
    length = sum(1 for _ in VideoReader(file.path))  # the length in the header may be wrong
    wanted = set(spread(length, count))
    frames = enumerate(VideoReader(file.path, gray=gray))
    return [(f"{name} frame {i}", frame) for i, frame in frames if i in wanted]


def _found(path: Path, with_root: bool = False) -> list[Input]:
    """Return a file, or those of a folder, with the paths of their results."""
    if not os.path.lexists(path):
        raise MissingFileError(f"no file or folder at {path}; {_similar(path) or 'check the path'}")
    if not os.path.isdir(path):
        return [Input(path, Path(path.name))]
    root = Path(os.path.basename(os.path.abspath(path)) if with_root else "")
    found = [Input(file, root / file.relative_to(path)) for file in _walk(path)]
    if not found:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(
            f"{path} and the folders below hold no images or videos but those that seginfer wrote; expected suffixes "
            f"like {suffixes}"
        )
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the images and videos of a folder and those below.

    Hidden files and what seginfer wrote are left out. A folder that cannot be listed is yielded itself.
    """
    unlisted: list[OSError] = []
    visited = set()
    for parent, folders, names in os.walk(folder, onerror=unlisted.append, followlinks=True):
        if os.path.realpath(parent) in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        own = files_written_into(parent)
        yield from (Path(parent, name) for name in sorted(names) if name not in own and _is_media(name))
    yield from (Path(error.filename) for error in unlisted)


def _is_media(name: str) -> bool:
    # By the suffix alone, so that a dangling link is reported when it is read.
    return Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not name.startswith(".")


def _similar(path: Path) -> str:
    """Suggest a file with a similar name."""
    try:
        names = difflib.get_close_matches(path.name, os.listdir(path.parent), 1)
    except OSError:
        return ""
    return f"did you mean {path.parent / names[0]}?" if names else ""
