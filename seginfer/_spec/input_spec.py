"""InputSpec: size, layout and preprocessing of the network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._errors import SpecError
from .schema import coerce_fields

MAX_SIDE = 1 << 20
"""Longest side of an image, an input or an output. Products of three sides then fit 64 bits."""

Layout = Literal["NCHW", "NHWC"]
Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "letterbox", "pad", "center-crop", "tile"]
Resampling = Literal["opencv", "pillow", "torch", "torch-antialias", "nearest"]


def check_max(name: str, *values: int) -> None:
    """Raise a SpecError if a value exceeds `MAX_SIDE`."""
    if values and max(values) > MAX_SIDE:
        raise SpecError(f"{name} must be at most {MAX_SIDE}, got {max(values)}")


@dataclass(frozen=True)
class InputSpec:
    """Input tensor of the network.

    It holds `(pixel * scale - mean) / std` of the resized image.
    """

    size: tuple[int, int] | None = None
    """(height, width). None if the network takes any multiple of `multiple_of`."""
    multiple_of: int = 1
    """Divisor of the heights and widths that a network with `size=None` accepts.

    For "tile": the product of the network's strides and poolings, 16 for a U-Net. The step from tile to tile is a
    multiple of it.
    """
    name: str = "image"
    """Tensor name in the graph."""
    layout: Layout = "NCHW"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    color: Color = "rgb"
    """Channel order in training."""
    resize: Resize = "stretch"
    """Method that fits an image of another size into the input. See `Geometry`.

    "tile" never resizes. It cuts the image, mirrored at its borders, into overlapping tiles of `size`.
    """
    tile_margin: int = 0
    """For "tile": context in pixels on each side of a tile. It is read, and no mask is written there.

    At least the radius of the receptive field. With unpadded convolutions, the border that they drop: 92 for the U-Net
    of the paper.
    """
    anchor: Literal["center", "top-left"] = "center"
    """Position of the image inside the padding of "letterbox" and "pad"."""
    resampling: Resampling = "opencv"
    """Library that resized images in training.

    "opencv" is cv2 INTER_LINEAR, and "pillow" is BILINEAR. "torch" and "torch-antialias" are torch interpolate
    (bilinear, align_corners=False) without and with antialias. "nearest" is torch's nearest.
    """
    pad_value: tuple[float, ...] = (0.0,)
    """Pixel value of the padding, 0..255. One for all channels, or one per channel."""
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    """Subtracted after `scale`. One for all channels, or one per channel in the order of `color`."""
    std: tuple[float, ...] = (1.0,)
    """Divisor after `mean`, in the same form."""

    def __post_init__(self) -> None:
        coerce_fields(self, "input")
        self._check_size()
        self._check_values()

    @property
    def channels(self) -> int:
        """Number of image channels: 1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def tile_step(self) -> tuple[int, int]:
        """Mask size (height, width) that a tile writes, for "tile".

        It is the largest multiple of `multiple_of` inside the margins.
        """
        # The U-Net of the paper maps 572 pixels to 388, which is no multiple of 16. Tiles at a step of 388 would pool
        # other groups of pixels than one pass over the whole image does. So its step is 384, and 4 rows stay unused.
        height, width = (side - 2 * self.tile_margin for side in self.size or (0, 0))
        return height // self.multiple_of * self.multiple_of, width // self.multiple_of * self.multiple_of

    def per_channel(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Repeat a single value for every channel."""
        return values * self.channels if len(values) == 1 else values

    def _check_size(self) -> None:
        if self.multiple_of < 1:
            raise SpecError(f"input.multiple_of must be at least 1, got {self.multiple_of}")
        check_max("input.multiple_of", self.multiple_of)
        if self.size is None:
            if self.resize not in ("stretch", "pad"):
                raise SpecError(
                    f"input.resize {self.resize!r} needs a fixed input.size, got None; use 'stretch' or 'pad'"
                )
        elif min(self.size) < 1:
            raise SpecError(f"input.size must be positive (height, width), got {self.size}")
        check_max("input.size", *self.size or ())
        self._check_tiles()

    def _check_tiles(self) -> None:
        if self.resize != "tile":
            if self.tile_margin:
                raise SpecError(f"input.tile_margin {self.tile_margin} needs resize 'tile', got {self.resize!r}")
        elif self.tile_margin < 0:
            raise SpecError(f"input.tile_margin must be at least 0, got {self.tile_margin}")
        elif min(self.tile_step) < 1:
            raise SpecError(
                f"input.size {self.size} without a tile_margin of {self.tile_margin} at each side must hold at least "
                f"one multiple_of {self.multiple_of}; use a larger size"
            )

    def _check_values(self) -> None:
        for name in ("pad_value", "mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels):
                raise SpecError(f"input.{name} must hold 1 or {self.channels} values for {self.color}, got {values}")
        if not all(0 <= value <= 255 for value in self.pad_value):
            raise SpecError(f"input.pad_value must be pixel values in 0..255, got {self.pad_value}")
        if any(value <= 0 for value in self.std):
            raise SpecError(f"input.std must be positive, got {self.std}; use 1 to leave a channel unscaled")
        if self.scale <= 0:
            raise SpecError(f"input.scale must be positive, got {self.scale}; use 1 to leave pixels at 0..255")
        if self.dtype == "uint8" and (self.scale != 1 or any(self.mean) or set(self.std) != {1.0}):
            raise SpecError("input.dtype uint8 takes raw pixels; set scale to 1, mean to 0 and std to 1")
        if self.dtype == "uint8" and self.resampling in ("torch", "torch-antialias"):
            raise SpecError(f"input.resampling {self.resampling!r} yields floats; use opencv, pillow or nearest")
