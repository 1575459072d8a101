"""Ranges of shapes that an engine is built for: what the ONNX file fixes, then what the spec says, then the options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .._errors import InputError, ModelFileError
from .._spec.model_spec import ModelSpec
from .options import EngineOptions, EngineProfile
from .report import EngineTensor, ShapeRange

Range = tuple[int, int, int]

BATCH: Range = (1, 1, 4)
"""What `check` builds for."""
SIDE: Range = (64, 512, 1024)
"""Pixels; rounded up to what the network takes."""
CHANNELS = 3
"""Of an image of which nothing is known."""


def with_ranges(inputs: Iterable[EngineTensor], spec: ModelSpec | None) -> tuple[EngineTensor, ...]:
    """Set the min, opt and max shapes of every input that varies.

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
    # Two profiles may come to the same shapes, and a second would be built and never chosen.
    return list(dict.fromkeys(_shape_range(tensor, profile, spec) for profile in options.profiles))


def _with_range(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> EngineTensor:
    if min(tensor.shape, default=0) >= 0:
        return tensor
    found = _shape_range(tensor, profile, spec)
    return replace(tensor, min=found.min, opt=found.opt, max=found.max)


def _shape_range(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> ShapeRange:
    ranges = [_range(tensor, axis, profile, spec) for axis in range(len(tensor.shape))]
    return ShapeRange(*zip(*ranges, strict=True))


def _range(tensor: EngineTensor, axis: int, profile: EngineProfile, spec: ModelSpec | None) -> Range:
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
    """Return which axis is the height; without a spec, the first that varies beside batch and channels."""
    if spec is not None:
        return 2 if spec.input.layout == "NCHW" else 1
    if _is_all_free(tensor):
        return 2
    return next((axis for axis, size in enumerate(tensor.shape) if axis and size < 0), 2)


def _is_all_free(tensor: EngineTensor) -> bool:
    """Tell whether an image batch leaves everything open; it is then taken to be NCHW."""
    return len(tensor.shape) == 4 and max(tensor.shape[1:]) < 0


def _check_batch(tensor: EngineTensor, profile: EngineProfile) -> None:
    bound = tensor.shape[0]
    if bound >= 0 and profile.batch not in (EngineProfile().batch, (bound,) * 3):
        raise InputError(
            f"the batch of a profile must be {bound}, which the graph is bound to, got {_rising(profile.batch)}; "
            "leave it out, or export the model without a batch size"
        )


def _check_size(tensor: EngineTensor, profile: EngineProfile, spec: ModelSpec | None) -> None:
    if profile.size is None:
        return
    got = _rising(map(_size, profile.size))
    fixed = spec.input.size if spec else None
    if fixed is None and min(tensor.shape[1:], default=0) >= 0:
        axis = _height_axis(tensor, spec)
        fixed = (tensor.shape[axis], tensor.shape[axis + 1])
    if fixed is not None:
        if set(profile.size) != {fixed}:
            raise InputError(
                f"the size of a profile must be {_size(fixed)}, the only one that the network takes, got {got}; "
                "leave it out, or export the model for any size"
            )
    elif spec is not None and any(side % spec.input.multiple_of for size in profile.size for side in size):
        raise InputError(
            f"the sizes of a profile must be multiples of {spec.input.multiple_of} (input.multiple_of), got {got}; "
            "round them up"
        )


def _size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _rising(values: Iterable[object]) -> str:
    """Return a range as "1 to 4", and one that holds a single value as that."""
    return " to ".join(dict.fromkeys(map(str, values)))
