"""Scores of confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError
from ._labels import Ids, Scores, label_pair, ratio


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy of pixels, in bins of equal width.

    Attributes:
        counts: (B,) int64 pixels in each bin.
        hits: (B,) int64 of them with the right class.
        confidence: (B,) float64 sum of their confidence.
    """

    counts: NDArray[np.int64]
    hits: NDArray[np.int64]
    confidence: Scores

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(self.counts + other.counts, self.hits + other.hits, self.confidence + other.confidence)

    @property
    def accuracy(self) -> Scores:
        """Accuracy in each bin."""
        return ratio(self.hits, self.counts)

    @property
    def expected_error(self) -> float:
        """Expected calibration error (Guo et al., ICML 2017): mean distance of accuracy and confidence of the bins."""
        return float(ratio(np.abs(self.hits - self.confidence).sum(), self.counts.sum()))

    @property
    def selective(self) -> tuple[Scores, Scores]:
        """Coverage and accuracy of the pixels above the lower edge of each bin (Geifman and El-Yaniv, 2017)."""
        kept, right = (np.cumsum(array[::-1])[::-1] for array in (self.counts, self.hits))
        return ratio(kept, self.counts.sum()), ratio(right, kept)


def calibration(
    mask: Ids,
    labels: Ids,
    confidence: NDArray[np.floating[Any]],
    num_classes: int,
    *,
    ignore_index: int | None = 255,
    bins: int = 15,
) -> Calibration:
    """Compare the confidence of an image with its accuracy.

    Args:
        mask: as of `confusion`.
        labels: likewise.
        confidence: (H, W) in 0..1.
        num_classes: number of classes.
        ignore_index: an id that is no class, or None.
        bins: number of bins.

    Raises:
        InputError: as of `confusion`, or if a confidence is not in 0..1.
    """
    found, true = label_pair(mask, labels, num_classes, ignore_index)
    if confidence.shape != true.shape:
        raise InputError(f"expected confidences {true.shape} as the mask, got {confidence.shape}")
    seen = (true < num_classes) & (found < num_classes)
    values = confidence[seen].astype(np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"expected confidences in 0..1, got {values.min()}..{values.max()}")
    index = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)  # (low, high], as in the paper
    counts, hits, total = (
        np.bincount(index, weights=weights, minlength=bins) for weights in (None, (found == true)[seen], values)
    )
    return Calibration(counts.astype(np.int64), hits.astype(np.int64), total.astype(np.float64))
