"""Metric of the differences between two pipelines."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seginfer._errors import ExportError
from seginfer._pipelines.pipeline import Trace
from seginfer._spec.certificate import Certificate, FlipCount, Stage
from seginfer._spec.model_spec import InputSpec, ModelSpec

from ..precision import Precision
from ..precision.limits import Limits
from .torch_reference import ReferenceOutput

# Largest error of a preprocessed value, and of the mean over a channel, in pixel levels (1/255 of the range). The uint8
# libraries differ from themselves between platforms by one level in some pixels, up or down alike. A wrong mean, pad
# value or channel order moves all pixels one way.
_WORST_LEVELS = {"opencv": 1.0, "pillow": 1.0, "nearest": 0.0, "torch": 0.05, "torch-antialias": 0.05}
_MEAN_LEVELS = 0.02
_FLIP_EDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the network's largest value
ROUNDINGS = 4
"""Error of the normalisation itself when it is computed in another order, in units in the last place."""


class ParityMetric:
    """Accumulates the differences between two pipelines.

    Args:
        spec: the model's contract.
        precision: of the exported graph. It sets the limits.
    """

    def __init__(self, spec: ModelSpec, precision: Precision) -> None:
        self._spec = spec
        self._precision = precision
        self._images = 0
        self._largest_input = 0.0
        self._batch_error = self._batch_offset = 0.0
        self._network_error: NDArray[Any] = np.zeros(spec.num_channels)  # per channel, as is the largest value
        self._largest_value: NDArray[Any] = np.zeros(spec.num_channels)
        self._logit_error = self._logit_p999 = self._typical_error = 0.0
        self._lowest: Any = None  # of PyTorch's values, per channel
        self._highest: Any = None
        self._seen: list[tuple[NDArray[np.bool_], NDArray[np.float32]]] = []
        size = max(spec.num_classes, 2) + 1  # the last is for pixels that the network did not see
        self._confusion = np.zeros((size, size), np.int64)

    def update(self, expected: ReferenceOutput, trace: Trace, network_output: NDArray[Any]) -> None:
        """Add the differences on one image.

        Args:
            expected: PyTorch's pipeline on the image.
            trace: the exported pipeline on the same image.
            network_output: the exported network's output for PyTorch's own batch. It separates errors of the network
                from errors of preprocessing.
        """
        self._images += 1
        self._largest_input = max(self._largest_input, float(np.abs(expected.batch).max()))
        self._batch_error = max(self._batch_error, float(_difference(expected.batch, trace.batch).max()))
        self._batch_offset = max(self._batch_offset, self._mean_offset(expected.batch, trace.batch))
        self._network_error = np.maximum(self._network_error, self._by_channel(expected.output, network_output))
        if self._spec.output.kind != "labels":
            self._largest_value = np.maximum(self._largest_value, self._by_channel(expected.output, 0))
            error = _difference(expected.output, trace.output)
            self._logit_error = max(self._logit_error, float(error.max()))
            self._logit_p999 = max(self._logit_p999, float(np.quantile(error, 0.999)))
            self._typical_error = max(self._typical_error, float(np.median(error)))
            self._track_range(expected.output)
        same = expected.labels == trace.mask
        self._seen.append((same, expected.margin))
        self._count(expected.labels, trace.mask)

    def compute(self, noise_floor: ParityMetric | None = None) -> Certificate:
        """Return the certificate of all images added.

        Args:
            noise_floor: differences that PyTorch's own rounding makes on the same images. They loosen the limits.
        """
        decisive, decisive_same, same, pixels = self._pixel_counts()
        result = Certificate(
            passed=True,
            stage=None,
            precision=self._precision.name,
            images=self._images,
            pixels=pixels,
            batch_max_error=self._batch_error,
            network_max_error=float(self._network_error.max()),
            logit_max_error=self._logit_error,
            logit_p999_error=self._logit_p999,
            pixel_agreement=same / pixels,
            decisive_agreement=decisive_same / decisive if decisive else 0.0,
            undecided_share=1 - decisive / pixels,
            mean_iou=self._mean_iou(),
            flips=self._flips(),
        )
        limits = self._precision.limits
        if noise_floor is not None:
            own = noise_floor.compute()
            limits = limits.loosen(own)
            result = replace(result, rounding_agreement=own.pixel_agreement)
        stage = self._find_stage(result, limits, has_noise_floor=noise_floor is not None)
        if stage in (None, "network") and (vacuous := self._find_vacuity(has_noise_floor=noise_floor is not None)):
            stage, result = "network", replace(result, finding=vacuous)
        return replace(result, passed=stage is None, stage=stage)

    def _find_vacuity(self, *, has_noise_floor: bool) -> str:
        """Return the reason why agreement would prove nothing, or ""."""
        if self._spec.output.kind == "labels":
            return ""
        rounding = self._rounding()
        if self._spec.num_channels > 1 or self._spec.task != "semantic":
            spread = np.subtract(self._highest, self._lowest)
            if (spread <= 2 * rounding).all():
                return "PyTorch's output is one constant for all pixels of all images, so nothing was compared"
        if has_noise_floor:
            # Maxima that rounding moves make a few large errors, and leave no pixel decisive. The usual error must
            # leave most of them.
            limit = 2 * (self._typical_error + rounding)
            tied = sum(int((margin <= limit).sum()) for _, margin in self._seen)
            if tied > self._precision.limits.undecided_share * sum(margin.size for _, margin in self._seen):
                return "most pixels are ties in PyTorch itself, so nothing was decided"
        return ""

    def _track_range(self, output: NDArray[Any]) -> None:
        axes = (0, 2, 3) if self._spec.output.layout == "NCHW" else (0, 1, 2)
        low, high = output.min(axes), output.max(axes)
        self._lowest = low if self._lowest is None else np.minimum(self._lowest, low)
        self._highest = high if self._highest is None else np.maximum(self._highest, high)

    def _rounding(self) -> float:
        return ROUNDINGS * float(np.finfo(np.float32).eps) * float(self._largest_value.max())

    def is_network_off(self) -> bool:
        """Return whether the network's own error exceeds the limits."""
        return bool((self._network_error > self._network_limits(self._precision.limits)).any())

    def _pixel_counts(self) -> tuple[int, int, int, int]:
        """Count pixels: decisive, decisive and equal, equal, all."""
        limit = 2 * (self._logit_error + self._rounding())  # known only when every image has been seen
        counts = np.zeros(4, np.int64)
        for same, margin in self._seen:
            decisive = margin > limit
            counts += [decisive.sum(), (decisive & same).sum(), same.sum(), same.size]
        a, b, c, d = (int(count) for count in counts)
        return a, b, c, d

    def _flips(self) -> tuple[FlipCount, ...]:
        """Count pixels and flips by decades of PyTorch's margin."""
        if self._spec.output.kind == "labels":
            return ()
        largest = float(self._largest_value.max())
        edges = [*(share * largest for share in _FLIP_EDGES), math.inf]
        counts = np.zeros((2, len(edges)), np.int64)
        for same, margin in self._seen:
            ranges = np.searchsorted(edges[:-1], margin.ravel(), side="right")
            counts[0] += np.bincount(ranges, minlength=len(edges))
            counts[1] += np.bincount(ranges[~same.ravel()], minlength=len(edges))
        return tuple(
            FlipCount(None if edge == math.inf else edge, int(pixels), int(flipped))
            for edge, pixels, flipped in zip(edges, *counts, strict=True)
        )

    def _find_stage(self, result: Certificate, limits: Limits, *, has_noise_floor: bool) -> Stage | None:
        """Return the first stage that broke a limit."""
        worst, mean = batch_limits(self._spec.input, self._largest_input)
        if self._batch_error > worst or self._batch_offset > mean:
            return "preprocess"
        if self._spec.output.kind == "labels":  # no margins: near-ties may flip
            return None if result.pixel_agreement >= limits.pixel_agreement else "network"
        if not has_noise_floor and self.is_network_off():
            return "network"
        if result.undecided_share > limits.undecided_share:
            return "network"
        if result.decisive_agreement < 1 and result.undecided_share < 1:
            return "postprocess"
        if result.pixel_agreement < limits.pixel_agreement or result.mean_iou < limits.mean_iou:
            return "preprocess" if result.logit_max_error > 2 * result.network_max_error else "network"
        return None

    def _network_limits(self, limits: Limits) -> NDArray[Any]:
        """Return the largest error that each channel may have."""
        largest = self._largest_value.max()
        faint = np.maximum(limits.channel_share * self._largest_value, limits.channel_floor * largest)
        allowed: NDArray[Any] = np.minimum(limits.network_share * largest, faint)
        return allowed

    def _by_channel(self, a: NDArray[Any], b: NDArray[Any] | int) -> NDArray[Any]:
        """Return the largest absolute difference of each channel. Labels count as one channel."""
        error = _difference(a, np.broadcast_to(b, a.shape))
        if self._spec.output.kind == "labels":
            return np.full(self._spec.num_channels, error.max())
        largest: NDArray[Any] = error.max((0, 2, 3) if self._spec.output.layout == "NCHW" else (0, 1, 2))
        return largest

    def _mean_offset(self, a: NDArray[Any], b: NDArray[Any]) -> float:
        """Return the largest mean of a channel's signed differences."""
        axes = (0, 2, 3) if self._spec.input.layout == "NCHW" else (0, 1, 2)
        return float(np.abs((a.astype(np.float64) - b.astype(np.float64)).mean(axes)).max())

    def _count(self, labels: NDArray[np.int64], mask: NDArray[Any]) -> None:
        size = len(self._confusion)
        pairs = np.minimum(labels.ravel(), size - 1) * size + np.minimum(mask.ravel(), size - 1)
        self._confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def _mean_iou(self) -> float:
        """Average over the mask values present. A multilabel task has two: set and not set."""
        both = np.diag(self._confusion)
        either = self._confusion.sum(0) + self._confusion.sum(1) - both
        return float(np.mean(both[either > 0] / either[either > 0]))


def batch_limits(spec: InputSpec, largest: float) -> tuple[float, float]:
    """Return the largest error of a network input, and that of the mean over a channel.

    Args:
        spec: input of the model.
        largest: absolute value in the input.
    """
    levels = _WORST_LEVELS[spec.resampling]
    if spec.dtype == "uint8":
        return levels, _MEAN_LEVELS
    rounding = ROUNDINGS * float(np.finfo(spec.dtype).eps) * largest
    level = spec.scale / max(spec.std)
    return levels * spec.scale / min(spec.std) + rounding, _MEAN_LEVELS * level + rounding


def _difference(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    if a.shape != b.shape:
        # Nothing is resized here: a mask of another shape is a wrong mask.
        raise ExportError(f"PyTorch yields shape {a.shape}, the exported pipeline {b.shape}; report this as a bug")
    difference: NDArray[np.float64] = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return difference
