"""Checks of network outputs and of caller-provided result arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._cuda.arrays import DeviceArray
from ..._errors import InputError
from ..._reference.taps import Floats
from ..._spec.model_spec import MAX_SIDE, ModelSpec
from ..._system.arrays import check_no_overlap, may_share

Output = NDArray[Any]

NOT_FINITE = "the network's output holds NaN or infinite values; check the input, the weights and the precision"


def split_output(output: object, count: int, spec: ModelSpec) -> Output:
    """Return a view of the output as (N, h, w, C) values or (N, h, w) labels.

    Values are not read: they may be NaN or infinite, and labels may be no classes.

    Raises:
        InputError: if shape or dtype contradict the spec.
    """
    if not isinstance(output, np.ndarray):
        raise InputError(f"expected the network's output as a NumPy array, got {type(output).__name__}")
    if spec.output.kind == "labels":
        return _split_labels(output, count, spec)
    if output.ndim == 3 and spec.num_channels == 1:  # (N, h, w): the graph drops the only channel
        output = np.expand_dims(output, 1 if spec.output.layout == "NCHW" else 3)
    if output.ndim != 4 or output.dtype.kind != "f":
        raise InputError(f"{_expected(count, spec)}, got {output.dtype} {output.shape}")
    values = output.transpose(0, 2, 3, 1) if spec.output.layout == "NCHW" else output
    if values.shape[0] != count or values.shape[3] != spec.num_channels or 0 in values.shape:
        raise InputError(f"{_expected(count, spec)}, got shape {output.shape}")
    if max(values.shape) > MAX_SIDE:
        raise InputError(f"the output must have sides of at most {MAX_SIDE}, got shape {output.shape}; use tiles")
    return values


def _expected(count: int, spec: ModelSpec) -> str:
    return f"expected a floating-point output of {count} x {spec.num_channels} channels in {spec.output.layout}"


def _split_labels(output: Output, count: int, spec: ModelSpec) -> Output:
    channel = 1 if spec.output.layout == "NCHW" else 3
    if output.ndim == 4 and output.shape[channel] == 1:
        output = output.squeeze(channel)
    if output.ndim != 3 or output.shape[0] != count or output.dtype.kind not in "iubf" or 0 in output.shape:
        raise InputError(f"expected labels as numbers ({count}, h, w), got {output.dtype} {output.shape}")
    return output


def masks_of_labels(labels: Output, spec: ModelSpec) -> Output:
    """Return labels in the dtype of masks.

    Raises:
        InputError: if a label is neither a class nor the ignore index, or not a whole number.
    """
    if labels.dtype.kind == "f":
        labels = _whole_numbers(labels)
    largest, ignore = int(labels.max()), spec.classes.ignore_index
    # Of two classes, 255 is far more often the foreground of a 0 and 255 mask.
    if largest == ignore and spec.num_classes > 2:
        largest = int(labels.max(initial=0, where=labels != ignore))
    if labels.min() < 0 or largest >= spec.num_classes:
        raise InputError(
            f"expected labels below {spec.num_classes}, got {labels.min()}..{labels.max()}; check classes.names"
        )
    return labels.astype(spec.mask_dtype)


def _whole_numbers(labels: Output) -> Output:
    whole = np.nan_to_num(labels, nan=-1, posinf=-1, neginf=-1).astype(np.int32)
    if (whole != labels).any():
        raise InputError("expected labels that are whole numbers, got others; set outputs[0].kind to 'logits'")
    return whole


def finite_floats(values: Output) -> Floats:
    """Return values as contiguous float32.

    Raises:
        InputError: if one is NaN or infinite.
    """
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values.min()) or not np.isfinite(values.max()):  # both carry a NaN on
        raise InputError(NOT_FINITE)
    return values


def allocate_arrays(
    out: Sequence[NDArray[Any]] | None, shapes: Sequence[tuple[int, ...]], dtype: np.dtype[Any]
) -> list[NDArray[Any]]:
    """Return the arrays to fill: new ones, or `out`.

    Raises:
        InputError: if an array of `out` is not writable, has another shape or dtype, or overlaps.
    """
    if out is None:
        return [np.empty(shape, dtype) for shape in shapes]
    if not isinstance(out, (list, tuple, np.ndarray)) or len(out) != len(shapes):
        got = len(out) if isinstance(out, (list, tuple, np.ndarray)) else type(out).__name__
        raise InputError(f"out must hold {len(shapes)} arrays, one per image, got {got}")
    for array, shape in zip(out, shapes, strict=True):
        is_array = isinstance(array, (np.ndarray, DeviceArray))
        if not is_array or array.shape != shape or array.dtype != dtype or not _is_writable(array):
            got = f"{array.dtype} {array.shape}" if is_array else type(array).__name__
            raise InputError(f"out must be a writable {dtype} array of shape {shape}, got {got}")
    if any(may_share(a, b) for i, a in enumerate(out) for b in out[:i]):
        raise InputError("out must hold arrays that do not overlap; allocate one per image")
    for array in out:
        if isinstance(array, DeviceArray):
            _check_rows(array)
        else:
            check_no_overlap(array)
    return list(out)


def _is_writable(array: NDArray[Any] | DeviceArray) -> bool:
    return array.is_writable if isinstance(array, DeviceArray) else array.flags.writeable


def _check_rows(out: DeviceArray) -> None:
    """Check that the GPU can copy rows to a tensor.

    Raises:
        InputError: if values of a row do not lie side by side, or rows overlap.
    """
    expected = out.dtype.itemsize
    for k, (side, stride) in enumerate(zip(reversed(out.shape), reversed(out.strides), strict=True)):
        if side > 1 and (stride < expected or (k == 0 and stride != expected)):
            raise InputError(
                f"a tensor on a GPU for out must have values of a row side by side, got strides {out.strides} in "
                "bytes; make it contiguous"
            )
        expected = stride * side if side > 1 else expected


def check_has_values(spec: ModelSpec) -> None:
    """Raise an InputError for label outputs, which carry no scores."""
    if spec.output.kind == "labels":
        raise InputError("an output of kind 'labels' has no confidence; export the model with its logits")
