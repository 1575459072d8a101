"""Ranges of shapes that an engine is built for: what the ONNX file fixes, then what the spec says, then the options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .._errors import InputError, ModelFileError
from .._spec import ModelSpec
from ._options import EngineOptions, EngineProfile
from ._report import EngineTensor, ShapeRange

Range = tuple[int, int, int]

BATCH: Range = (1, 1, 4)
"""What `check` builds for."""
SIDE: Range = (64, 512, 1024)
"""Pixels; rounded up to what the network takes."""


def with_ranges(inputs: Iterable[EngineTensor], spec: ModelSpec | None) -> tuple[EngineTensor, ...]:
    """Give every input that varies its smallest, likeliest and largest shape.

    A first dimension is a batch; others are heights and widths, of the size or in the multiples that the spec names.
    """
    profile = EngineProfile(BATCH)
    return tuple(_with_range(tensor, profile, spec) for tensor in inputs)


def profiles_of(inputs: tuple[EngineTensor, ...], spec: ModelSpec | None, options: EngineOptions) -> list[ShapeRange]:
    """Return the ranges of shapes that the options ask for, of the network's one input.

    Raises:
        ModelFileError: if the network has another number of inputs.
        InputError: if a profile contradicts the file or its spec.
    """
    if len(inputs) != 1:
        names = [tensor.name for tensor in inputs]
        raise ModelFileError(f"an engine takes one input, the image batch; the graph takes {names}; export it with one")
    (tensor,) = inputs
    for profile in options.profiles:
        _check_batch(tensor, profile)
        _check_size(tensor, profile, spec)
    if min(tensor.shape) >= 0:
        return [ShapeRange(tensor.shape, tensor.shape, tensor.shape)]
    return [_shape_range(tensor, profile, spec) for profile in options.profiles]


def _with_range(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> EngineTensor:
    if min(tensor.shape, default=0) >= 0:
        return tensor
    found = _shape_range(tensor, profile, spec)
    return replace(tensor, smallest=found.smallest, likeliest=found.likeliest, largest=found.largest)


def _shape_range(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> ShapeRange:
    ranges = [_range(tensor, axis, profile, spec) for axis in range(len(tensor.shape))]
    smallest, likeliest, largest = zip(*ranges, strict=True)
    return ShapeRange(smallest, likeliest, largest)


def _range(tensor: EngineTensor, axis: int, profile: EngineProfile, spec: ModelSpec | None) -> Range:
    fixed = tensor.shape[axis]
    if fixed >= 0:
        return fixed, fixed, fixed
    if axis == 0:
        return profile.batch
    side = axis - _height_axis(tensor, spec)
    if profile.size is not None and side in (0, 1):
        smallest, likeliest, largest = (size[side] for size in profile.size)
        return smallest, likeliest, largest
    if spec is None or tensor.name != spec.input.name:
        return SIDE
    if spec.input.size is not None:
        return (spec.input.size[side],) * 3
    k = spec.input.multiple_of
    smallest, likeliest, largest = (k * -(-side // k) for side in SIDE)
    return smallest, likeliest, largest


def _height_axis(tensor: EngineTensor, spec: ModelSpec | None) -> int:
    """Return which axis is the height; without a spec, the first that varies beside the batch."""
    if spec is not None:
        return 2 if spec.input.layout == "NCHW" else 1
    return next((axis for axis, size in enumerate(tensor.shape) if axis and size < 0), 2)


def _check_batch(tensor: EngineTensor, profile: EngineProfile) -> None:
    bound = tensor.shape[0]
    if bound >= 0 and profile.batch not in (EngineProfile().batch, (bound,) * 3):
        raise InputError(
            f"profile.batch must be {bound}, which the graph is bound to, got {profile.batch}; "
            "leave it out, or export the model without a batch size"
        )


def _check_size(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> None:
    if profile.size is None:
        return
    fixed = spec.input.size if spec else None
    if fixed is None and min(tensor.shape[1:], default=0) >= 0:
        axis = _height_axis(tensor, spec)
        fixed = (tensor.shape[axis], tensor.shape[axis + 1])
    if fixed is not None:
        if set(profile.size) != {fixed}:
            raise InputError(
                f"profile.size must be {fixed}, the only size that the network takes, got {profile.size}; "
                "leave it out, or export the model for any size"
            )
    elif spec is not None and any(side % spec.input.multiple_of for size in profile.size for side in size):
        raise InputError(
            f"profile.size must be multiples of {spec.input.multiple_of} (input.multiple_of), got {profile.size}; "
            "round them up"
        )
