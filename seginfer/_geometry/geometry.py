"""Placement of an image in the network input, in integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from .._errors import InputError
from .._spec.model_spec import InputSpec
from .axis import Axis

_MOST_TILES = 100_000

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
    """One tile of an image.

    It is cut out of the frame, the image with a mirrored border.
    """

    frame_hw: Size
    corner_yx: tuple[int, int]
    """First pixel of the tile in the frame."""
    core: Rect
    """Part of the image that this tile writes. The cores of all tiles cover each pixel once."""


@dataclass(frozen=True)
class Geometry:
    """Placement of one image in the network input.

    The image is resized to `resized_hw`, with its corner at `offset_yx` of the input. Every resize policy uses this
    formula. Letterbox and pad have non-negative offsets and padding around the image. Center-crop has non-positive
    offsets and cuts the borders. All sizes are (height, width).

    Policy "tile" does not resize. It puts the image into a frame with mirrored borders, and `tiles` cuts the frame into
    network inputs. Each tile is a Geometry. One pass over the whole frame would give the same mask.

    Source:
        the overlap-tile strategy: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical
        Image Segmentation", MICCAI 2015, arXiv:1505.04597, Fig. 2.
    """

    image_hw: Size
    input_hw: Size
    resized_hw: Size
    offset_yx: tuple[int, int]
    tile: Tile | None = None
    """Tile of the image. None for the whole image."""

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
        """Part of the input that shows the image.

        The rest is padding, or mirrored image for tiles.
        """
        (top, height), (left, width) = (axis.content for axis in self.axes)
        return Rect(top, left, height, width)

    @cached_property
    def visible(self) -> Rect:
        """Visible part of the image.

        Its pixel centres lie in the input. For a tile it is the core.
        """
        (top, height), (left, width) = (axis.visible for axis in self.axes)
        return Rect(top, left, height, width)

    @classmethod
    def place(cls, image_hw: Size, spec: InputSpec) -> Geometry:
        """Place an image by the resize policy of `spec`.

        Raises:
            InputError: if the policy is "pad" and the image is larger than a fixed input.
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
        """Return the tiles of this image, row by row.

        Other policies return the image itself.

        Raises:
            InputError: if there are too many, which would take minutes and gigabytes.
        """
        if spec.resize != "tile":
            return [self]
        tops, lefts = (range(0, image, step) for image, step in zip(self.image_hw, spec.tile_step, strict=True))
        if len(tops) * len(lefts) > _MOST_TILES:
            raise InputError(
                f"an image {self.image_hw} needs {len(tops) * len(lefts)} tiles with steps of {spec.tile_step} pixels, "
                f"and at most {_MOST_TILES} are run; cut the image, or use larger tiles"
            )
        return [self._tile(top, left, spec) for top in tops for left in lefts]

    def _tile(self, top: int, left: int, spec: InputSpec) -> Geometry:
        (height, width), step = self.image_hw, spec.tile_step
        core = Rect(top, left, min(step[0], height - top), min(step[1], width - left))
        offset = (self.offset_yx[0] - top, self.offset_yx[1] - left)
        tile = Tile(self.input_hw, (top, left), core)
        return replace(self, input_hw=spec.size or self.input_hw, offset_yx=offset, tile=tile)


def _frame(image_hw: Size, spec: InputSpec) -> Size:
    """Return the extent of all tiles together."""
    height, width = (
        size + (image - 1) // step * step
        for image, size, step in zip(image_hw, spec.size or image_hw, spec.tile_step, strict=True)
    )
    return height, width


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _fit(image_hw: Size, input_hw: Size) -> Size:
    """Return the largest size inside the input.

    The aspect stays that of the image. The free side is rounded half up.
    """
    (h, w), (in_h, in_w) = image_hw, input_hw
    if in_h * w <= in_w * h:
        return in_h, max(1, (2 * w * in_h + h) // (2 * h))
    return max(1, (2 * h * in_w + w) // (2 * w)), in_w


def _cover(image_hw: Size, input_hw: Size) -> Size:
    """Return the smallest size that covers the input.

    The aspect stays that of the image. The free side is rounded down.

    Source: torchvision.transforms.Resize with one number, which truncates the longer side.
    """
    (h, w), (in_h, in_w) = image_hw, input_hw
    if in_h * w >= in_w * h:
        return in_h, w * in_h // h
    return h * in_w // w, in_w


def _half_even(value: int) -> int:
    """Return value / 2, with halves rounded to even.

    Source: torchvision.transforms.CenterCrop, which calls round().
    """
    return (value + (value >> 1 & 1)) >> 1
