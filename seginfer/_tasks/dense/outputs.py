"""What the network yields and what results are written to: both are checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import InputError
from ..._geometry.geometry import Geometry, Size
from ..._reference.taps import Floats, Mask
from ..._spec.model_spec import MAX_SIDE, ModelSpec
from ..._system.arrays import check_no_overlap

Output = NDArray[Any]

NOT_FINITE = "the network's output holds NaN or infinite values; check the input, the weights and the precision"


def checked_output(output: Output, count: int, spec: ModelSpec) -> Output:
    """Return the output of `count` images as (N, h, w, C) float32 or float16, or (N, h, w) labels.

    Values may still be NaN or infinite.

    Raises:
        InputError: if it is not what the spec says.
    """
    if not isinstance(output, np.ndarray):
        raise InputError(f"expected the network's output as a NumPy array, got {type(output).__name__}")
    if spec.output.kind == "labels":
        return _checked_labels(output, count, spec)
    if output.ndim != 4 or output.dtype.kind != "f":
        raise InputError(f"{_expected(count, spec)}, got {output.dtype} {output.shape}")
    values = output.transpose(0, 2, 3, 1) if spec.output.layout == "NCHW" else output
    if values.shape[0] != count or values.shape[3] != spec.num_channels or 0 in values.shape:
        raise InputError(f"{_expected(count, spec)}, got shape {output.shape}")
    if max(values.shape) > MAX_SIDE:
        raise InputError(f"the output must have sides of at most {MAX_SIDE}, got shape {output.shape}; use tiles")
    return values if values.dtype in (np.float32, np.float16) else values.astype(np.float32)


def _expected(count: int, spec: ModelSpec) -> str:
    return f"expected a floating-point output of {count} x {spec.num_channels} channels in {spec.output.layout}"


def as_finite_floats(values: Output) -> Floats:
    """Return values as contiguous float32.

    Raises:
        InputError: if one is NaN or infinite.
    """
    if not np.isfinite(values.min()) or not np.isfinite(values.max()):  # both carry a NaN on
        raise InputError(NOT_FINITE)
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


def mask_shape(image_hw: Size, spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of the results for an image."""
    return (spec.num_classes, *image_hw) if spec.task == "multilabel" else image_hw


def checked_masks(
    out: Sequence[Mask] | None, geometries: Sequence[Geometry], spec: ModelSpec, dtype: np.dtype[Any] | None = None
) -> list[Mask]:
    """Return the masks to fill, of the spec's dtype unless told: new ones, or `out` if every array fits its image."""
    shapes = [mask_shape(geometry.image_hw, spec) for geometry in geometries]
    return _checked_arrays(out, shapes, dtype or spec.mask_dtype)


def checked_maps(out: Sequence[Floats] | None, geometries: Sequence[Geometry], spec: ModelSpec) -> list[Floats]:
    """Return the maps to fill: new ones, or `out` if every array fits its image.

    Raises:
        InputError: if one does not, or the network yields labels, which say nothing of how sure it was.
    """
    check_has_values(spec)
    shapes = [mask_shape(geometry.image_hw, spec) for geometry in geometries]
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
    for array in out:
        check_no_overlap(array)
    return list(out)


def check_has_values(spec: ModelSpec) -> None:
    """Raise an InputError if the network yields labels, which say nothing of how sure it was."""
    if spec.output.kind == "labels":
        raise InputError("an output of kind 'labels' has no confidence; export the model with its logits")
