"""Conversion of uint8 images to network input batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .._errors import InputError
from .._geometry.geometry import Geometry, Rect, Size
from .._reference.resize import RESIZE, normalize
from .._reference.taps import mirror_indices
from .._spec.model_spec import InputSpec, ModelSpec
from .._system.arrays import check_apart, check_no_overlap
from .._system.environment import resolve_threads
from .convert import as_array
from .formats import YUV_420, PixelFormat, check_image, image_size, parts_of, pixels_of, resolve_color

Batch = NDArray[Any]
Image = NDArray[np.uint8]
Encode = Callable[[Image, Batch, Any], None]
"""Writes an image to its (h, w, C) view of a contiguous batch, with a pool of threads."""


def preprocess(
    images: Image | Sequence[Image],
    spec: ModelSpec,
    *,
    color: PixelFormat | None = None,
    out: Batch | None = None,
    threads: int | None = None,
) -> tuple[Batch, list[Geometry]]:
    """Resize, pad and normalise images into one batch.

    Values are `(pixel * scale - mean) / std`.

    Args:
        images: one image or N images, (H, W, 3) uint8, or (H, W) for a gray model, or in the shape of `color`. Rows
            may have any pitch. Sizes may differ if the input size is fixed. Policy "tile" cuts each into tiles, so that
            the batch has T >= N inputs. Files, images of Pillow and tensors are taken too.
        spec: the model's contract. Its `input` sets sizes, resampling and normalisation.
        color: "rgb", "bgr", "rgba", "bgra", "gray", or a camera's "nv12", "nv21" or "i420" (H * 3 / 2, W), "yuyv" or
            "uyvy" (H, W, 2). These are BT.601 with limited range, and a `YuvFormat` states another matrix and range.
            None is "rgb", or "gray" for a gray model.
        out: a batch to fill instead of a new one.
        threads: maximum number of threads. None is every core that the process may use.

    Returns:
        The batch, (N, C, h, w) or (N, h, w, C) in the spec's layout and dtype, and one Geometry per image or tile.

    Raises:
        InputError: if an image or `out` has the wrong dtype, shape or memory order, they share memory, or image
            sizes differ and the input size is not fixed.
    """
    color = resolve_color(color, spec.input)
    size = resolve_threads(threads)
    images = [
        as_array(image, color) for image in ([images] if isinstance(images, np.ndarray) and images.ndim < 4 else images)
    ]
    placed = zip(images, place(images, spec.input, color), strict=True)
    inputs = [(image, part) for image, geometry in placed for part in geometry.tiles(spec.input)]
    geometries = [part for _, part in inputs]
    batch = _check_out(out, batch_shape(len(geometries), _common_size(geometries), spec.input), spec.input)
    check_apart(None if out is None else [batch], images, "an image")
    pool = _native.shared_threads(size)
    for target, (image, geometry) in zip(channels_last(batch, spec.input), inputs, strict=True):
        encode = make_encoder(geometry, spec.input, color)
        if _native.core is None or _is_packed(target):
            encode(image, target, pool)
        else:
            copy = np.empty(target.shape, target.dtype)
            encode(image, copy, pool)
            target[...] = copy
    return batch, geometries


def place(images: Sequence[Image], spec: InputSpec, color: PixelFormat) -> list[Geometry]:
    """Check the images and return their geometries.

    Raises:
        InputError: if there is no image, or an image is invalid.
    """
    if not images:
        raise InputError("expected at least one image, got an empty list; skip the call when there is no image")
    for image in images:
        check_image(image, color)
    return [Geometry.place(image_size(image, color), spec) for image in images]


def batch_shape(count: int, input_hw: Size, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return the shape of a batch of `count` inputs."""
    (height, width), channels = input_hw, spec.channels
    return (count, channels, height, width) if spec.layout == "NCHW" else (count, height, width, channels)


def _common_size(geometries: Sequence[Geometry]) -> Size:
    sizes = {geometry.input_hw for geometry in geometries}
    if len(sizes) > 1:
        raise InputError(f"one batch needs one input size, got {sorted(sizes)}; batch images of equal size together")
    return sizes.pop()


def channels_last(batch: Batch, spec: InputSpec) -> Batch:
    """Return the (N, h, w, C) view of a batch."""
    return batch.transpose(0, 2, 3, 1) if spec.layout == "NCHW" else batch


def make_encoder(geometry: Geometry, spec: InputSpec, color: PixelFormat) -> Encode:
    """Make an encoder for one geometry and format.

    Its images must be valid.
    """
    if _native.core is None:
        return lambda image, target, _: _encode(target, image, geometry, spec, color)
    return _make_native_encoder(geometry, spec, color)


# ------------------------------------------------------------------------------------------------ the compiled core


# Cached per size, because a plan computes all taps.
@lru_cache(maxsize=256)
def _make_native_encoder(geometry: Geometry, spec: InputSpec, color: PixelFormat) -> Encode:
    gain, bias, padding = (tuple(np.resize(values, 3).tolist()) for values in affine(spec))
    if spec.dtype == "uint8":
        gain, bias = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    layout, matrix, values = parts_of(color)
    plan = _native.core.Preprocessor(
        **_native.placement(geometry),
        pixel_format=layout,
        yuv_matrix=matrix,
        yuv_range=values,
        resampling=spec.resampling,
        gain=gain,
        bias=bias,
        padding=padding,
        is_bgr=spec.color == "bgr",
        is_mirrored=spec.resize == "tile",
    )
    packed_axes = 1 if layout == "gray" or (layout in YUV_420 and layout != "i420") else 2

    def encode(image: Image, target: Batch, threads: Any) -> None:
        if layout == "gray" and image.ndim == 3:
            image = image[..., 0]
        if not _native.has_packed_rows(image, packed_axes):
            image = np.ascontiguousarray(image)
        plan.fill(image, target, threads)

    return encode


def _is_packed(target: Batch) -> bool:
    """Tell whether the core can write to a view.

    The core writes planes of packed rows, or packed pixels. The view is (h, w, C).
    """
    planes = target.transpose(2, 0, 1)
    return _native.has_packed_rows(planes, 1) or _native.has_packed_rows(target, 2)


# ------------------------------------------------------------------------------------------------ the specification


def _encode(target: Batch, image: Image, geometry: Geometry, spec: InputSpec, color: PixelFormat) -> None:
    """Write one image to its view (h, w, C)."""
    pixels, order = pixels_of(image, color)
    if geometry.resized_hw != geometry.image_hw:
        pixels = RESIZE[spec.resampling](pixels, geometry.resized_hw)
    content, (offset_y, offset_x) = geometry.content, geometry.offset_yx
    top, left = content.top - offset_y, content.left - offset_x
    seen = pixels[top : top + content.height, left : left + content.width]
    gain, bias, padding = affine(spec)
    if (content.height, content.width) != geometry.input_hw:
        if spec.resize == "tile":
            seen, content = _mirror(pixels, geometry), Rect(0, 0, *geometry.input_hw)
        else:
            target[...] = padding
    seen = seen[:, :, :: -1 if order != spec.color else 1]
    target[content.slices] = seen if spec.dtype == "uint8" else normalize(seen, gain, bias)


def _mirror(pixels: Image, geometry: Geometry) -> Image:
    """Mirror an image at its borders until it fills the input."""
    rows, cols = (
        mirror_indices(np.arange(full) - offset, image)
        for full, offset, image in zip(geometry.input_hw, geometry.offset_yx, geometry.image_hw, strict=True)
    )
    return pixels[np.ix_(rows, cols)]


@lru_cache(maxsize=64)
def affine(spec: InputSpec) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return gain, bias and padding value per channel.

    `p * gain + bias` equals `(p * scale - mean) / std`.
    """
    mean, std = np.array(spec.per_channel(spec.mean)), np.array(spec.per_channel(spec.std))
    gain = (spec.scale / std).astype(np.float32)
    bias = (-mean / std).astype(np.float32)
    padding = np.array(spec.per_channel(spec.pad_value), np.float32)
    return gain, bias, padding if spec.dtype == "uint8" else normalize(padding, gain, bias)


def _check_out(out: Batch | None, shape: tuple[int, ...], spec: InputSpec) -> Batch:
    dtype = np.dtype(spec.dtype)
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out must be a writable {dtype} array of shape {shape}, got {got}")
    check_no_overlap(out)
    return out
