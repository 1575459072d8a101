"""Placement of an image in the network input, in integers, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from .._errors import InputError
from .._spec.model_spec import InputSpec
from .axis import Axis

Size = tuple[int, int]


class Rect(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of the rectangle."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class Tile(NamedTuple):
    """One tile of an image, cut out of its frame: the image with a mirrored border."""

    frame_hw: Size
    corner_yx: tuple[int, int]
    """The tile's first pixel in the frame."""
    core: Rect
    """Part of the image that this tile writes; the cores of all tiles cover each pixel once."""


@dataclass(frozen=True)
class Geometry:
    """Placement of one image: resized to `resized_hw`, with its corner at `offset_yx` of the input.

    Every resize policy is this one formula. Letterbox and pad have non-negative offsets and padding around the
    image; center-crop has non-positive offsets and cuts what does not fit. All sizes are (height, width).

    Policy "tile" places the unresized image in a frame, mirrored around it, which `tiles` cuts into the network's
    inputs. Each tile is a Geometry of its own, and one pass over the whole frame would give the same mask.

    Source:
        the overlap-tile strategy: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical
        Image Segmentation", MICCAI 2015, arXiv:1505.04597, Fig. 2.
    """

    image_hw: Size
    input_hw: Size
    resized_hw: Size
    offset_yx: tuple[int, int]
    tile: Tile | None = None
    """Tile of the image that this is; None for the whole image."""

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Rows and columns."""
        core = self.tile.core if self.tile else None
        rows, cols = (
            Axis(*sizes, (core[i], core[i + 2]) if core else None)
            for i, sizes in enumerate(zip(self.image_hw, self.resized_hw, self.input_hw, self.offset_yx, strict=True))
        )
        return rows, cols

    @property
    def content(self) -> Rect:
        """Part of the input that shows the image; the rest is padding, or the image again, mirrored."""
        (top, height), (left, width) = (axis.content for axis in self.axes)
        return Rect(top, left, height, width)

    @cached_property
    def visible(self) -> Rect:
        """Part of the image whose pixel centres lie in the input; of a tile, its core."""
        (top, height), (left, width) = (axis.visible for axis in self.axes)
        return Rect(top, left, height, width)

    @classmethod
    def place(cls, image_hw: Size, spec: InputSpec) -> Geometry:
        """Place an image of (height, width) into the network input by the policy of `spec`.

        Raises:
            InputError: if policy "pad" meets an image larger than a fixed input.
        """
        if spec.resize == "tile":
            return cls(image_hw, _frame(image_hw, spec), image_hw, (spec.tile_margin, spec.tile_margin))
        input_hw = spec.size or (_round_up(image_hw[0], spec.multiple_of), _round_up(image_hw[1], spec.multiple_of))
        if spec.resize == "stretch":
            return cls(image_hw, input_hw, input_hw, (0, 0))
        if spec.resize == "center-crop":
            resized_hw = _cover(image_hw, input_hw)
            offset = (-_half_even(resized_hw[0] - input_hw[0]), -_half_even(resized_hw[1] - input_hw[1]))
            return cls(image_hw, input_hw, resized_hw, offset)
        resized_hw = image_hw if spec.resize == "pad" else _fit(image_hw, input_hw)
        if resized_hw[0] > input_hw[0] or resized_hw[1] > input_hw[1]:
            raise InputError(
                f"resize policy 'pad' takes images up to {input_hw} (height, width), got {image_hw}; "
                "use 'letterbox', or a spec without a fixed input.size"
            )
        padding = (input_hw[0] - resized_hw[0], input_hw[1] - resized_hw[1])
        centered = spec.anchor == "center"
        return cls(image_hw, input_hw, resized_hw, (padding[0] // 2, padding[1] // 2) if centered else (0, 0))

    def tiles(self, spec: InputSpec) -> list[Geometry]:
        """Return the tiles of this image, row by row, or the image alone."""
        if spec.resize != "tile":
            return [self]
        tops, lefts = (range(0, image, step) for image, step in zip(self.image_hw, spec.tile_step, strict=True))
        return [self._tile(top, left, spec) for top in tops for left in lefts]

    def _tile(self, top: int, left: int, spec: InputSpec) -> Geometry:
        (height, width), step = self.image_hw, spec.tile_step
        core = Rect(top, left, min(step[0], height - top), min(step[1], width - left))
        offset = (self.offset_yx[0] - top, self.offset_yx[1] - left)
        tile = Tile(self.input_hw, (top, left), core)
        return replace(self, input_hw=spec.size or self.input_hw, offset_yx=offset, tile=tile)


def _frame(image_hw: Size, spec: InputSpec) -> Size:
    """Return the extent of all tiles of an image together."""
    height, width = (
        size + (image - 1) // step * step
        for image, size, step in zip(image_hw, spec.size or image_hw, spec.tile_step, strict=True)
    )
    return height, width


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _fit(image_hw: Size, input_hw: Size) -> Size:
    """Return the largest size of the image's aspect inside the input; the free side is rounded half up."""
    (h, w), (in_h, in_w) = image_hw, input_hw
    if in_h * w <= in_w * h:
        return in_h, max(1, (2 * w * in_h + h) // (2 * h))
    return max(1, (2 * h * in_w + w) // (2 * w)), in_w


def _cover(image_hw: Size, input_hw: Size) -> Size:
    """Return the smallest size of the image's aspect around the input; the free side is rounded down.

    Source: torchvision.transforms.Resize with one number, which truncates the longer side.
    """
    (h, w), (in_h, in_w) = image_hw, input_hw
    if in_h * w >= in_w * h:
        return in_h, w * in_h // h
    return h * in_w // w, in_w


def _half_even(value: int) -> int:
    """Return value / 2, halves rounded to even. Source: torchvision.transforms.CenterCrop, which calls round()."""
    return (value + (value >> 1 & 1)) >> 1
