"""Ranges of shapes that an engine is built for, where an ONNX file leaves dimensions open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .._spec import ModelSpec
from ._report import EngineTensor

Range = tuple[int, int, int]

BATCH: Range = (1, 1, 4)
SIDE: Range = (64, 512, 1024)
"""Pixels; rounded up to what the network takes."""


def with_ranges(inputs: Iterable[EngineTensor], spec: ModelSpec | None) -> tuple[EngineTensor, ...]:
    """Give every input that varies its smallest, likeliest and largest shape.

    A first dimension is a batch; others are heights and widths, of the size or in the multiples that the spec names.
    """
    return tuple(_with_range(tensor, spec) for tensor in inputs)


def _with_range(tensor: EngineTensor, spec: ModelSpec | None) -> EngineTensor:
    if min(tensor.shape, default=0) >= 0:
        return tensor
    ranges = [_range(tensor, axis, spec) for axis in range(len(tensor.shape))]
    smallest, likeliest, largest = zip(*ranges, strict=True)
    return replace(tensor, smallest=smallest, likeliest=likeliest, largest=largest)


def _range(tensor: EngineTensor, axis: int, spec: ModelSpec | None) -> Range:
    fixed = tensor.shape[axis]
    if fixed >= 0:
        return fixed, fixed, fixed
    if axis == 0:
        return BATCH
    if spec is None or tensor.name != spec.input.name:
        return SIDE
    if spec.input.size is not None:
        side = spec.input.size[axis - (2 if spec.input.layout == "NCHW" else 1)]
        return side, side, side
    k = spec.input.multiple_of
    smallest, likeliest, largest = (k * -(-side // k) for side in SIDE)
    return smallest, likeliest, largest
