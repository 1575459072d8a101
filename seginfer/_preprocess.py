"""preprocess(): uint8 images into the network's input batch, with the geometry that leads back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _reference
from ._errors import InputError
from ._geometry import Geometry, Rect
from ._spec import Color, InputSpec, ModelSpec

Batch = NDArray[Any]


def preprocess(
    images: Sequence[NDArray[np.uint8]], spec: ModelSpec, *, color: Color | None = None, out: Batch | None = None
) -> tuple[Batch, list[Geometry]]:
    """Resize, pad and normalise images into one batch: `(pixel * scale - mean) / std`.

    Args:
        images: N images, (H, W, 3) uint8, or (H, W) for a gray model; sizes may differ if the input size is fixed.
            Policy "tile" makes each into its tiles, so that the batch counts T >= N.
        spec: the model's contract; its `input` says how.
        color: channel order of the images; None is "rgb", or "gray" for a gray model.
        out: a batch to fill instead of a new one.

    Returns:
        The batch, (N, C, h, w) or (N, h, w, C) in the spec's layout and dtype, and one Geometry per image, or per tile.

    Raises:
        InputError: if an image or `out` has the wrong dtype, shape or memory order, or a dynamic batch would mix sizes.
    """
    color = checked_color(color, spec.input)
    placed = zip(images, place(images, spec.input), strict=True)
    inputs = [(image, part) for image, geometry in placed for part in geometry.tiles(spec.input)]
    geometries = [part for _, part in inputs]
    batch = _checked_out(out, batch_shape(geometries, spec.input), spec.input)
    fill_batch(batch, [image for image, _ in inputs], geometries, spec.input, color)
    return batch, geometries


def place(images: Sequence[NDArray[np.uint8]], spec: InputSpec) -> list[Geometry]:
    """Check every image and say where it goes.

    Raises:
        InputError: if there is no image, or one is not what the network takes.
    """
    if not images:
        raise InputError("expected at least one image, got an empty list; skip the call when there is no image")
    for image in images:
        check_image(image, spec)
    return [Geometry.place((image.shape[0], image.shape[1]), spec) for image in images]


def fill_batch(
    batch: Batch, images: Sequence[NDArray[np.uint8]], geometries: Sequence[Geometry], spec: InputSpec, color: Color
) -> None:
    """Write checked and placed images into a batch of the right shape; an image stands once for each of its tiles."""
    for target, image, geometry in zip(_channels_last(batch, spec), images, geometries, strict=True):
        _fill(target, image, geometry, spec, swap=color != spec.color)


def batch_shape(geometries: Sequence[Geometry], spec: InputSpec) -> tuple[int, int, int, int]:
    """Return the shape of the batch that holds images of these geometries."""
    sizes = {geometry.input_hw for geometry in geometries}
    if len(sizes) > 1:
        raise InputError(f"one batch needs one input size, got {sorted(sizes)}; batch images of equal size together")
    (height, width) = sizes.pop()
    n, c = len(geometries), spec.channels
    return (n, c, height, width) if spec.layout == "NCHW" else (n, height, width, c)


def checked_color(color: Color | None, spec: InputSpec) -> Color:
    """Return the channel order of the user's images: RGB unless stated, gray for a gray model; never guessed.

    Raises:
        InputError: if images of this channel order cannot feed the network.
    """
    if color is None:
        return "gray" if spec.color == "gray" else "rgb"
    if color not in ("rgb", "bgr", "gray"):
        raise InputError(f"color must be 'rgb', 'bgr' or 'gray', got {color!r}")
    if (color == "gray") != (spec.color == "gray"):
        raise InputError(f"the network takes {spec.color} images, got color={color!r}; convert them first")
    return color


def check_image(image: object, spec: InputSpec) -> None:
    """Raise an InputError that says what is wrong with an image, if anything is."""
    shape = "(H, W) or (H, W, 1)" if spec.channels == 1 else "(H, W, 3)"
    if not isinstance(image, np.ndarray):
        raise InputError(f"image must be a NumPy array uint8 {shape}, got {type(image).__name__}; use numpy.asarray")
    got = f"got {image.dtype} {image.shape}"
    if image.dtype != np.uint8:
        raise InputError(f"image must be uint8 {shape} with values 0..255, {got}; do not normalise, the spec does")
    rank_ok = (image.ndim == 3 and image.shape[2] == spec.channels) or (spec.channels == 1 and image.ndim == 2)
    if not rank_ok:
        raise InputError(f"image must be uint8 {shape}, {got}; reorder or drop channels first")
    if 0 in image.shape:
        raise InputError(f"image must not be empty, {got}")
    if any(stride < 0 for stride in image.strides):
        raise InputError(
            "image must not have negative strides; use numpy.ascontiguousarray, "
            "or state the channel order with color= instead of flipping it"
        )


def _fill(target: Batch, image: NDArray[np.uint8], geometry: Geometry, spec: InputSpec, swap: bool) -> None:
    """Write one image into its (h, w, C) view of the batch."""
    pixels = image.reshape(*geometry.image_hw, spec.channels)
    if geometry.resized_hw != geometry.image_hw:
        pixels = _reference.RESIZE[spec.resampling](pixels, geometry.resized_hw)
    content, (offset_y, offset_x) = geometry.content, geometry.offset_yx
    top, left = content.top - offset_y, content.left - offset_x
    seen = pixels[top : top + content.height, left : left + content.width]
    gain, bias, padding = _affine(spec)
    if (content.height, content.width) != geometry.input_hw:
        if spec.resize == "tile":
            seen, content = _mirrored(pixels, geometry), Rect(0, 0, *geometry.input_hw)
        else:
            target[...] = padding
    seen = seen[:, :, :: -1 if swap else 1]
    target[content.slices] = seen if spec.dtype == "uint8" else _reference.normalize(seen, gain, bias)


def _mirrored(pixels: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Return the pixels that fill the whole input, of an image mirrored at its borders as often as it takes."""
    rows, cols = (
        _reference.mirrored(np.arange(full) - offset, image)
        for full, offset, image in zip(geometry.input_hw, geometry.offset_yx, geometry.image_hw, strict=True)
    )
    return pixels[np.ix_(rows, cols)]


@lru_cache(maxsize=64)
def _affine(spec: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return gain, bias and padding value per channel: `(p * scale - mean) / std` as `p * gain + bias`."""
    mean, std = np.array(spec.per_channel(spec.mean)), np.array(spec.per_channel(spec.std))
    gain = (spec.scale / std).astype(np.float32)
    bias = (-mean / std).astype(np.float32)
    padding = np.array(spec.per_channel(spec.pad_value), np.float32)
    return gain, bias, padding if spec.dtype == "uint8" else _reference.normalize(padding, gain, bias)


def _channels_last(batch: Batch, spec: InputSpec) -> Batch:
    return batch.transpose(0, 2, 3, 1) if spec.layout == "NCHW" else batch


def _checked_out(out: Batch | None, shape: tuple[int, ...], spec: InputSpec) -> Batch:
    dtype = np.dtype(spec.dtype)
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out must be a writable {dtype} array of shape {shape}, got {got}")
    return out
