"""Comparison of masks with the user's labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seginfer._errors import InputError
from seginfer._segmenter import Segmenter
from seginfer._spec.model_spec import ModelSpec

from .neighbours import best_neighbour

_POOR = 0.9  # mean IoU below which usual mistakes are tried
_BAD = 0.5  # mean IoU that is a warning by itself
_BETTER = 0.05  # gain of mean IoU at which one is named
_IMAGES = 8  # that they are tried on

Image = NDArray[np.uint8]
Labels = Mapping[str, NDArray[np.integer]]
"""(H, W) class ids, or the ignore index, by the names of images."""


class LabelScore(NamedTuple):
    """Mean IoU with labels, and a usual mistake that would explain a low one."""

    mean_iou: float
    warning: str


def score_labels(
    module: nn.Module | None, segmenter: Segmenter, images: Mapping[str, Image], labels: Labels
) -> LabelScore:
    """Measure the mean IoU with labels, and try usual mistakes if it is poor.

    Args:
        module: the PyTorch module of the pipeline, if there is one.
        segmenter: the pipeline.
        images: by their names.
        labels: of some of the images. Pixels with the ignore index do not count.

    Raises:
        InputError: if no image has labels, or labels do not fit their image or the classes.
    """
    spec = segmenter.spec
    if not isinstance(labels, Mapping):
        raise InputError(f"labels must be a mapping from the names of images, got {type(labels).__name__}")
    labels = {name: np.asarray(array) for name, array in labels.items()}
    names = [name for name in images if name in labels]
    if not names:
        raise InputError(f"no image has labels: images {list(images)[:3]}, labels {list(labels)[:3]}; name them alike")
    if spec.task == "multilabel":
        raise InputError("labels of a multilabel task overlap and are no single image; compare with a reference")
    for name in names:
        _check(name, labels[name], images[name], spec)
    if all((labels[name] == spec.classes.ignore_index).all() for name in names):
        raise InputError(f"every label is ignore_index {spec.classes.ignore_index}; check the files with labels")
    if spec.task == "binary" and not any((labels[name] == 1).any() for name in names):
        raise InputError("the labels of a binary task must be 0 and 1, and no pixel is 1; divide labels of 255 by 255")
    confusion = _confusion(segmenter, images, labels, names)
    ours = _mean_iou(confusion)
    if ours >= _POOR:
        return LabelScore(ours, "")
    few = names[:_IMAGES]
    shifts = {shift: _mean_iou(_shifted(confusion, shift)) for shift in (-1, 1)}
    shift = max(shifts, key=lambda one: shifts[one])
    best = best_neighbour(module, segmenter, lambda other: _mean_iou(_confusion(other, images, labels, few)))
    found = [(shifts[shift], f"with labels {shift:+d}")] + ([(best.score, f"with {best.change}")] if best else [])
    score, change = max(found)
    if score > ours + _BETTER:
        return LabelScore(ours, f"mean IoU with your labels {ours:.2f}; {score:.2f} {change}")
    return LabelScore(
        ours, f"mean IoU with your labels {ours:.2f}, and no usual mistake explains it" if ours < _BAD else ""
    )


def _check(name: str, labels: NDArray[np.integer], image: Image, spec: ModelSpec) -> None:
    if labels.shape != image.shape[:2] or labels.dtype.kind not in "iub":
        raise InputError(
            f"labels of {name} must be integers {image.shape[:2]} as the image, got {labels.dtype} {labels.shape}"
        )
    ignored = spec.classes.ignore_index
    wrong = labels[((labels < 0) | (labels >= spec.num_classes)) & (True if ignored is None else labels != ignored)]
    if wrong.size:
        raise InputError(
            f"labels of {name} must be 0..{spec.num_classes - 1}, or ignore_index {spec.classes.ignore_index}, got "
            f"{wrong[0]}; map them to class ids"
        )


def _confusion(
    segmenter: Segmenter, images: Mapping[str, Image], labels: Labels, names: list[str]
) -> NDArray[np.int64]:
    """Count pixels by label and mask. The last row is ignored, the last column unseen."""
    size = segmenter.spec.num_classes + 1
    confusion = np.zeros((size, size), np.int64)
    for name in names:
        mask = segmenter(images[name]).labels
        pairs = np.minimum(labels[name].astype(np.int64), size - 1) * size + np.minimum(mask, size - 1)
        confusion += np.bincount(pairs.ravel(), minlength=size * size).reshape(size, size)
    confusion[-1] = 0
    return confusion


def _shifted(confusion: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """Move labels by one class. Those that leave the classes are ignored."""
    moved = np.roll(confusion, shift, 0)
    moved[-1 if shift > 0 else -2] = 0
    moved[-1] = 0
    return moved


def _mean_iou(confusion: NDArray[np.int64]) -> float:
    both = np.diag(confusion)[:-1]
    either = confusion.sum(0)[:-1] + confusion.sum(1)[:-1] - both
    return float(np.mean(both[either > 0] / either[either > 0])) if either.any() else 0.0
