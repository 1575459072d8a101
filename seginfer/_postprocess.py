"""postprocess(): the network's output into masks at each image's own size; confidence() beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _reference
from ._errors import InputError
from ._geometry import Geometry, Size
from ._reference import Floats, Mask, Taps
from ._spec import ModelSpec
from ._tiles import image_indices, window_of

Output = NDArray[Any]


def postprocess(
    output: Output, geometries: Sequence[Geometry], spec: ModelSpec, *, out: Sequence[Mask] | None = None
) -> list[Mask]:
    """Turn the network's mask output into masks at each image's own size.

    Values are cropped to the content, interpolated bilinearly to the image's pixels, and only then decided: by the
    largest channel (ties take the lowest class id), or by the threshold for binary and multilabel tasks. Logits are
    compared as logits; no activation is computed. Pixels that the network did not see get the ignore value.

    Args:
        output: (N, C, h, w) or (N, h, w, C) as the spec says, floating point; (N, h, w) integers for kind "labels".
        geometries: the N records that `preprocess` returned; all tiles of an image make one mask.
        spec: the model's contract; its first output says how.
        out: as many masks as images, to fill instead of new ones.

    Returns:
        One mask per image: (H, W) uint8 class ids (uint16 above 256 classes), or (C, H, W) uint8 of 0 and 1 for
        multilabel.

    Raises:
        InputError: if shapes disagree, or a value is NaN or infinite.

    Source:
        torch.nn.functional.interpolate(mode="bilinear") of the cropped logits, followed by argmax(1).
    """
    images = image_indices(geometries)
    masks = checked_masks(out, _first_of(images, geometries), spec)
    fill_masks(output, geometries, spec, [masks[i] for i in images])
    return masks


def fill_masks(output: Output, geometries: Sequence[Geometry], spec: ModelSpec, masks: Sequence[Mask]) -> None:
    """Write, for each geometry, the part that it answers for into its mask; the tiles of an image share one mask.

    Arguments and errors as of `postprocess`, but for `masks`: one per geometry, of the right shape and dtype.
    """
    values = _checked_output(output, geometries, spec)
    for one, geometry, mask in zip(values, geometries, masks, strict=True):
        if _has_unseen(geometry):
            mask[...] = spec.ignore_value
        seen = _visible(mask, geometry)
        if spec.output.kind == "labels":
            seen[...] = one[np.ix_(*_label_cells(geometry, one.shape, spec))]
        else:
            rows, cols = taps_of(geometry, one.shape[:2], spec)
            for channels, target in _decisions(one, seen, spec):
                _reference.classify_pixels(channels, rows, cols, _classifier(spec), target)


def confidence(
    output: Output, geometries: Sequence[Geometry], spec: ModelSpec, *, out: Sequence[Floats] | None = None
) -> list[Floats]:
    """Return how probable the mask's decision is at every pixel.

    Args:
        output: as in `postprocess`; kind "labels" has no confidence.
        geometries: the N records that `preprocess` returned; all tiles of an image make one map.
        spec: the model's contract.
        out: as many float32 maps as images, to fill instead of new ones.

    Returns:
        One map per image, (H, W) float32 in 0..1: the probability of the pixel's label. For multilabel (C, H, W): the
        probability that each class is set. Unseen pixels are 0.

    Raises:
        InputError: if shapes disagree, a value is not finite, or the output holds labels.

    Source:
        softmax (semantic) or sigmoid (binary, multilabel) of interpolated logits; probabilities are kept as they are.
    """
    images = image_indices(geometries)
    maps = checked_maps(out, _first_of(images, geometries), spec)
    fill_confidence(output, geometries, spec, [maps[i] for i in images])
    return maps


def fill_confidence(output: Output, geometries: Sequence[Geometry], spec: ModelSpec, maps: Sequence[Floats]) -> None:
    """Write confidence as `fill_masks` writes masks."""
    values = _checked_output(output, geometries, spec)
    for one, geometry, result in zip(values, geometries, maps, strict=True):
        if _has_unseen(geometry):
            result[...] = 0
        seen = _visible(result, geometry)
        rows, cols = taps_of(geometry, one.shape[:2], spec)
        for part, interpolated in _reference.interpolated_rows(one, rows, cols):
            seen[..., part, :] = _probability(interpolated, spec)


def check_has_confidence(spec: ModelSpec) -> None:
    """Raise an InputError if the network yields labels, which say nothing of how sure it was."""
    if spec.output.kind == "labels":
        raise InputError("an output of kind 'labels' has no confidence; export the model with its logits")


def taps_of(geometry: Geometry, logits_hw: Size, spec: ModelSpec) -> tuple[Taps, Taps]:
    """Return the row and column taps from the visible image pixels into the logits of the graph.

    Those of a tile are the taps of one pass over the whole image, moved.
    """
    window = window_of(geometry, logits_hw, spec)
    rows, cols = (
        _reference.windowed(taps, window.corner_yx[axis], logits_hw[axis])
        for axis, taps in enumerate(_graph_taps(window.whole, window.output_hw, spec))
    )
    return rows, cols


def _graph_taps(geometry: Geometry, logits_hw: Size, spec: ModelSpec) -> tuple[Taps, Taps]:
    upsample = spec.output.upsample
    if upsample is None:
        return _placed_taps(geometry, logits_hw, spec.output.align_corners)
    upsampled_hw = (logits_hw[0] * upsample.factor, logits_hw[1] * upsample.factor)
    rows, cols = _placed_taps(geometry, upsampled_hw, spec.output.align_corners)
    inner = [
        _reference.upsampling_taps(n, m, align_corners=upsample.align_corners)
        for n, m in zip(logits_hw, upsampled_hw, strict=True)
    ]
    return _reference.compose(rows, inner[0]), _reference.compose(cols, inner[1])


def _placed_taps(geometry: Geometry, logits_hw: Size, align_corners: bool) -> tuple[Taps, Taps]:
    """Return the taps from the visible image pixels into logits that cover the network's input."""
    g = geometry
    aligned = all(
        _reference.is_aligned(g.resized_hw[axis], g.offset_yx[axis], g.input_hw[axis], logits_hw[axis], align_corners)
        for axis in (0, 1)
    )
    rows, cols = (
        _reference.mask_taps(
            g.image_hw[axis],
            g.resized_hw[axis],
            g.offset_yx[axis],
            g.input_hw[axis],
            logits_hw[axis],
            (g.visible[axis], g.visible[axis + 2]),
            align_corners=align_corners,
            real=np.float32 if aligned else np.float64,
        )
        for axis in (0, 1)
    )
    return rows, cols


def logit_threshold(spec: ModelSpec) -> np.float32:
    """Return the value that a binary or multilabel output must exceed: the threshold, as a logit where it is one."""
    p = spec.output.threshold
    threshold: np.float32 = np.float32(math.log(p / (1 - p)) if spec.output.kind == "logits" else p)
    return threshold


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


def _label_cells(geometry: Geometry, labels_hw: Size, spec: ModelSpec) -> list[NDArray[np.intp]]:
    g, whole_hw, corner_yx = window_of(geometry, labels_hw, spec)
    return [
        _reference.nearest_labels(
            g.image_hw[axis],
            g.resized_hw[axis],
            g.offset_yx[axis],
            g.input_hw[axis],
            whole_hw[axis],
            (g.visible[axis], g.visible[axis + 2]),
        )
        - corner_yx[axis]
        for axis in (0, 1)
    ]


def _visible(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Return the view of the pixels that the network saw."""
    rows, cols = geometry.visible.slices
    return array[..., rows, cols]


def _has_unseen(geometry: Geometry) -> bool:
    """Tell whether pixels stay unseen; what one tile does not see, another does."""
    return geometry.tile is None and (geometry.visible.height, geometry.visible.width) != geometry.image_hw


def _first_of(images: Sequence[int], geometries: Sequence[Geometry]) -> list[Geometry]:
    """Return one geometry of every image."""
    first: dict[int, Geometry] = {}
    for i, geometry in zip(images, geometries, strict=True):
        first.setdefault(i, geometry)
    return list(first.values())


def _mask_shape(image_hw: Size, spec: ModelSpec) -> tuple[int, ...]:
    return (spec.num_classes, *image_hw) if spec.task == "multilabel" else image_hw


def _checked_output(output: Output, geometries: Sequence[Geometry], spec: ModelSpec) -> Output:
    """Return the output as (N, h, w, C) float32, or (N, h, w) labels."""
    n = len(geometries)
    if not isinstance(output, np.ndarray):
        raise InputError(f"expected the network's output as a NumPy array, got {type(output).__name__}")
    if spec.output.kind == "labels":
        return _checked_labels(output, n, spec)
    expected = f"{n} x {spec.num_channels} channels in {spec.output.layout}"
    if output.ndim != 4 or output.dtype.kind != "f":
        raise InputError(f"expected a floating-point output of {expected}, got {output.dtype} {output.shape}")
    values = output.transpose(0, 2, 3, 1) if spec.output.layout == "NCHW" else output
    if values.shape[0] != n or values.shape[3] != spec.num_channels or 0 in values.shape:
        raise InputError(f"expected an output of {expected}, got shape {output.shape}")
    if not np.isfinite(values.min()) or not np.isfinite(values.max()):  # both carry a NaN on
        raise InputError(
            "the network's output holds NaN or infinite values; check the input, the weights and the precision"
        )
    return np.ascontiguousarray(values, np.float32)


def _checked_labels(output: Output, n: int, spec: ModelSpec) -> Output:
    channel = 1 if spec.output.layout == "NCHW" else 3
    if output.ndim == 4 and output.shape[channel] == 1:
        output = output.squeeze(channel)
    if output.ndim != 3 or output.shape[0] != n or output.dtype.kind not in "iu" or 0 in output.shape:
        raise InputError(f"expected labels as integers ({n}, h, w), got {output.dtype} {output.shape}")
    if output.min() < 0 or output.max() >= spec.num_classes:
        raise InputError(
            f"expected labels below {spec.num_classes}, got {output.min()}..{output.max()}; check classes.names"
        )
    return output.astype(spec.mask_dtype)


def checked_masks(out: Sequence[Mask] | None, geometries: Sequence[Geometry], spec: ModelSpec) -> list[Mask]:
    """Return the masks to fill: new ones, or `out` if every array fits its image."""
    return _checked_arrays(out, [_mask_shape(geometry.image_hw, spec) for geometry in geometries], spec.mask_dtype)


def checked_maps(out: Sequence[Floats] | None, geometries: Sequence[Geometry], spec: ModelSpec) -> list[Floats]:
    """Return the confidence maps to fill: new ones, or `out` if every array fits its image.

    Raises:
        InputError: if one does not, or the network yields labels, which say nothing of how sure it was.
    """
    check_has_confidence(spec)
    shapes = [_mask_shape(geometry.image_hw, spec) for geometry in geometries]
    return _checked_arrays(out, shapes, np.dtype(np.float32))


def _checked_arrays(
    out: Sequence[NDArray[Any]] | None, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]
) -> list[NDArray[Any]]:
    if out is None:
        return [np.empty(shape, dtype) for shape in shapes]
    if not isinstance(out, (list, tuple, np.ndarray)) or len(out) != len(shapes):
        got = len(out) if isinstance(out, (list, tuple, np.ndarray)) else type(out).__name__
        raise InputError(f"out must hold {len(shapes)} arrays, one per image, got {got}")
    for array, shape in zip(out, shapes, strict=True):
        if (
            not isinstance(array, np.ndarray)
            or array.shape != shape
            or array.dtype != dtype
            or not array.flags.writeable
        ):
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"out must be a writable {dtype} array of shape {shape}, got {got}")
    if any(np.may_share_memory(a, b) for i, a in enumerate(out) for b in out[:i]):
        raise InputError("out must hold arrays that do not overlap; allocate one per image")
    return list(out)
