"""Scores of pixels by class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._labels import Ids, Scores, label_pair, ratio


@dataclass(frozen=True)
class Confusion:
    """Pixels by their true class and by their class in the mask.

    Scores of a class are in 0..1. TP, FP, FN and TN are its true positives, false positives, and so on.

    Attributes:
        counts: (C, C + 1) int64, rows are true classes. The last column is for pixels without a class in the mask,
            such as those outside of a center crop. They are false negatives.
    """

    counts: NDArray[np.int64]

    @staticmethod
    def empty(num_classes: int) -> Confusion:
        """Return counts of no image."""
        return Confusion(np.zeros((num_classes, num_classes + 1), np.int64))

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.counts + other.counts)

    @property
    def _hits(self) -> NDArray[np.int64]:
        return np.diag(self.counts)

    @property
    def _actual(self) -> NDArray[np.int64]:
        return np.asarray(self.counts.sum(1))

    @property
    def _predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.counts[:, :-1].sum(0))

    @property
    def iou(self) -> Scores:
        """Intersection over union of each class, TP / (TP + FP + FN)."""
        return ratio(self._hits, self._actual + self._predicted - self._hits)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur in labels or masks, as in the benchmark of Cityscapes."""
        iou = self.iou[~np.isnan(self.iou)]
        return float(iou.mean()) if iou.size else math.nan

    @property
    def dice(self) -> Scores:
        """Dice coefficient of each class, 2 TP / (2 TP + FP + FN). It is the F1 score of its pixels."""
        return ratio(2 * self._hits, self._actual + self._predicted)

    @property
    def sensitivity(self) -> Scores:
        """Sensitivity or recall of each class, TP / (TP + FN)."""
        return ratio(self._hits, self._actual)

    @property
    def specificity(self) -> Scores:
        """Specificity of each class, TN / (TN + FP)."""
        others = self.counts.sum() - self._actual
        return ratio(others - (self._predicted - self._hits), others)

    @property
    def precision(self) -> Scores:
        """Precision of each class, TP / (TP + FP)."""
        return ratio(self._hits, self._predicted)

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels with the right class."""
        return float(ratio(self._hits.sum(), self.counts.sum()))

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `iou`, weighted by the share of each class among the labels."""
        return float(ratio(np.nansum(self.iou * self._actual), self._actual.sum()))


def confusion(mask: Ids, labels: Ids, num_classes: int, *, ignore_index: int | None = 255) -> Confusion:
    """Count the pixels of an image by their true class and by their class in the mask.

    Args:
        mask: (H, W), below `num_classes`, or `ignore_index` for pixels without a class.
        labels: (H, W), likewise. Pixels with `ignore_index` are not counted.
        num_classes: number of classes.
        ignore_index: an id that is no class, or None.

    Raises:
        InputError: if shapes differ, or an id is no class.
    """
    found, true = label_pair(mask, labels, num_classes, ignore_index)
    wide = num_classes + 1
    counts = np.bincount((true * wide + found).ravel(), minlength=wide * wide).reshape(wide, wide)
    return Confusion(counts[:-1].astype(np.int64))
