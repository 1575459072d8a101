"""Regions of a mask as run lengths and polygons."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Polygon(NamedTuple):
    """Outline of one connected region. Points are (K, 2) int32 (x, y)."""

    class_id: int
    class_name: str
    exterior: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...]


def encode_runs(plane: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the uncompressed RLE of a plane.

    Runs of 0 and 1 in turn, starting with 0, down the columns.

    Source:
        the COCO annotation format.
    """
    flat = plane.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate(([0], edges, [flat.size]))
    counts = np.diff(bounds).tolist()
    return {"size": list(plane.shape), "counts": [0, *counts] if flat[0] else counts}


def trace_outlines(cv2: Any, plane: NDArray[np.bool_]) -> list[tuple[NDArray[np.int32], tuple[NDArray[np.int32], ...]]]:
    """Return exterior and holes of every connected region."""
    contours, hierarchy = cv2.findContours(plane.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    points = [contour.reshape(-1, 2).astype(np.int32) for contour in contours]
    parents = hierarchy.reshape(-1, 4)[:, 3]
    return [(points[i], tuple(points[k] for k in np.flatnonzero(parents == i))) for i in np.flatnonzero(parents < 0)]
