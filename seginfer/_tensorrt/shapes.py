"""Resolve the shapes that an engine is built for.

The ONNX file comes first, then the spec, then the options.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .._errors import InputError, ModelFileError
from .._spec.model_spec import ModelSpec
from .options import EngineOptions, EngineProfile
from .report import EngineTensor, ShapeRange

Range = tuple[int, int, int]

BATCH: Range = (1, 1, 4)
"""Batch sizes that a check builds for, as (min, opt, max)."""
SIDE: Range = (64, 512, 1024)
"""Heights and widths of free dimensions in pixels, rounded up to multiples that the network takes."""
CHANNELS = 3
"""Channels of an image without a spec."""


def add_ranges(inputs: Iterable[EngineTensor], spec: ModelSpec | None) -> tuple[EngineTensor, ...]:
    """Add shapes to inputs that vary, for a check.

    The first dimension is a batch. Others are heights and widths, of the size or in the multiples of the spec.
    """
    tensors = []
    for tensor in inputs:
        if min(tensor.shape, default=0) < 0:
            found = _shape_range(tensor, EngineProfile(BATCH), spec)
            tensor = replace(tensor, min=found.min, opt=found.opt, max=found.max)
        tensors.append(tensor)
    return tuple(tensors)


def resolve_profiles(
    inputs: tuple[EngineTensor, ...], spec: ModelSpec | None, options: EngineOptions
) -> list[ShapeRange]:
    """Resolve the profiles of options to shapes of the one input.

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
    # Two profiles may resolve to the same shapes, and a second would be built and never chosen.
    return list(dict.fromkeys(_shape_range(tensor, profile, spec) for profile in options.profiles))


def _shape_range(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> ShapeRange:
    ranges = [_axis_range(tensor, axis, profile, spec) for axis in range(len(tensor.shape))]
    return ShapeRange(*zip(*ranges, strict=True))


def _axis_range(tensor: EngineTensor, axis: int, profile: EngineProfile, spec: ModelSpec | None) -> Range:
    fixed = tensor.shape[axis]
    if fixed >= 0:
        return fixed, fixed, fixed
    if axis == 0:
        return profile.batch
    if spec is not None and tensor.name != spec.input.name:
        spec = None
    side = axis - _height_axis(tensor, spec)
    if side not in (0, 1) and (spec is not None or _is_all_free(tensor)):
        channels = CHANNELS if spec is None else spec.input.channels
        return channels, channels, channels
    if profile.size is not None and side in (0, 1):
        low, middle, high = (size[side] for size in profile.size)
        return low, middle, high
    if spec is None:
        return SIDE
    if spec.input.size is not None:
        return (spec.input.size[side],) * 3
    k = spec.input.multiple_of
    low, middle, high = (k * -(-side // k) for side in SIDE)
    return low, middle, high


def _height_axis(tensor: EngineTensor, spec: ModelSpec | None) -> int:
    """Return the axis of the height.

    Without a spec it is the first that varies, batch and channels aside.
    """
    if spec is not None:
        return 2 if spec.input.layout == "NCHW" else 1
    if _is_all_free(tensor):
        return 2
    return next((axis for axis, size in enumerate(tensor.shape) if axis and size < 0), 2)


def _is_all_free(tensor: EngineTensor) -> bool:
    """Tell whether all dimensions of an image batch vary. It is then taken to be NCHW."""
    return len(tensor.shape) == 4 and max(tensor.shape[1:]) < 0


def _check_batch(tensor: EngineTensor, profile: EngineProfile) -> None:
    bound = tensor.shape[0]
    if bound >= 0 and profile.batch not in (EngineProfile().batch, (bound,) * 3):
        raise InputError(
            f"the batch of a profile must be {bound}, the only one that the graph takes, got "
            f"{_format_range(profile.batch)}; leave it out, or export the model without a batch size"
        )


def _check_size(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> None:
    if profile.size is None:
        return
    got = _format_range(map(_format_size, profile.size))
    fixed = spec.input.size if spec else None
    if fixed is None and min(tensor.shape[1:], default=0) >= 0:
        axis = _height_axis(tensor, spec)
        fixed = (tensor.shape[axis], tensor.shape[axis + 1])
    if fixed is not None:
        if set(profile.size) != {fixed}:
            raise InputError(
                f"the size of a profile must be {_format_size(fixed)}, the only one that the network takes, got {got}; "
                "leave it out, or export the model for any size"
            )
    elif spec is not None and any(side % spec.input.multiple_of for size in profile.size for side in size):
        raise InputError(
            f"the sizes of a profile must be multiples of {spec.input.multiple_of} (input.multiple_of), got {got}; "
            "round them up"
        )


def _format_size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _format_range(values: Iterable[object]) -> str:
    """Format a range as "1 to 4", or one value as "1"."""
    return " to ".join(dict.fromkeys(map(str, values)))
