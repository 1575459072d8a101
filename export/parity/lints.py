"""Signs of a usual mistake in a spec, weights or images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seginfer._pipelines.pipeline import Trace
from seginfer._spec.model_spec import InputSpec, ModelSpec

from .._behaviour import is_trained, modules_in_train_mode
from .torch_reference import ReferenceOutput

_WHOLE_LEVELS = 0.5  # a larger scale leaves pixels at 0..255
_ONE_CLASS = 0.999  # of all pixels
_CONTRAST = 4.0  # levels; images with less show nothing
_SPREAD = (0.02, 128.0)  # standard deviation of a network input; 0..255 has at most 127.5, and (0..1) / 58 has 0.005
_CLIPPED = 0.5  # share of samples at 0 or 255
_SUM = 1e-3


class Lints:
    """Collects signs over the images of a comparison.

    Args:
        spec: the model's contract.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._counts: NDArray[np.int64] = np.zeros(spec.num_classes + 1, np.int64)
        self._spread: list[float] = []
        self._clipped = self._samples = 0
        self._lowest, self._highest, self._sum_error = np.inf, -np.inf, 0.0

    def update(self, image: NDArray[np.uint8], expected: ReferenceOutput, trace: Trace) -> None:
        """Add one image."""
        mask = trace.mask.any(0).astype(np.int64) if self._spec.task == "multilabel" else trace.mask
        self._counts += np.bincount(np.minimum(mask.ravel(), self._spec.num_classes), minlength=len(self._counts))
        if image.std() > _CONTRAST:
            axes = (0, 2, 3) if self._spec.input.layout == "NCHW" else (0, 1, 2)
            self._spread.append(float(trace.batch.astype(np.float32).std(axes).max()))
        self._clipped += int(((image == 0) | (image == 255)).sum())
        self._samples += image.size
        if self._spec.output.kind != "labels":
            output, axis = expected.output, 1 if self._spec.output.layout == "NCHW" else 3
            self._lowest, self._highest = min(self._lowest, output.min()), max(self._highest, output.max())
            self._sum_error = max(self._sum_error, float(np.abs(output.sum(axis) - 1).max()))

    def is_softmax(self) -> bool:
        """Return whether all outputs lie in 0..1 and sum to 1 over the classes."""
        return self._spec.num_channels > 1 and self._are_shares() and self._sum_error <= _SUM

    def is_sigmoid(self) -> bool:
        """Return whether binary or multilabel outputs must be probabilities.

        All of them lie in 0..1, and every pixel is set. Such a mask is of no use, so no network happens to make it.
        """
        if self._spec.task == "semantic" or self._spec.output.kind != "logits" or not self._are_shares():
            return False
        return bool(self._counts[1] > _ONE_CLASS * max(self._counts.sum(), 1))

    def warnings(self, module: nn.Module | None) -> tuple[str, ...]:
        """Return the signs found, one sentence each."""
        found = list(input_warnings(self._spec.input))
        if module is not None:
            found += module_warnings(module)
        seen = self._counts[:-1]
        if self._spec.num_classes > 1 and seen.max() > _ONE_CLASS * max(self._counts.sum(), 1):
            found.append(
                f"the masks are {self._label(int(seen.argmax()))} everywhere: check mean, std, color and weights"
            )
        if self._spread and not _SPREAD[0] <= max(self._spread) <= _SPREAD[1]:
            found.append(
                f"the network's input varies by {max(self._spread):.3g} (standard deviation): check scale and std"
            )
        if self._clipped > _CLIPPED * self._samples:
            found.append(f"{self._clipped / self._samples:.0%} of the image samples are 0 or 255: check the images")
        # By values alone this is no proof: a network may end in ReLU, or hardly leave 0..1 on a few images.
        if self._spec.output.kind == "logits" and self._spec.task != "semantic" and self._are_shares():
            found.append("all outputs lie in 0..1: use kind='probabilities' if they are those")
        return tuple(found)

    def _are_shares(self) -> bool:
        return self._lowest >= 0 and self._highest <= 1 + _SUM

    def _label(self, label: int) -> str:
        if self._spec.task == "multilabel":
            return ("without any class", "of some class")[min(label, 1)]
        return f"{self._spec.classes.names[label]!r}"


def input_warnings(spec: InputSpec) -> tuple[str, ...]:
    """Return signs of constants for another range of pixels."""
    if spec.dtype == "uint8":
        return ()
    largest = max(abs(value) for value in (*spec.mean, *spec.std))
    if spec.scale < 0.1 and largest > 2:
        return (f"mean {spec.mean} and std {spec.std} look like those of pixels 0..255, but scale makes them 0..1",)
    std_is_small = max(spec.std) < 1
    if spec.scale >= _WHOLE_LEVELS and (std_is_small or 0 < max(map(abs, spec.mean)) <= 1):
        return (f"mean {spec.mean} and std {spec.std} look like those of pixels 0..1, but scale leaves them at 0..255",)
    return ()


def module_warnings(module: nn.Module) -> tuple[str, ...]:
    """Return signs of weights that were not trained, and of modules that behave as in training."""
    found = []
    if is_trained(module) is False:
        found.append("every batch norm has its initial statistics: load trained weights")
    if parts := modules_in_train_mode(module):
        found.append(f"{', '.join(parts[:3])} behaves as in training: an image's mask depends on its batch")
    return tuple(found)
