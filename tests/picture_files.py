"""Pictures that tests read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
from numpy.typing import NDArray


def read_picture(path: str | Path, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """Return a picture as OpenCV reads it."""
    picture = cv2.imread(str(path), flags)
    assert picture is not None, path
    return picture
