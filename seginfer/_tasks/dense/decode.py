"""Decoding of one image, by the compiled core or the NumPy reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import _native
from ..._errors import InputError
from ..._geometry.geometry import Geometry, Size
from ..._geometry.tiles import window_of
from ..._reference.mask import classify_pixels, interpolate_rows, margins
from ..._reference.taps import Floats, Mask
from ..._spec.model_spec import ModelSpec
from ..task import Decode, ResultBuffers
from .outputs import NOT_FINITE, Output, finite_floats, masks_of_labels
from .taps import label_cells, taps_of


def make_decoder(geometry: Geometry, output_hw: Size, spec: ModelSpec, remap: tuple[int, ...] = ()) -> Decode:
    """Plan the decoding of images of one geometry and output size.

    It takes (h, w, C) values or (h, w) labels, as `split_output` returns them.

    Raises:
        InputError: if an output of this size contradicts the spec.
    """
    if _native.core is None:
        return lambda output, buffers, _: _decode(output, buffers, geometry, spec, remap)
    return _make_native_decoder(geometry, output_hw, spec, remap)


def logit_threshold(spec: ModelSpec) -> np.float32:
    """Return the threshold of a binary or multilabel output, in its unit."""
    p = spec.output.threshold
    threshold: np.float32 = np.float32(math.log(p / (1 - p)) if spec.output.kind == "logits" else p)
    return threshold


def has_unseen(geometry: Geometry) -> bool:
    """Tell whether some pixels of the image are not seen. What one tile does not see, another does."""
    return geometry.tile is None and (geometry.visible.height, geometry.visible.width) != geometry.image_hw


def clear(buffers: Sequence[object], spec: ModelSpec) -> None:
    """Mark every pixel of mask, confidence and margin as unseen. Tensors on a GPU are left out."""
    for values, unseen in zip(buffers, (spec.ignore_value, 0, 0), strict=True):
        if isinstance(values, np.ndarray):
            values[...] = unseen


# ------------------------------------------------------------------------------------------------ the compiled core


@lru_cache(maxsize=256)
def _make_native_decoder(geometry: Geometry, output_hw: Size, spec: ModelSpec, remap: tuple[int, ...]) -> Decode:
    """Plan once per size. A frame then costs no more than its pixels."""
    if spec.output.kind == "labels":
        return _make_native_label_decoder(geometry, output_hw, spec, remap)
    window, is_partial = window_of(geometry, output_hw, spec), has_unseen(geometry)
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

    def decode(output: Output, buffers: ResultBuffers, threads: Any) -> None:
        flags, dtype = output.flags, output.dtype
        if dtype.char not in "ef" or not flags.aligned or not dtype.isnative or min(output.strides) < 0:
            output = np.ascontiguousarray(output, np.float32)
        direct = _direct(buffers)
        if is_partial:
            clear(direct, spec)
        if not plan.fill(output, direct.mask, direct.confidence, direct.margin, threads):
            raise InputError(NOT_FINITE)
        if direct is not buffers:
            _copy_back(direct, buffers)

    return decode


def _make_native_label_decoder(geometry: Geometry, labels_hw: Size, spec: ModelSpec, remap: tuple[int, ...]) -> Decode:
    window, is_partial = window_of(geometry, labels_hw, spec), has_unseen(geometry)
    plan = _native.core.LabelResampler(
        **_native.placement(window.whole),
        whole_hw=window.output_hw,
        corner_yx=window.corner_yx,
        labels_hw=labels_hw,
        visible=tuple(window.whole.visible),
    )

    def decode(labels: Output, buffers: ResultBuffers, threads: Any) -> None:
        labels = masks_of_labels(labels, spec)
        direct = _direct(buffers)
        if is_partial:
            clear(direct, spec)
        plan.fill(_remapped(labels, remap, direct.mask), direct.mask, threads)
        if direct is not buffers:
            _copy_back(direct, buffers)

    return decode


def _direct(buffers: ResultBuffers) -> ResultBuffers:
    """Return the buffers, or copies where the core cannot write to them."""
    for array in buffers:
        if array is not None and not _native.has_packed_rows(array, 1):
            mask, *maps = (None if array is None else array.copy("C") for array in buffers)
            return ResultBuffers(mask, *maps)
    return buffers


def _copy_back(direct: ResultBuffers, buffers: ResultBuffers) -> None:
    for array, target in zip(direct, buffers, strict=True):
        if target is not None:
            target[...] = array


# ------------------------------------------------------------------------------------------------ the specification


def _decode(
    output: Output, buffers: ResultBuffers, geometry: Geometry, spec: ModelSpec, remap: tuple[int, ...]
) -> None:
    """Write the visible part of the image."""
    is_labels = spec.output.kind == "labels"
    values = masks_of_labels(output, spec) if is_labels else finite_floats(output)
    if has_unseen(geometry):
        clear(buffers, spec)
    seen = _seen(buffers.mask, geometry)
    if is_labels:
        cells = np.ix_(*label_cells(geometry, values.shape[:2], spec))
        seen[...] = _remapped(values, remap, buffers.mask)[cells]
        return
    rows, cols = taps_of(geometry, values.shape[:2], spec)
    for channels, target in _decisions(values, seen, spec):
        classify_pixels(channels, rows, cols, _classifier(spec), target)
    if remap:
        seen[...] = _remapped(seen, remap, seen)
    if buffers.confidence is None and buffers.margin is None:
        return
    for part, interpolated in interpolate_rows(values, rows, cols):
        if buffers.confidence is not None:
            _seen(buffers.confidence, geometry)[..., part, :] = _probability(interpolated, spec)
        if buffers.margin is not None:
            _seen(buffers.margin, geometry)[..., part, :] = _margin(interpolated, spec)


def _remapped(labels: Output, remap: tuple[int, ...], like: Mask) -> Mask:
    return np.array(remap, like.dtype)[labels] if remap else labels


def _classifier(spec: ModelSpec) -> Callable[[Floats], Mask]:
    if spec.task == "semantic":
        return lambda values: values.argmax(-1)
    threshold = logit_threshold(spec)
    return lambda values: values[..., 0] > threshold


def _decisions(one: Floats, mask: Mask, spec: ModelSpec) -> list[tuple[Floats, Mask]]:
    """Pair channels with the mask plane that they decide."""
    if spec.task == "multilabel":
        return [(one[..., c : c + 1], mask[c]) for c in range(spec.num_classes)]
    return [(one, mask)]


def _probability(values: Floats, spec: ModelSpec) -> Floats:
    """Return the confidence of interpolated (rows, W, C) values.

    Its shape is (rows, W), or (C, rows, W) for multilabel.
    """
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
    """Return the margin of interpolated (rows, W, C) values.

    Its shape is (rows, W), or (C, rows, W) for multilabel.
    """
    if spec.task == "semantic":
        return margins(values)
    distance: Floats = np.abs(np.moveaxis(values, -1, 0) - logit_threshold(spec))
    return distance if spec.task == "multilabel" else distance[0]


def _seen(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Return the view of the pixels that the network saw."""
    rows, cols = geometry.visible.slices
    return array[..., rows, cols]
