"""Metrics of segmentation, in NumPy alone.

    from seginfer import metrics

    total = sum((metrics.confusion(mask, labels, 19) for mask, labels in pairs), start=metrics.Confusion.empty(19))
    total.mean_iou

Counts of images add up. Ratios of the sum are those of the whole set, and NaN where nothing was counted. Labels are
never resized: masks of `Segmenter` have the size of the image, as labels should.
"""

from ._boundaries import Boundaries, boundaries
from ._calibration import Calibration, calibration
from ._confusion import Confusion, confusion
from ._sets import Interval, bootstrap, flicker

__all__ = [
    "Boundaries",
    "Calibration",
    "Confusion",
    "Interval",
    "bootstrap",
    "boundaries",
    "calibration",
    "confusion",
    "flicker",
]
