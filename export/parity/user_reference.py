"""Comparison of a pipeline with the user's own one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seginfer._errors import ExportError
from seginfer._pipelines.pipeline import Trace
from seginfer._spec.certificate import Certificate
from seginfer._spec.model_spec import ModelSpec

from ..precision.limits import Limits
from .comparison import ROUNDINGS
from .dense import decide_values, restore_values
from .recorded_inputs import record_inputs

Image = NDArray[np.uint8]
Reference = Callable[[Image], Any]
"""The user's pipeline: (H, W, 3) uint8 RGB, or (H, W) for a gray model, to labels, logits or probabilities."""

_SUM = 1e-3  # a softmax may sum to a little more or less than one
_FEW = 100  # pixels of a class whose IoU says nothing: one pixel of a hundred that differs is rounding


class Answer(NamedTuple):
    """Result of the user's pipeline on one image."""

    labels: NDArray[np.int64]
    """(H, W), or (C, H, W) of 0 and 1 for multilabel."""
    values: Tensor | None
    """(C, H, W) logits or probabilities. None if the pipeline yields labels."""
    kind: str
    """"labels", "logits" or "probabilities"."""
    margin: NDArray[np.float32]
    """Distance of each decision from flipping. Infinite for labels."""
    inputs: list[NDArray[Any]]
    """Tensors with four dimensions that PyTorch modules were called with, in order."""


class UserReference:
    """Runs the user's pipeline and checks its results.

    Args:
        function: see `Reference`. It gets a copy of the image. It returns integers (H, W), or (C, H, W) of 0 and 1 for
            multilabel, or floating-point values (C, H, W) at the size of the image, as an array or a tensor, with or
            without a first dimension of 1. Values that all lie in 0..1, and sum to 1 for semantic unless the spec has
            probabilities, are those. Values that all are 0 or 1 are masks of the classes.
        spec: the model's contract.
    """

    def __init__(self, function: Reference, spec: ModelSpec) -> None:
        self._function = function
        self._spec = spec
        module, name = (getattr(function, field, "") for field in ("__module__", "__qualname__"))
        self.name = f"{module}:{name}" if module and name else type(function).__qualname__
        self._repeated = False

    def __call__(self, image: Image) -> Answer:
        """Run the pipeline on one image. The first image is run twice."""
        with record_inputs(self._spec.input.channels) as inputs:
            result = self._run(image)
        if not self._repeated and not np.array_equal(result, self._run(image), equal_nan=result.dtype.kind == "f"):
            raise ExportError(f"the reference {self.name} is random: two runs on one image differ; seed it inside")
        self._repeated = True
        hw = image.shape[:2]
        result = self._without_masks(result)
        if result.dtype.kind in "iub":
            labels = self._labels(result, hw)
            return Answer(labels, None, "labels", np.full(labels.shape, math.inf, np.float32), inputs)
        values = self._values(result, hw)
        kind = "probabilities" if _are_probabilities(values, self._spec) else "logits"
        decided, margin = decide_values(values, with_kind(self._spec, kind))
        return Answer(decided.long().numpy(), values, kind, margin.numpy(), inputs)

    def _run(self, image: Image) -> NDArray[Any]:
        try:
            with torch.no_grad():
                result = self._function(image.copy())
            result = _to_numpy(result) if isinstance(result, Tensor) else np.asarray(result)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            reason = (str(error).splitlines() or [""])[0]
            raise ExportError(
                f"the reference {self.name} failed on an image {image.shape} with {type(error).__name__}: {reason}"
            ) from error
        if result.dtype.kind not in "iubf":
            got = type(result.item()).__name__ if result.ndim == 0 else f"an array of {result.dtype}"
            raise ExportError(f"{self._expected()}, got {got}; return the tensor itself")
        return result[0] if result.ndim == 4 and result.shape[0] == 1 else result

    def _without_masks(self, result: NDArray[Any]) -> NDArray[Any]:
        """Return labels instead of values that are 0 and 1 alone, of a threshold or one-hot."""
        if result.dtype.kind != "f" or not ((result == 0) | (result == 1)).all():
            return result
        if self._spec.task != "semantic":
            return result.astype(np.uint8)
        is_one_hot = result.ndim == 3 and len(result) == self._spec.num_classes and (result.sum(0) == 1).all()
        return result.argmax(0) if is_one_hot else result

    def _labels(self, result: NDArray[Any], hw: tuple[int, ...]) -> NDArray[np.int64]:
        shape = (self._spec.num_classes, *hw) if self._spec.task == "multilabel" else hw
        result = result[0] if result.shape == (1, *shape) else result
        if result.shape != shape:
            raise ExportError(f"{self._expected()}, got labels {result.shape} for an image {hw}")
        if self._spec.task == "binary" and (result == 255).any() and not (result == 1).any():
            raise ExportError(f"expected labels 0 and 1 from {self.name}, got 0 and 255; divide them by 255")
        most = 1 if self._spec.task == "multilabel" else self._spec.num_classes - 1
        if ((result > most) | (result < 0))[result != self._spec.ignore_value].any():
            raise ExportError(f"expected labels 0..{most} from {self.name}, got {result.min()}..{result.max()}")
        return result.astype(np.int64)

    def _values(self, result: NDArray[Any], hw: tuple[int, ...]) -> Tensor:
        shape = (self._spec.num_channels, *hw)
        result = result[None] if result.shape == hw and self._spec.num_channels == 1 else result
        if result.dtype.kind != "f" or result.shape != shape:
            raise ExportError(f"{self._expected()}, got {result.dtype} {result.shape} for an image {hw}")
        if not np.isfinite(result).all():
            raise ExportError(f"the reference {self.name} yields NaN or infinite values; check its weights")
        return torch.from_numpy(np.ascontiguousarray(result, np.float32))

    def _expected(self) -> str:
        channels = self._spec.num_channels
        return (
            f"expected integer labels (H, W), or values ({channels}, H, W) at the image's own size, from {self.name}; "
            "interpolate them in it"
        )


def with_kind(spec: ModelSpec, kind: Any) -> ModelSpec:
    """Return a spec whose output is of another kind, without upsampling."""
    return replace(spec, outputs=(replace(spec.output, kind=kind, upsample=None), *spec.outputs[1:]))


class UserMetric:
    """Accumulates the differences from the user's pipeline.

    Args:
        spec: the model's contract.
        limits: of the precision of the exported graph.
    """

    def __init__(self, spec: ModelSpec, limits: Limits) -> None:
        self._spec = spec
        self.limits = limits
        self._seen: list[tuple[NDArray[np.bool_], NDArray[np.float32]]] = []
        self._error = self._largest = 0.0
        size = max(spec.num_classes, 2) + 1  # the last is for pixels that the network did not see
        self.confusion: NDArray[np.int64] = np.zeros((size, size), np.int64)
        """Pixels by the label of the user's pipeline and that of the exported one."""

    def update(self, answer: Answer, trace: Trace) -> None:
        """Add the differences on one image. The output of the trace is upsampled."""
        kind = self._spec.output.kind
        if answer.values is None or kind == "labels":  # no margins: all pixels count
            self.add_labels(answer.labels, trace.mask, np.full(answer.labels.shape, math.inf, np.float32))
            return
        ours, theirs, margin = restore_values(trace.output, trace.geometry, self._spec), answer.values, answer.margin
        if answer.kind != kind:  # compared as probabilities
            ours = _probabilities(ours, self._spec) if kind == "logits" else ours
            theirs = _probabilities(theirs, self._spec) if answer.kind == "logits" else theirs
            margin = decide_values(theirs, with_kind(self._spec, "probabilities"))[1].numpy()
        elif kind == "logits" and self._spec.task == "semantic":  # all classes of a pixel may move alike
            ours, theirs = (values - values.amax(0) for values in (ours, theirs))
        self.add_labels(answer.labels, trace.mask, margin)
        rows, cols = trace.geometry.visible.slices
        theirs = theirs[..., rows, cols]
        self._error = max(self._error, float((ours - theirs).abs().max()))
        self._largest = max(self._largest, float(theirs.abs().max()))

    def add_labels(self, labels: NDArray[Any], mask: NDArray[Any], margin: NDArray[np.float32]) -> None:
        """Add labels of the user's pipeline and of the exported one."""
        self._seen.append((labels == mask, margin))
        size = len(self.confusion)
        pairs = np.minimum(labels.ravel(), size - 1) * size + np.minimum(mask.ravel(), size - 1)
        self.confusion += np.bincount(pairs.astype(np.int64), minlength=size * size).reshape(size, size)

    @property
    def agreement(self) -> float:
        """Share of all pixels with the same label, 0..1."""
        return sum(int(same.sum()) for same, _ in self._seen) / sum(same.size for same, _ in self._seen)

    def passes(self) -> bool:
        """Return whether the limits are met, by the rule of decisive pixels."""
        both = np.diag(self.confusion)
        either = self.confusion.sum(0) + self.confusion.sum(1) - both
        counted = either > min(_FEW, either.max() - 1)
        mean_iou = float(np.mean(both[counted] / either[counted]))
        return (
            self.undecided_share <= self.limits.undecided_share
            and all(bool(same[(margin > self._limit) & (margin < math.inf)].all()) for same, margin in self._seen)
            and self.agreement >= self.limits.pixel_agreement
            and mean_iou >= self.limits.mean_iou
        )

    @property
    def undecided_share(self) -> float:
        """Share of pixels that are not decisive, 0..1."""
        undecided = sum(int((margin <= self._limit).sum()) for _, margin in self._seen)
        return undecided / sum(margin.size for _, margin in self._seen)

    @property
    def _limit(self) -> float:
        return 2 * (self._error + ROUNDINGS * float(np.finfo(np.float32).eps) * self._largest)

    def add_to(self, certificate: Certificate, name: str) -> Certificate:
        """Return a certificate with the numbers of this comparison."""
        return replace(
            certificate,
            reference="user",
            reference_name=name,
            reference_agreement=self.agreement,
            reference_undecided_share=self.undecided_share,
        )


def _are_probabilities(values: Tensor, spec: ModelSpec) -> bool:
    if values.min() < 0 or values.max() > 1 + _SUM:
        return False
    # Sigmoids of one class against the rest do not sum to one.
    if spec.output.kind == "probabilities":
        return True
    return spec.task != "semantic" or spec.num_channels == 1 or bool(((values.sum(0) - 1).abs() <= _SUM).all())


def _to_numpy(result: Tensor) -> NDArray[Any]:
    result = result.detach().cpu()
    return (result.float() if result.dtype == torch.bfloat16 else result).numpy()


def _probabilities(values: Tensor, spec: ModelSpec) -> Tensor:
    return values.softmax(0) if spec.task == "semantic" else values.sigmoid()
