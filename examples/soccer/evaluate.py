"""Segmentation metrics at the size of the image.

Logits are resized to the image before the argmax.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dataset import CLASSES, IMAGE_HW
from frames import FrameSet, crop_and_resize
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Metrics:
    """Scores per class from one confusion matrix over all frames.

    Scores are in [0, 1], or NaN for a class that never occurs.

    Attributes:
        confusion: (C, C) int64 pixel counts, true class by predicted class.
    """

    confusion: NDArray[np.int64]

    @property
    def _hits(self) -> NDArray[np.float64]:
        return np.asarray(np.diag(self.confusion), dtype=np.float64)

    @property
    def _actual(self) -> NDArray[np.float64]:
        return np.asarray(self.confusion.sum(axis=1), dtype=np.float64)

    @property
    def _predicted(self) -> NDArray[np.float64]:
        return np.asarray(self.confusion.sum(axis=0), dtype=np.float64)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union, TP / (TP + FP + FN), (C,) float64."""
        return _ratio(self._hits, self._actual + self._predicted - self._hits)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice coefficient, 2 TP / (2 TP + FP + FN), (C,) float64."""
        return _ratio(2.0 * self._hits, self._actual + self._predicted)

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """True positive rate, TP / (TP + FN), (C,) float64."""
        return _ratio(self._hits, self._actual)

    @property
    def specificity(self) -> NDArray[np.float64]:
        """True negative rate, TN / (TN + FP), (C,) float64."""
        others = self.confusion.sum() - self._actual
        return _ratio(others - (self._predicted - self._hits), others)

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return float(np.nanmean(self.iou))

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right class."""
        return float(self._hits.sum() / self.confusion.sum())


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def confusion_matrix(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count pixels by (true class, predicted class).

    Args:
        truth: class ids, any shape.
        mask: class ids, the same shape.

    Returns:
        (C, C) int64.
    """
    if truth.shape != mask.shape:
        raise ValueError(f"masks must have equal shapes, got {truth.shape} and {mask.shape}; don't resize one to fit")
    num_classes = len(CLASSES)
    pairs = truth.astype(np.int64) * num_classes + mask
    return np.bincount(pairs.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes)


@torch.inference_mode()
def predict(network: nn.Module, batch: torch.Tensor) -> NDArray[np.uint8]:
    """Segment a batch.

    Args:
        network: maps a batch to (N, C, H, W) logits.
        batch: (N, 3, H, W) float32, letterboxed and normalized.

    Returns:
        (N, 360, 640) uint8 class ids.
    """
    logits = crop_and_resize(network(batch), IMAGE_HW)
    return logits.argmax(dim=1).to(torch.uint8).numpy()


def evaluate(network: nn.Module, frames: FrameSet, *, indices: Iterable[int] | None = None) -> Metrics:
    """Compare a network's masks with the simulator's.

    Args:
        network: maps a batch to (N, C, H, W) logits. It is switched to evaluation mode.
        frames: frames without augmentation.
        indices: indices of the frames to use, or None for all.

    Returns:
        The metrics over all these frames together.
    """
    network.eval()
    chosen = frames if indices is None else torch.utils.data.Subset(frames, list(indices))
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    for batch, truth in DataLoader(chosen, batch_size=8):
        confusion += confusion_matrix(truth.numpy(), predict(network, batch))
    return Metrics(confusion)


def evaluate_families(network: nn.Module, folder: Path, families: tuple[str, ...]) -> dict[str, Metrics]:
    """Evaluate a rendered split by camera family, and under "all" as a whole."""
    frames = FrameSet(folder)
    turns = len(families)
    parts = {
        family: evaluate(network, frames, indices=range(turn, len(frames), turns))
        for turn, family in enumerate(families)
    }
    whole = Metrics(np.sum([part.confusion for part in parts.values()], axis=0))
    return {"all": whole, **parts}
