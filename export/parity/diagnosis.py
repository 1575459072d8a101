"""Place and cause of a difference from the user's pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seginfer._segmenter import Segmenter
from seginfer._spec.certificate import Stage
from seginfer._spec.model_spec import InputSpec, ModelSpec

from .comparison import batch_limits
from .neighbours import best_neighbour
from .user_reference import Answer, Image, UserMetric

_IMAGES = 4  # that neighbours are tried on
_EXPLAINED = 0.98  # share of pixels on which another order of classes, or a neighbour, must agree
_GAIN = 0.5  # share of the wrong pixels that a neighbour must put right
_CLEAR = 0.1  # of the standard deviation: a fit this close is no chance


class Diagnosis(NamedTuple):
    """Stage of a difference, and its cause in words."""

    stage: Stage
    finding: str


def diagnose(
    module: nn.Module | None,
    segmenter: Segmenter,
    images: Mapping[str, Image],
    answers: Mapping[str, Answer],
    metric: UserMetric,
) -> Diagnosis:
    """Find the stage at which a pipeline leaves the user's.

    The tensors that the user's pipeline calls modules with tell it at once. Without them, usual mistakes are corrected
    one by one until the masks agree.

    Args:
        module: the PyTorch module of the pipeline, if there is one.
        segmenter: the pipeline.
        images: by their names.
        answers: results of the user's pipeline by the names of some images.
        metric: differences on all images.
    """
    is_same, told = compare_inputs(segmenter, images, answers)
    if is_same is False:
        return Diagnosis("preprocess", told)
    order = _class_order(metric.confusion, segmenter.spec)
    if order:
        return Diagnosis("postprocess", order)

    def agreement(other: Segmenter) -> float:
        found = UserMetric(other.spec, metric.limits)
        for key in list(answers)[:_IMAGES]:
            found.add_labels(answers[key].labels, other(images[key]).labels, answers[key].margin)
        return found.agreement

    best = best_neighbour(module, segmenter, agreement)
    ours = agreement(segmenter)
    if best and best.score > ours and best.score >= max(_EXPLAINED, 1 - _GAIN * (1 - ours)):
        stage: Stage = "preprocess" if best.spec.input != segmenter.spec.input else "postprocess"
        return Diagnosis(stage, f"{ours:.2%} of the pixels are equal, and {best.score:.2%} with {best.change}")
    if is_same:
        return Diagnosis("postprocess", "the inputs of the networks are equal, so the difference lies behind them")
    return Diagnosis(
        "reference", "no stage can be told: the reference calls no PyTorch module, and no usual mistake fits"
    )


def compare_inputs(
    segmenter: Segmenter, images: Mapping[str, Image], answers: Mapping[str, Answer]
) -> tuple[bool | None, str]:
    """Compare the network's input with that in the reference.

    The first image counts. In the reference, these are the tensors that modules of PyTorch were called with.

    Returns:
        Whether one of them is equal, or None if that cannot be told, and the difference in words.
    """
    name = next(iter(answers))
    if segmenter.spec.input.resize == "tile" or not answers[name].inputs:
        return None, ""
    return _compare_inputs(segmenter.trace(images[name]).batch, answers[name].inputs, segmenter.spec.input)


def _compare_inputs(ours: NDArray[Any], recorded: list[NDArray[Any]], spec: InputSpec) -> tuple[bool, str]:
    """Search the input of the network among tensors of the reference."""
    ours = (ours if spec.layout == "NCHW" else ours.transpose(0, 3, 1, 2)).astype(np.float32)
    limit, _ = batch_limits(spec, float(np.abs(ours).max()))
    of_size = [theirs for theirs in recorded if theirs.shape[1:] == ours.shape[1:]]
    # A network hands its input on to inner modules, so it occurs more often than that of a preprocessing module.
    times = [sum(np.array_equal(one, other) for other in of_size) for one in of_size]
    networks = [one for one, count in zip(of_size, times, strict=True) if count == max(times)]
    if any(np.abs(image - ours[0]).max() <= limit for batch in networks for image in batch):
        return True, ""
    if not of_size:
        sizes = " x ".join(map(str, recorded[0].shape[2:]))
        return False, f"the reference feeds its network {sizes} pixels, the spec {ours.shape[2]} x {ours.shape[3]}"
    theirs = networks[0][:1]
    ranges = [f"{array.min():.3g}..{array.max():.3g}" for array in (theirs, ours)]
    told = f"the reference feeds its network values of {ranges[0]}, the spec makes {ranges[1]}"
    return False, told + _fit(theirs[0], ours[0], spec)


def _fit(theirs: NDArray[Any], ours: NDArray[Any], spec: InputSpec) -> str:
    """Describe the normalisation that makes one input of the other, if there is one."""
    mean, std = (np.reshape(spec.per_channel(values), (-1, 1, 1)) for values in (spec.mean, spec.std))
    pixels = ((ours * std + mean) / spec.scale).reshape(len(ours), -1)
    wanted = theirs.reshape(len(theirs), -1)
    orders = [list(range(len(pixels))), list(range(len(pixels)))[::-1]]
    fits = []
    for order in orders:
        lines = [np.polyfit(x, y, 1) if np.ptp(x) else np.zeros(2) for x, y in zip(pixels[order], wanted, strict=True)]
        left = [y - np.polyval(line, x) for line, x, y in zip(lines, pixels[order], wanted, strict=True)]
        fits.append((float(np.std(left)), order, lines))
    error, order, lines = min(fits, key=lambda fit: fit[0])
    gains, offsets = (np.array([line[i] for line in lines]) for i in (0, 1))
    if (gains <= 0).any() or error > _CLEAR * wanted.std():
        return ""
    scale = 1.0 if gains.max() > 0.5 else 1 / 255
    values = {"mean": -offsets / gains * scale, "std": scale / gains}
    told = ", ".join(f"{name}=({', '.join(f'{value:.3g}' for value in column)})" for name, column in values.items())
    is_swapped = order != orders[0]
    near = [np.allclose(values[name], spec.per_channel(getattr(spec, name)), rtol=0.1, atol=0.02) for name in values]
    if all(near) and not is_swapped and np.isclose(scale, spec.scale):
        return "; mean, std, scale and color fit, so the size, the resize or its resampling differs"
    color = {"rgb": "bgr", "bgr": "rgb"}.get(spec.color, spec.color) if is_swapped else spec.color
    return f"; color={color!r}, scale={scale:.3g}, {told} would make about the same"


def _class_order(confusion: NDArray[np.int64], spec: ModelSpec) -> str:
    """Describe another order of the classes that explains the difference, or return ""."""
    if spec.task == "multilabel":
        return ""
    confusion = confusion[:, :-1]  # without the pixels that the network did not see
    present = [label for label in range(spec.num_classes) if confusion[label].any()]
    partners = {label: int(confusion[label].argmax()) for label in present}
    moved = {label: partner for label, partner in partners.items() if label != partner}
    explained = sum(int(confusion[label, partner]) for label, partner in partners.items())
    if not moved or len(set(partners.values())) < len(partners) or explained < _EXPLAINED * confusion.sum():
        return ""
    swaps = ", ".join(f"{label} there is {partner} here" for label, partner in list(moved.items())[:4])
    return f"classes have another order: {swaps}; correct classes.names, or the reference"
