"""Results of the reference for the arguments of calls into the compiled core."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from seginfer._geometry.axis import Axis
from seginfer._geometry.geometry import Geometry, Rect
from seginfer._inputs.formats import YuvFormat, YuvLayout, pixels_of
from seginfer._reference.mask import classify_pixels, interpolate_rows, margins
from seginfer._reference.resize import RESIZE, normalize
from seginfer._reference.taps import (
    Taps,
    compose,
    crop_taps,
    is_aligned,
    mask_taps,
    mirror_indices,
    nearest_labels,
    upsampling_taps,
)


def geometry_of(arguments: dict[str, Any]) -> Geometry:
    return Geometry(*(arguments[key] for key in ("image_hw", "input_hw", "resized_hw", "offset_yx")))


def expected_batch(image: NDArray[np.uint8], dtype: np.dtype[Any], arguments: dict[str, Any]) -> NDArray[Any]:
    """Return what the reference makes of an image."""
    geometry, channels = geometry_of(arguments), 1 if arguments["pixel_format"] == "gray" else 3
    gain, bias, padding = (np.array(list(arguments[key])[:channels], np.float32) for key in ("gain", "bias", "padding"))
    color = arguments["pixel_format"]
    if color in get_args(YuvLayout):
        color = YuvFormat(color, arguments["yuv_matrix"], arguments["yuv_range"])
    pixels, order = pixels_of(np.ascontiguousarray(image), color)
    if geometry.resized_hw != geometry.image_hw:
        pixels = RESIZE[arguments["resampling"]](pixels, geometry.resized_hw)
    content = geometry.content
    if arguments["is_mirrored"]:
        rows, cols = (
            mirror_indices(np.arange(full) - offset, image)
            for full, offset, image in zip(geometry.input_hw, geometry.offset_yx, geometry.image_hw, strict=True)
        )
        seen, content = pixels[np.ix_(rows, cols)], Rect(0, 0, *geometry.input_hw)
    else:
        top, left = content.top - geometry.offset_yx[0], content.left - geometry.offset_yx[1]
        seen = pixels[top : top + content.height, left : left + content.width]
    if channels == 3 and (order == "bgr") != arguments["is_bgr"]:
        seen = seen[..., ::-1]
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.broadcast_to(padding, (*geometry.input_hw, channels)).astype(dtype)
        result[content.slices] = normalize(seen, gain, bias).astype(dtype)
    return result


def slice_of(arguments: dict[str, Any]) -> tuple[slice, slice]:
    return Rect(*arguments["visible"]).slices


def expected_results(
    values: NDArray[np.float32], arguments: dict[str, Any], old: list[Any]
) -> tuple[NDArray[Any], Any]:
    """Return the mask and the margin that the reference makes of an output; other pixels are as they were."""
    rows, cols = (expected_taps(arguments, axis) for axis in (0, 1))
    mask, margin = old[0].copy(), None if old[2] is None else old[2].copy()
    where, threshold = slice_of(arguments), np.float32(arguments["threshold"])
    is_argmax = arguments["decision"] == "argmax"
    planes = [values[..., c : c + 1] for c in range(values.shape[2])] if arguments["decision"] == "each" else [values]
    for i, plane in enumerate(planes):
        at = (i, *where) if arguments["decision"] == "each" else where
        labels = np.zeros(mask[at].shape, np.uint16)
        if not labels.size:
            continue
        classify = (lambda v: v.argmax(-1)) if is_argmax else (lambda v: v[..., 0] > threshold)
        classify_pixels(plane, rows, cols, classify, labels)
        mask[at] = np.array(arguments["table"], np.uint16)[labels] if arguments["table"] else labels
        if margin is None:
            continue
        for part, interpolated in interpolate_rows(plane, rows, cols):
            best = margins(interpolated) if is_argmax else np.abs(interpolated[..., 0] - threshold)
            margin[at][part] = best
    return mask, margin


def axis_of(arguments: dict[str, Any], i: int) -> Axis:
    """Return one axis of a placement whose visible part is any part."""
    image, resized, whole, offset = (arguments[key][i] for key in ("image_hw", "resized_hw", "input_hw", "offset_yx"))
    return Axis(image, resized, whole, offset, (arguments["visible"][i], arguments["visible"][i + 2]))


def expected_taps(arguments: dict[str, Any], axis: int) -> Taps:
    factor, align_corners = arguments["upsampling"], arguments["align_corners"]
    whole = [n * (factor or 1) for n in arguments["whole_hw"]]
    aligned = all(is_aligned(axis_of(arguments, i), whole[i], align_corners) for i in (0, 1))
    real = np.float32 if aligned else np.float64
    taps = mask_taps(axis_of(arguments, axis), whole[axis], align_corners=align_corners, real=real)
    if factor:
        inner = upsampling_taps(
            arguments["whole_hw"][axis], whole[axis], align_corners=arguments["upsampling_align_corners"]
        )
        taps = compose(taps, inner)
    return crop_taps(taps, arguments["corner_yx"][axis], arguments["logits_hw"][axis])


def expected_labels(labels: NDArray[Any], arguments: dict[str, Any], old: NDArray[Any]) -> NDArray[Any]:
    """Return the mask that the reference makes of labels; other pixels are as they were."""
    cells = [
        np.clip(
            nearest_labels(axis_of(arguments, i), arguments["whole_hw"][i]) - arguments["corner_yx"][i],
            0,
            arguments["labels_hw"][i] - 1,
        )
        for i in (0, 1)
    ]
    mask: NDArray[Any] = old.copy()
    mask[slice_of(arguments)] = labels[np.ix_(*cells)]
    return mask
