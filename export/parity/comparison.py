"""ParityMetric: adds up, image by image, how far an exported pipeline is from PyTorch's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seginfer._errors import ExportError, InputError
from seginfer._segmenter import Trace
from seginfer._spec.certificate import Certificate, FlipCount, Stage
from seginfer._spec.model_spec import ModelSpec

from .torch_reference import ReferenceOutput

# How far a preprocessed value may be off, in steps of one pixel level (1/255 of the range): the worst value, and the
# mean over a channel. The uint8 libraries differ from themselves between platforms by one level in some pixels, up or
# down alike; a wrong mean, pad value or channel order moves all of them one way.
_WORST_LEVELS = {"opencv": 1.0, "pillow": 1.0, "nearest": 0.0, "torch": 0.05, "torch-antialias": 0.05}
_MEAN_LEVELS = 0.02
_FLIP_EDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the network's largest value
ROUNDINGS = 4  # the normalisation itself, computed in another order, in units in the last place


class Limits(NamedTuple):
    """What a precision may cost; beyond any of these an export is refused."""

    network_share: float
    """Error of an output value, as a share of the network's largest value."""
    channel_share: float
    """Error of an output value, as a share of its channel's largest value, so that a faint class counts too."""
    channel_floor: float
    """Share of the network's largest value below which an error is rounding, whatever the channel."""
    undecided_share: float
    """Share of pixels that need not be decisive; a comparison that decides less proves nothing."""
    pixel_agreement: float
    """Share of all pixels that must agree: beyond it, the errors that were measured are no rounding."""
    mean_iou: float
    """Agreement averaged over classes, so that a rare one counts too."""

    def loosen(self, rounding: Certificate) -> Limits:
        """Return limits of agreement that are no stricter than a few times what PyTorch's own rounding does.

        Errors are not limited then, nor what they leave undecided: one value in another place is a large error.
        """
        return self._replace(
            undecided_share=1,
            pixel_agreement=_loosen_share(self.pixel_agreement, rounding.pixel_agreement, _LEAST_AGREEMENT),
            mean_iou=_loosen_share(self.mean_iou, rounding.mean_iou, _LEAST_MEAN_IOU),
        )


# By how much a pipeline may exceed what PyTorch's own rounding does to the same images, where that exceeds the limits:
# the two round independently, so single cases differ.
_ROUNDING_FACTOR = 4
# Where rounding decides more than this, a comparison says nothing, whoever rounds.
_LEAST_AGREEMENT = 0.99
_LEAST_MEAN_IOU = 0.95

# Two correct fp32 implementations order their sums differently: 1e-6 of the largest value is usual. Weights rounded to
# fp16 give 4e-4, and activations too: 9e-4 in the logits of the shipped U-Net, 5e-3 in its probabilities, 2e-3 to 3e-3
# in ResNets and MobileNets with random weights; 7e-3 of its own largest value in a channel that is five times fainter.
# That leaves 0.06 % of the U-Net's pixels undecided and 0.002 % in another class; the limit of a tenth keeps a file
# from being called right about pixels that nothing decides.
_LIMITS = {
    "fp32": Limits(1e-4, 1e-2, 1e-5, 0.5, 0.999, 0.98),
    "fp16": Limits(1e-2, 5e-2, 1e-3, 0.1, 0.998, 0.98),
}


def _loosen_share(limit: float, own: float, least: float) -> float:
    return min(limit, max(least, 1 - _ROUNDING_FACTOR * (1 - own)))


class ParityMetric:
    """Compares traces of the exported pipeline with outputs of the reference.

    Args:
        spec: the model's contract.
        precision: of the exported graph; sets the limits.
    """

    def __init__(self, spec: ModelSpec, precision: str = "fp32") -> None:
        if precision not in _LIMITS:
            raise InputError(f"precision must be one of {', '.join(_LIMITS)}, got {precision!r}")
        self._spec = spec
        self._precision = precision
        self._images = 0
        self._largest_input = 0.0
        self._batch_error = self._batch_offset = 0.0
        self._network_error: NDArray[Any] = np.zeros(spec.num_channels)  # per channel, as is the largest value
        self._largest_value: NDArray[Any] = np.zeros(spec.num_channels)
        self._logit_error = self._logit_p999 = 0.0
        self._seen: list[tuple[NDArray[np.bool_], NDArray[np.float32]]] = []
        size = max(spec.num_classes, 2) + 1  # the last is for pixels that the network did not see
        self._confusion = np.zeros((size, size), np.int64)

    def update(self, expected: ReferenceOutput, trace: Trace, network_output: NDArray[Any]) -> None:
        """Compare one image.

        Args:
            expected: PyTorch's pipeline on the image.
            trace: the exported pipeline on the same image.
            network_output: the exported network's output for PyTorch's own batch, so that errors of the network and of
                preprocessing can be told apart.
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
        same = expected.labels == trace.mask
        self._seen.append((same, expected.margin))
        self._count(expected.labels, trace.mask)

    def compute(self, rounding: ParityMetric | None = None) -> Certificate:
        """Return the result over all images added.

        Args:
            rounding: what PyTorch's own rounding does to the same images; loosens limits that it exceeds itself.
        """
        decisive, decisive_same, same, pixels = self._pixel_counts()
        result = Certificate(
            passed=False,
            stage=None,
            precision=self._precision,
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
        if rounding is not None:
            result = replace(result, rounding_agreement=rounding.compute().pixel_agreement)
        stage = self._diverged(result, rounding)
        return replace(result, passed=stage is None, stage=stage)

    def is_network_off(self) -> bool:
        """Tell whether the network's own error exceeds the limits."""
        return bool((self._network_error > self._network_limits(_LIMITS[self._precision])).any())

    def _pixel_counts(self) -> tuple[int, int, int, int]:
        """Count decisive pixels, decisive pixels that agree, pixels that agree, and pixels."""
        rounding = ROUNDINGS * float(np.finfo(np.float32).eps) * float(self._largest_value.max())
        limit = 2 * (self._logit_error + rounding)  # known only when every image has been seen
        counts = np.zeros(4, np.int64)
        for same, margin in self._seen:
            decisive = margin > limit
            counts += [decisive.sum(), (decisive & same).sum(), same.sum(), same.size]
        a, b, c, d = (int(count) for count in counts)
        return a, b, c, d

    def _flips(self) -> tuple[FlipCount, ...]:
        """Count pixels and flips by PyTorch's margin, in decades of the largest value."""
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

    def _diverged(self, result: Certificate, rounding: ParityMetric | None) -> Stage | None:
        """Return the first stage that broke a limit."""
        limits = _LIMITS[self._precision]
        if rounding is not None:
            limits = limits.loosen(rounding.compute())
        worst, mean = self._batch_limits()
        if self._batch_error > worst or self._batch_offset > mean:
            return "preprocess"
        if self._spec.output.kind == "labels":  # no margins: every pixel counts as decisive, and near-ties may flip
            return None if result.pixel_agreement >= limits.pixel_agreement else "network"
        if rounding is None and self.is_network_off():
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
        """Return the largest absolute difference of each channel; of all labels together for kind "labels"."""
        error = _difference(a, np.broadcast_to(b, a.shape))
        if self._spec.output.kind == "labels":
            return np.full(self._spec.num_channels, error.max())
        largest: NDArray[Any] = error.max((0, 2, 3) if self._spec.output.layout == "NCHW" else (0, 1, 2))
        return largest

    def _batch_limits(self) -> tuple[float, float]:
        spec = self._spec.input
        levels = _WORST_LEVELS[spec.resampling]
        if spec.dtype == "uint8":
            return levels, _MEAN_LEVELS
        rounding = ROUNDINGS * float(np.finfo(spec.dtype).eps) * self._largest_input
        level = spec.scale / max(spec.std)
        return levels * spec.scale / min(spec.std) + rounding, _MEAN_LEVELS * level + rounding

    def _mean_offset(self, a: NDArray[Any], b: NDArray[Any]) -> float:
        """Return the largest mean difference of a channel, its sign kept while averaging."""
        axes = (0, 2, 3) if self._spec.input.layout == "NCHW" else (0, 1, 2)
        return float(np.abs((a.astype(np.float64) - b.astype(np.float64)).mean(axes)).max())

    def _count(self, labels: NDArray[np.int64], mask: NDArray[Any]) -> None:
        size = len(self._confusion)
        pairs = np.minimum(labels.ravel(), size - 1) * size + np.minimum(mask.ravel(), size - 1)
        self._confusion += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def _mean_iou(self) -> float:
        """Average over the mask values present; a multilabel task has two, set and not set."""
        both = np.diag(self._confusion)
        either = self._confusion.sum(0) + self._confusion.sum(1) - both
        return float(np.mean(both[either > 0] / either[either > 0]))


def _difference(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    if a.shape != b.shape:
        # Parity never resizes: a mask of another shape is a wrong mask.
        raise ExportError(f"PyTorch yields shape {a.shape}, the exported pipeline {b.shape}; report this as a bug")
    difference: NDArray[np.float64] = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return difference
