"""Positions of tile outputs in the whole output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .._errors import InputError
from .._spec.model_spec import ModelSpec
from .geometry import Geometry, Size


class Window(NamedTuple):
    """Position of an output in the whole output.

    The whole output is that of one pass over all of the mirrored image.
    """

    whole: Geometry
    """Placement of the image in the frame part that the whole output covers. `visible` is the core of the tile."""
    output_hw: Size
    """(height, width) of the whole output."""
    corner_yx: tuple[int, int]
    """First cell of this output in the whole output."""


def window_of(geometry: Geometry, output_hw: Size, spec: ModelSpec) -> Window:
    """Return the window of an output.

    The output belongs to a tile or to the whole frame.

    Raises:
        InputError: if an output of this size contradicts the spec.
    """
    if spec.input.resize != "tile":
        if problem := spec.output.stride_problem(geometry.input_hw, output_hw):
            raise InputError(problem)
        return Window(geometry, output_hw, (0, 0))
    stride = spec.output.graph_stride
    problem = size_problem(geometry.input_hw, output_hw, stride, spec.input.tile_margin)
    if problem:
        raise InputError(problem)
    y, x = (_axis(geometry, axis, output_hw[axis], stride) for axis in (0, 1))
    whole = replace(geometry, input_hw=(y.extent, x.extent), offset_yx=(y.offset, x.offset))
    return Window(whole, (y.extent // stride, x.extent // stride), (y.first, x.first))


def size_problem(input_hw: Size, output_hw: Size, stride: int, margin: int) -> str | None:
    """Check that an output covers its tile.

    The output is centred in the tile and may leave out the outermost `margin` pixels. Returns an error text, or None
    if it fits.
    """
    dropped = [full - stride * cells for full, cells in zip(input_hw, output_hw, strict=True)]
    if any(n < 0 or n % 2 for n in dropped):
        return (
            f"the network maps {input_hw} to {output_hw}, which at stride {stride} is not the centre of its input: "
            "correct outputs[0].stride, or input.size"
        )
    # Interpolation between cells of `stride` pixels reads up to `stride - 1` pixels beyond the core of a tile.
    needed = max(dropped) // 2 + stride - 1
    if needed > margin:
        return (
            f"input.tile_margin must be at least {needed} for a network that maps {input_hw} to {output_hw} at stride "
            f"{stride}, got {margin}; add the radius of its receptive field where it pads"
        )
    return None


def image_indices(geometries: Sequence[Geometry]) -> list[int]:
    """Return the image index of every geometry.

    Raises:
        InputError: if tiles of an image are missing or out of order.
    """
    groups: list[list[Geometry]] = []
    for geometry in geometries:
        if geometry.tile is None or geometry.tile.corner_yx == (0, 0) or not groups:
            groups.append([])
        groups[-1].append(geometry)
    for group in groups:
        _check_tiles(group)
    return [i for i, group in enumerate(groups) for _ in group]


def _check_tiles(group: list[Geometry]) -> None:
    first = group[0]
    seen = sum(geometry.visible.height * geometry.visible.width for geometry in group)
    if first.tile and (seen != first.image_hw[0] * first.image_hw[1] or len({g.image_hw for g in group}) > 1):
        raise InputError(
            f"expected all tiles of an image of {first.image_hw}, got {len(group)} that cover {seen} of its "
            "pixels; pass the geometries as preprocess returned them"
        )


class _Axis(NamedTuple):
    extent: int
    offset: int
    first: int


def _axis(geometry: Geometry, axis: int, cells: int, stride: int) -> _Axis:
    """Return covered extent, image offset and first cell."""
    crop = (geometry.input_hw[axis] - stride * cells) // 2
    frame, corner = geometry.input_hw[axis], 0
    if geometry.tile:
        frame, corner = geometry.tile.frame_hw[axis], geometry.tile.corner_yx[axis]
    return _Axis(frame - 2 * crop, geometry.offset_yx[axis] + corner - crop, corner // stride)
