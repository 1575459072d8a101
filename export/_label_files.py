"""Label images, matched to images by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from seginfer._errors import InputError, MissingFileError

_NAMES = ("{}_mask.png", "{}.png")
_MODES = ("L", "P", "I", "I;16", "1")  # Pillow's for one channel; the values of "P" are indices of a palette


def read_labels(folder: Path, images: Iterable[str]) -> dict[str, NDArray[np.integer]]:
    """Read the labels of images by their names.

    Args:
        folder: holds NAME_mask.png or NAME.png for an image NAME with any suffix.
        images: names of the images. Those without labels are left out.

    Returns:
        (H, W) class ids by the names of the images.

    Raises:
        MissingFileError: if there is no such folder.
        InputError: if no image has labels, or a file cannot be read or holds colours.
    """
    if not folder.is_dir():
        raise MissingFileError(f"no folder of labels at {folder}; check the path")
    images = list(images)
    files = {}
    for name in images:
        candidates = (folder / form.format(Path(name).stem) for form in _NAMES)
        if found := next((path for path in candidates if path.is_file()), None):
            files[name] = found
    if not files:
        wanted = [form.format(Path(name).stem) for name in images[:1] for form in _NAMES]
        raise InputError(f"no image has labels in {folder}; expected names like {' or '.join(wanted)}")
    return {name: _read(path) for name, path in files.items()}


def _read(path: Path) -> NDArray[np.integer]:
    try:
        with PillowImage.open(path) as picture:
            if picture.mode not in _MODES:
                raise InputError(f"{path} holds colours ({picture.mode}), expected class ids; save one channel of ids")
            labels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no image that Pillow can read ({error}); save labels as PNG") from error
    return labels.astype(np.int64)
