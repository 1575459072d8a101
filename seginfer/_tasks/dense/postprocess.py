"""postprocess(): the network's output into masks at each image's own size; confidence() and margin() beside it."""

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
from ..._system.limits import checked_threads
from .decode import Results, filler_of
from .outputs import Output, checked_maps, checked_masks, checked_output
from .taps import taps_of

__all__ = ["confidence", "fill_results", "margin", "postprocess", "taps_of"]


def postprocess(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    *,
    remap: Sequence[int] | None = None,
    out: Sequence[Mask] | None = None,
    threads: int | None = None,
) -> list[Mask]:
    """Turn the network's mask output into masks at each image's own size.

    Values are cropped to the content, interpolated bilinearly to the image's pixels, and only then decided: by the
    largest channel (ties take the lowest class id), or by the threshold for binary and multilabel tasks. Logits are
    compared as logits; no activation is computed. Pixels that the network did not see get the ignore value.

    Args:
        output: (N, C, h, w) or (N, h, w, C) as the spec says, floating point; (N, h, w) integers for kind "labels".
        geometries: the N records that `preprocess` returned; all tiles of an image make one mask.
        spec: the model's contract; its first output says how.
        remap: for each class id, the mask value to write instead, 0..65535; not for multilabel masks.
        out: as many masks as images, to fill instead of new ones.
        threads: how many threads may work; None is every core that the process may use.

    Returns:
        One mask per image: (H, W) uint8 class ids (uint16 above 256 classes or where a remapped value needs it), or
        (C, H, W) uint8 of 0 and 1 for multilabel.

    Raises:
        InputError: if shapes disagree, or a value is NaN or infinite; what `out` holds is worthless then.

    Source:
        torch.nn.functional.interpolate(mode="bilinear") of the cropped logits, followed by argmax(1).
    """
    images = image_indices(geometries)
    table = _checked_remap(remap, spec)
    masks = checked_masks(out, _first_of(images, geometries), spec, _mask_dtype(table, spec))
    check_apart(out, [output], "the network's output")
    results = [Results(masks[i]) for i in images]
    fill_results(output, geometries, spec, results, remap=table, threads=_threads(threads))
    return masks


def confidence(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    *,
    out: Sequence[Floats] | None = None,
    threads: int | None = None,
) -> list[Floats]:
    """Return how probable the mask's decision is at every pixel.

    Args:
        output: as in `postprocess`; kind "labels" has no confidence.
        geometries: the N records that `preprocess` returned; all tiles of an image make one map.
        spec: the model's contract.
        out: as many float32 maps as images, to fill instead of new ones.
        threads: as in `postprocess`.

    Returns:
        One map per image, (H, W) float32 in 0..1: the probability of the pixel's label. For multilabel (C, H, W): the
        probability that each class is set. Unseen pixels are 0.

    Raises:
        InputError: if shapes disagree, a value is not finite, or the output holds labels.

    Source:
        softmax (semantic) or sigmoid (binary, multilabel) of interpolated logits; probabilities are kept as they are.
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
    """Return by how much the mask's decision was won at every pixel, in the unit of the output.

    Args:
        output: as in `postprocess`; kind "labels" has no margin.
        geometries: the N records that `preprocess` returned; all tiles of an image make one map.
        spec: the model's contract.
        out: as many float32 maps as images, to fill instead of new ones.
        threads: as in `postprocess`.

    Returns:
        One map per image, (H, W) float32, not negative: the largest interpolated value less the next; infinite for a
        single class. For binary, and multilabel (C, H, W): the distance to the threshold. Unseen pixels are 0.

    Raises:
        InputError: if shapes disagree, a value is not finite, or the output holds labels.
    """
    return _fill_maps("margin", output, geometries, spec, out, threads)


def fill_results(
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    results: Sequence[Results],
    *,
    remap: tuple[int, ...] = (),
    threads: Any = None,
) -> None:
    """Write, for each geometry, the part that it answers for into its results; the tiles of an image share them.

    Arguments and errors as of `postprocess`, but for `results`: one per geometry, of the right shapes and dtypes; and
    `threads`: a pool.
    """
    values = checked_output(output, len(geometries), spec)
    for one, geometry, result in zip(values, geometries, results, strict=True):
        filler_of(geometry, (one.shape[0], one.shape[1]), spec, remap)(one, result, threads)


def _fill_maps(
    field: str,
    output: Output,
    geometries: Sequence[Geometry],
    spec: ModelSpec,
    out: Sequence[Floats] | None,
    threads: int | None,
) -> list[Floats]:
    images = image_indices(geometries)
    first = _first_of(images, geometries)
    maps, masks = checked_maps(out, first, spec), checked_masks(None, first, spec)
    check_apart(out, [output], "the network's output")
    results = [Results(masks[i], **{field: maps[i]}) for i in images]
    fill_results(output, geometries, spec, results, threads=_threads(threads))
    return maps


def _threads(threads: int | None) -> Any:
    return _native.shared_threads(checked_threads(threads))


def _first_of(images: Sequence[int], geometries: Sequence[Geometry]) -> list[Geometry]:
    """Return one geometry of every image."""
    first: dict[int, Geometry] = {}
    for i, geometry in zip(images, geometries, strict=True):
        first.setdefault(i, geometry)
    return list(first.values())


def _checked_remap(remap: Sequence[int] | None, spec: ModelSpec) -> tuple[int, ...]:
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
