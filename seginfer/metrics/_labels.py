"""Pairs of a mask and its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError

Ids = NDArray[np.integer[Any]] | NDArray[np.bool_]
"""(H, W) class ids, or of a binary task bool."""

Scores = NDArray[np.float64]


def label_pair(
    mask: Ids, labels: Ids, num_classes: int, ignore_index: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a mask and its labels as int64, with `num_classes` for pixels without a class.

    Raises:
        InputError: if shapes differ, or an id is no class.
    """
    if mask.shape != labels.shape:
        raise InputError(
            f"expected a mask and labels of one size, got {mask.shape} and {labels.shape}; labels must not be resized"
        )
    return _ids(mask, "mask", num_classes, ignore_index), _ids(labels, "labels", num_classes, ignore_index)


def _ids(array: Ids, name: str, num_classes: int, ignore_index: int | None) -> NDArray[np.int64]:
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise InputError(f"expected {name} as integers (H, W), got {array.dtype} {array.shape}")
    ids = array.astype(np.int64)
    is_ignored = ids == (-1 - num_classes if ignore_index is None else ignore_index)
    wrong = ids[~is_ignored & ((ids < 0) | (ids >= num_classes))]
    if wrong.size:
        ignored = "" if ignore_index is None else f", or {ignore_index} where there is none"
        raise InputError(
            f"expected {name} in 0..{num_classes - 1}{ignored}, got {wrong[0]}; map the ids to classes first"
        )
    return np.where(is_ignored, num_classes, ids)


def ratio(part: Any, whole: Any) -> Scores:
    """Divide counts. NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    found: Scores = np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
    return found
