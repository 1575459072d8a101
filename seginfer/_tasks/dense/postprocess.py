"""Masks, confidence and margin at each image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _native
from ..._errors import InputError
from ..._geometry.geometry import Geometry
from ..._geometry.tiles import image_indices
from ..._reference.taps import Floats, Mask
from ..._spec.model_spec import ModelSpec
from ..._system.arrays import check_apart
from ..._system.environment import resolve_threads
from ..task import ResultBuffers
from .decode import make_decoder
from .outputs import Output, allocate_arrays, check_has_values, split_output


def postprocess(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    *,
    remap: Sequence[int] | None = None,
    out: Sequence[Mask] | None = None,
    threads: int | None = None,
) -> list[Mask]:
    """Decode the mask output into masks at each image's own size.

    Values are cropped to the content, interpolated bilinearly to the image's pixels, and only then decided: by the
    largest channel (ties take the lowest class id), or by the threshold for binary and multilabel tasks. Logits are
    compared as logits. No activation is computed. Pixels that the network did not see get the ignore value.

    Args:
        output: (N, C, h, w) or (N, h, w, C) as the spec says, floating point. (N, h, w) integers for kind "labels".
        geometries: the N records that `preprocess` returned. All tiles of an image make one mask.
        spec: the model's contract. Its first output says how.
        remap: for each class id, the mask value to write instead, 0..65535. Not for multilabel masks.
        out: as many masks as images, to fill instead of new ones.
        threads: how many threads may work. None is every core that the process may use.

    Returns:
        One mask per image: (H, W) uint8 class ids (uint16 above 256 classes or where a remapped value needs it), or
        (C, H, W) uint8 of 0 and 1 for multilabel.

    Raises:
        InputError: if shapes disagree, or a value is NaN or infinite. What `out` holds is worthless then.

    Source:
        torch.nn.functional.interpolate(mode="bilinear") of the cropped logits, followed by argmax(1).
    """
    images = image_indices(geometries)
    table = _check_remap(remap, spec)
    masks = allocate_arrays(out, _shapes(images, geometries, spec), _mask_dtype(table, spec))
    check_apart(out, [output], "the network's output")
    _decode(output, geometries, spec, [ResultBuffers(masks[i]) for i in images], threads, table)
    return masks


def confidence(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    *,
    out: Sequence[Floats] | None = None,
    threads: int | None = None,
) -> list[Floats]:
    """Return the probability of the mask's decision at every pixel.

    Args:
        output: as in `postprocess`. Kind "labels" has no confidence.
        geometries: the N records that `preprocess` returned. All tiles of an image make one map.
        spec: the model's contract.
        out: as many float32 maps as images, to fill instead of new ones.
        threads: as in `postprocess`.

    Returns:
        One map per image, (H, W) float32 in 0..1: the probability of the pixel's label. For multilabel (C, H, W): the
        probability that each class is set. Unseen pixels are 0.

    Raises:
        InputError: if shapes disagree, a value is not finite, or the output holds labels.

    Source:
        softmax (semantic) or sigmoid (binary, multilabel) of interpolated logits. Probabilities are kept as they are.
    """
    return _fill_maps("confidence", output, geometries, spec, out, threads)


def margin(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    *,
    out: Sequence[Floats] | None = None,
    threads: int | None = None,
) -> list[Floats]:
    """Return the margin of the mask's decision, in the unit of the output.

    Args:
        output: as in `postprocess`. Kind "labels" has no margin.
        geometries: the N records that `preprocess` returned. All tiles of an image make one map.
        spec: the model's contract.
        out: as many float32 maps as images, to fill instead of new ones.
        threads: as in `postprocess`.

    Returns:
        One map per image, (H, W) float32, not negative: the largest interpolated value less the next. Infinite for a
        single class. For binary, and multilabel (C, H, W): the distance to the threshold. Unseen pixels are 0.

    Raises:
        InputError: if shapes disagree, a value is not finite, or the output holds labels.
    """
    return _fill_maps("margin", output, geometries, spec, out, threads)


def _decode(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    buffers: Sequence[ResultBuffers],
    threads: int | None,
    remap: tuple[int, ...] = (),
) -> None:
    """Write the part of every geometry. Tiles of an image share buffers."""
    pool = _native.shared_threads(resolve_threads(threads))
    parts = split_output(output, len(geometries), spec)
    for part, geometry, target in zip(parts, geometries, buffers, strict=True):
        make_decoder(geometry, (part.shape[0], part.shape[1]), spec, remap)(part, target, pool)


def _fill_maps(
    field: str,
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    out: Sequence[Floats] | None,
    threads: int | None,
) -> list[Floats]:
    images = image_indices(geometries)
    check_has_values(spec)
    shapes = _shapes(images, geometries, spec)
    maps = allocate_arrays(out, shapes, np.dtype(np.float32))
    masks = allocate_arrays(None, shapes, spec.mask_dtype)
    check_apart(out, [output], "the network's output")
    _decode(output, geometries, spec, [ResultBuffers(masks[i], **{field: maps[i]}) for i in images], threads)
    return maps


def _shapes(images: Sequence[int], geometries: Sequence[Geometry], spec: ModelSpec) -> list[tuple[int, ...]]:
    """Return the shape of the result of every image."""
    planes = (spec.num_classes,) if spec.task == "multilabel" else ()
    sizes = dict(zip(images, (geometry.image_hw for geometry in geometries), strict=True))
    return [(*planes, *sizes[i]) for i in range(len(sizes))]


def _check_remap(remap: Sequence[int] | None, spec: ModelSpec) -> tuple[int, ...]:
    if remap is None:
        return ()
    if spec.task == "multilabel":
        raise InputError("a multilabel mask holds 0 and 1, got remap; reorder its planes instead")
    try:
        table = tuple(int(value) for value in remap)
    except (TypeError, ValueError) as error:
        raise InputError(f"remap must be one mask value per class, got {type(remap).__name__} ({error})") from error
    if len(table) != spec.num_classes or not all(0 <= value < 65536 for value in table):
        raise InputError(f"remap must hold {spec.num_classes} values of 0..65535, one per class, got {table}")
    return table


def _mask_dtype(table: tuple[int, ...], spec: ModelSpec) -> np.dtype[Any]:
    largest = max((*table, spec.ignore_value))
    return np.dtype(np.uint8 if largest < 256 else np.uint16) if table else spec.mask_dtype
