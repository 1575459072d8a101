"""One image's results from one image's output: through the compiled core, or by the specification in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import _native
from ..._errors import InputError
from ..._geometry.geometry import Geometry, Size
from ..._geometry.tiles import window_of
from ..._reference.mask import classify_pixels, interpolated_rows, margins
from ..._reference.taps import Floats, Mask
from ..._spec.model_spec import ModelSpec
from .outputs import NOT_FINITE, Output, as_finite_floats
from .taps import label_cells, taps_of


class Results(NamedTuple):
    """The arrays that one image's results go to, (H, W) or (C, H, W); tiles of an image share them."""

    mask: Mask
    confidence: Floats | None = None
    margin: Floats | None = None


FillResults = Callable[[Output, Results, Any], None]
"""Writes results from an (h, w, C) output or (h, w) labels, with a pool of threads of the core."""


def filler_of(geometry: Geometry, output_hw: Size, spec: ModelSpec, remap: tuple[int, ...] = ()) -> FillResults:
    """Return what fills the results of images of one geometry from outputs of one size.

    Raises:
        InputError: if an output of this size contradicts the spec.
    """
    if _native.core is None:
        return lambda output, results, _: _fill(output, results, geometry, spec, remap)
    return _native_filler(geometry, output_hw, spec, remap)


def logit_threshold(spec: ModelSpec) -> np.float32:
    """Return the value that a binary or multilabel output must exceed: the threshold, as a logit where it is one."""
    p = spec.output.threshold
    threshold: np.float32 = np.float32(math.log(p / (1 - p)) if spec.output.kind == "logits" else p)
    return threshold


def _has_unseen(geometry: Geometry) -> bool:
    """Tell whether pixels stay unseen; what one tile does not see, another does."""
    return geometry.tile is None and (geometry.visible.height, geometry.visible.width) != geometry.image_hw


def _clear(results: Results, spec: ModelSpec) -> None:
    """Mark every pixel as unseen."""
    results.mask[...] = spec.ignore_value
    for values in (results.confidence, results.margin):
        if values is not None:
            values[...] = 0


# ------------------------------------------------------------------------------------------------ the compiled core


@lru_cache(maxsize=256)
def _native_filler(geometry: Geometry, output_hw: Size, spec: ModelSpec, remap: tuple[int, ...]) -> FillResults:
    """Plan once per size; a plan holds what depends on sizes, so that a frame costs no more than its pixels."""
    if spec.output.kind == "labels":
        return _native_label_filler(geometry, output_hw, spec, remap)
    window, has_unseen = window_of(geometry, output_hw, spec), _has_unseen(geometry)
    upsample = spec.output.upsample
    plan = _native.core.MaskDecoder(
        **_native.placement(window.whole),
        whole_hw=window.output_hw,
        corner_yx=window.corner_yx,
        logits_hw=output_hw,
        visible=tuple(window.whole.visible),
        channels=spec.num_channels,
        decision={"semantic": "argmax", "binary": "threshold", "multilabel": "each"}[spec.task],
        threshold=float(logit_threshold(spec)),
        is_logits=spec.output.kind == "logits",
        align_corners=spec.output.align_corners,
        upsampling=upsample.factor if upsample else 0,
        upsampling_align_corners=bool(upsample and upsample.align_corners),
        table=list(remap),
    )

    def fill(output: Output, results: Results, threads: Any) -> None:
        if not output.flags.aligned or not output.dtype.isnative or min(output.strides) < 0:
            output = np.ascontiguousarray(output, np.float32)
        direct = Results(_direct(results.mask), _direct(results.confidence), _direct(results.margin))
        if has_unseen:
            _clear(direct, spec)
        if not plan.fill(output, direct.mask, direct.confidence, direct.margin, threads):
            raise InputError(NOT_FINITE)
        _copy_back(direct, results)

    return fill


def _native_label_filler(geometry: Geometry, labels_hw: Size, spec: ModelSpec, remap: tuple[int, ...]) -> FillResults:
    window, has_unseen = window_of(geometry, labels_hw, spec), _has_unseen(geometry)
    plan = _native.core.LabelResampler(
        **_native.placement(window.whole),
        whole_hw=window.output_hw,
        corner_yx=window.corner_yx,
        labels_hw=labels_hw,
        visible=tuple(window.whole.visible),
    )

    def fill(labels: Output, results: Results, threads: Any) -> None:
        direct = Results(_direct(results.mask))
        if has_unseen:
            _clear(direct, spec)
        plan.fill(_remapped(labels, remap, direct.mask), direct.mask, threads)
        _copy_back(direct, results)

    return fill


def _direct(array: NDArray[Any] | None) -> Any:
    """Return an array that the core can write to: the given one, or a copy of it."""
    return array if array is None or _native.has_packed_rows(array, 1) else array.copy("C")


def _copy_back(direct: Results, results: Results) -> None:
    for array, target in zip(direct, results, strict=True):
        if target is not None and array is not target:
            target[...] = array


# ------------------------------------------------------------------------------------------------ the specification


def _fill(output: Output, results: Results, geometry: Geometry, spec: ModelSpec, remap: tuple[int, ...]) -> None:
    """Write what the geometry answers for."""
    if spec.output.kind == "labels":
        if _has_unseen(geometry):
            _clear(results, spec)
        cells = np.ix_(*label_cells(geometry, output.shape[:2], spec))
        _seen(results.mask, geometry)[...] = _remapped(output, remap, results.mask)[cells]
        return
    values = as_finite_floats(output)
    if _has_unseen(geometry):
        _clear(results, spec)
    rows, cols = taps_of(geometry, values.shape[:2], spec)
    seen = _seen(results.mask, geometry)
    for channels, target in _decisions(values, seen, spec):
        classify_pixels(channels, rows, cols, _classifier(spec), target)
    if remap:
        seen[...] = _remapped(seen, remap, seen)
    if results.confidence is None and results.margin is None:
        return
    for part, interpolated in interpolated_rows(values, rows, cols):
        if results.confidence is not None:
            _seen(results.confidence, geometry)[..., part, :] = _probability(interpolated, spec)
        if results.margin is not None:
            _seen(results.margin, geometry)[..., part, :] = _margin(interpolated, spec)


def _remapped(labels: Output, remap: tuple[int, ...], like: Mask) -> Mask:
    return np.array(remap, like.dtype)[labels] if remap else labels


def _classifier(spec: ModelSpec) -> Callable[[Floats], Mask]:
    if spec.task == "semantic":
        return lambda values: values.argmax(-1)
    threshold = logit_threshold(spec)
    return lambda values: values[..., 0] > threshold


def _decisions(one: Floats, mask: Mask, spec: ModelSpec) -> list[tuple[Floats, Mask]]:
    """Pair the channels that are decided together with the mask plane that they decide."""
    if spec.task == "multilabel":
        return [(one[..., c : c + 1], mask[c]) for c in range(spec.num_classes)]
    return [(one, mask)]


def _probability(values: Floats, spec: ModelSpec) -> Floats:
    """Map interpolated (rows, W, C) values to the confidence of (rows, W), or (C, rows, W) for multilabel."""
    is_logits = spec.output.kind == "logits"
    result: Floats
    if spec.task == "semantic":
        best = values.max(-1)
        result = 1 / np.exp(values - best[..., None]).sum(-1) if is_logits else best
        return result
    result = np.moveaxis(0.5 * (1 + np.tanh(0.5 * values)) if is_logits else values, -1, 0)  # tanh cannot overflow
    if spec.task == "binary":
        result = np.where(values[..., 0] > logit_threshold(spec), result[0], 1 - result[0])
    return result


def _margin(values: Floats, spec: ModelSpec) -> Floats:
    """Map interpolated (rows, W, C) values to the margin of (rows, W), or (C, rows, W) for multilabel."""
    if spec.task == "semantic":
        return margins(values)
    distance: Floats = np.abs(np.moveaxis(values, -1, 0) - logit_threshold(spec))
    return distance if spec.task == "multilabel" else distance[0]


def _seen(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Return the view of the pixels that the network saw."""
    rows, cols = geometry.visible.slices
    return array[..., rows, cols]
