"""Scores of boundaries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._labels import Ids, Scores, label_pair, ratio


@dataclass(frozen=True)
class Boundaries:
    """Pixels near the boundaries of each class.

    Attributes:
        band: (C, 3) int64: pixels in the bands of both mask and labels, of the mask, of the labels.
        line: (C, 4) int64: boundary pixels of the mask near one of the labels, of the mask, then vice versa.
    """

    band: NDArray[np.int64]
    line: NDArray[np.int64]

    def __add__(self, other: Boundaries) -> Boundaries:
        return Boundaries(self.band + other.band, self.line + other.line)

    @property
    def iou(self) -> Scores:
        """Boundary IoU of each class (Cheng et al., CVPR 2021). It is the IoU of the bands inside of its boundary."""
        both, ours, theirs = self.band.T
        return ratio(both, ours + theirs - both)

    @property
    def f1(self) -> Scores:
        """Boundary F1 of each class (Csurka et al., BMVC 2013): precision and recall of boundary pixels."""
        found, ours, covered, theirs = self.line.T
        precision, recall = ratio(found, ours), ratio(covered, theirs)
        with np.errstate(invalid="ignore"):
            f1 = np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
        return np.where((ours > 0) & (theirs > 0), f1, np.where(ours + theirs > 0, 0.0, np.nan))


def boundaries(
    mask: Ids,
    labels: Ids,
    num_classes: int,
    *,
    ignore_index: int | None = 255,
    width: float = 0.02,
    tolerance: float = 2,
) -> Boundaries:
    """Compare the boundaries of each class in an image.

    The frame of the image is a boundary of the bands, and none of the lines. Ignored pixels belong to no class, in the
    mask as well.

    Args:
        mask: as of `confusion`.
        labels: likewise.
        num_classes: number of classes.
        ignore_index: an id that is no class, or None.
        width: of a band, as a share of the diagonal. Rounded to pixels, and at least one.
        tolerance: in pixels, largest distance of boundary pixels that match.

    Raises:
        InputError: as of `confusion`.
    """
    found, true = label_pair(mask, labels, num_classes, ignore_index)
    found = np.where(true == num_classes, num_classes, found)
    depth = max(1, round(width * math.hypot(*true.shape)))
    band, line = np.zeros((num_classes, 3), np.int64), np.zeros((num_classes, 4), np.int64)
    for one in np.setdiff1d(np.union1d(true, found), num_classes):
        ours, theirs = found == one, true == one
        inner = [region & ~_erode(region, depth, frame=False) for region in (ours, theirs)]
        band[one] = (inner[0] & inner[1]).sum(), inner[0].sum(), inner[1].sum()
        edges = [region & ~_erode(region, 1, frame=True) for region in (ours, theirs)]
        near = [_dilate(edge, tolerance) for edge in edges]
        line[one] = (edges[0] & near[1]).sum(), edges[0].sum(), (edges[1] & near[0]).sum(), edges[1].sum()
    return Boundaries(band, line)


def _erode(region: NDArray[np.bool_], depth: int, *, frame: bool) -> NDArray[np.bool_]:
    """Return pixels whose square of 2 depth + 1 lies in the region. With `frame`, what is outside counts as inside."""
    sums = np.pad(region, depth, constant_values=frame).cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    side = 2 * depth + 1
    square = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(square == side * side)


def _dilate(region: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Return pixels within a Euclidean distance of the region."""
    height, width = region.shape
    reach = min(int(radius), max(height, width))
    near = np.zeros_like(region)
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        dx = min(int(math.sqrt(radius * radius - dy * dy)), width)
        sums = np.pad(region.cumsum(1, dtype=np.int32), ((0, 0), (dx + 1, dx)), mode="edge")
        sums[:, : dx + 1] = 0
        row = sums[:, 2 * dx + 1 :] > sums[:, : -2 * dx - 1]
        source = slice(max(0, -dy), height - max(0, dy))
        near[source.start + dy : source.stop + dy] |= row[source]
    return near
