"""Fuzzes seginfer._ext: nothing but an error comes of bad input, and good input gives what the reference gives.

Arrays lie between pages that crash when they are touched. What is accepted must equal the reference and leave every
other byte as it was; what is refused must have written nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import numpy as np
from arrays import any_array, any_size, any_value, elements
from driver import Provider, instrument, run
from guarded import Arena
from numpy.typing import NDArray

from seginfer import SegInferError, _native
from seginfer._geometry import geometry
from seginfer._geometry.axis import Axis
from seginfer._geometry.geometry import Geometry, Rect
from seginfer._inputs import formats
from seginfer._inputs.formats import PixelFormat, pixels_of
from seginfer._reference import mask, resize, taps
from seginfer._reference.mask import blend, classify_pixels, interpolated_rows, margins
from seginfer._reference.resize import RESIZE, normalize
from seginfer._reference.taps import (
    Taps,
    compose,
    is_aligned,
    mask_taps,
    mirrored,
    nearest_labels,
    upsampling_taps,
    windowed,
)
from seginfer._spec.model_spec import Resampling

core: Any = _native.core
MOST = 90  # pixels along a side; seldom more than a fifth of that
REFUSALS = (SegInferError, TypeError, ValueError, OverflowError, MemoryError)
FORMATS, RESAMPLINGS = get_args(PixelFormat), get_args(Resampling)
CHANNELS = {"rgb": (3,), "bgr": (3,), "rgba": (4,), "bgra": (4,), "gray": (), "nv12": (), "yuyv": (2,)}

inputs, targets, maps = Arena(1 << 16), Arena(1 << 16), (Arena(1 << 16), Arena(1 << 16))
pools = [core.Threads(1), core.Threads(3)]


class RefusedError(Exception):
    """The core refused, as it may."""


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call into the core; its refusals become `RefusedError`, and anything else is a finding."""
    try:
        return function(*arguments, **named)
    except REFUSALS as error:
        raise RefusedError from error


def side(provider: Provider) -> int:
    return provider.integer(1, provider.pick((MOST // 5, MOST // 5, MOST // 5, MOST)))


def size(provider: Provider) -> tuple[int, int]:
    return side(provider), side(provider)


def placement(provider: Provider, *, even: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """Return how an image is placed: by one of the policies, or anyhow."""
    image = tuple(n + (-n) % k for n, k in zip(size(provider), even, strict=True))
    resized = image if provider.boolean() else size(provider)
    offset = tuple(provider.integer(-MOST // 3, MOST // 3) if provider.boolean() else 0 for _ in resized)
    return {"image_hw": image, "input_hw": size(provider), "resized_hw": resized, "offset_yx": offset}


def spoiled(provider: Provider, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments, now and then with one that is wrong."""
    if not provider.chance(6):
        return arguments
    arguments = dict(arguments)
    key = provider.pick(sorted(arguments))
    value = arguments[key]
    if isinstance(value, tuple) and value and provider.boolean():
        at = provider.integer(0, len(value) - 1)
        arguments[key] = (*value[:at], any_size(provider), *value[at + 1 :])
    elif provider.chance(8):
        del arguments[key]
    else:
        arguments[key] = any_size(provider) if isinstance(value, int) else any_value(provider)
    return arguments


def array_from(provider: Provider, arena: Arena, shape: tuple[int, ...], dtype: str) -> Any:
    array = any_array(provider, arena, shape, dtype)
    if array is None:
        raise RefusedError  # no room for it
    return array


class Memory(NamedTuple):
    """What every byte was before a call."""

    before: list[tuple[Arena, NDArray[np.uint8]]]

    @classmethod
    def now(cls) -> Memory:
        return cls([(arena, arena.bytes.copy()) for arena in (inputs, targets, *maps)])

    def check(self, *written: NDArray[Any]) -> None:
        """Assert that only elements of the arrays that were written differ."""
        for arena, old in self.before:
            changed = arena.bytes != old
            for array in written:
                if np.may_share_memory(array, arena.bytes):
                    changed &= ~elements(array, arena)
            assert not changed.any(), f"bytes {np.flatnonzero(changed)[:9]} changed that are no result"


def fill(memory: Memory, written: list[Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call, and look at the memory afterwards, however the call ends."""
    try:
        result = call(function, *arguments)
    except RefusedError:
        memory.check()
        raise
    memory.check(*(array for array in written if array is not None))
    return result


def copy_of(array: Any) -> Any:
    """Return a copy of an array, unless it is one of the huge ones, which are refused."""
    return array.copy() if isinstance(array, np.ndarray) and array.size <= 1 << 16 else None


def generator(provider: Provider) -> np.random.Generator:
    return np.random.default_rng(provider.integer(0, 2**32 - 1))


def fill_memory(provider: Provider) -> None:
    """Write noise, of few levels some of the time, into all memory that a call may read or write."""
    noise, levels = generator(provider), provider.pick([256, 256, 2, 3])
    for arena in (inputs, targets, *maps):
        arena.bytes[:] = noise.integers(0, levels, arena.size, np.uint8)


def set_floats(provider: Provider, values: Any) -> None:
    """Make an array's values small and finite; some of the time one of them is not."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.size > 1 << 14:
        return
    if not values.flags.writeable:
        return
    noise = generator(provider)
    values[...] = np.round(4 * noise.normal(size=values.shape)) / provider.pick([1, 2, 64])
    if values.size and provider.chance(8):
        values.flat[provider.integer(0, values.size - 1)] = provider.pick([np.nan, np.inf])


def geometry_of(arguments: dict[str, Any]) -> Geometry:
    return Geometry(*(arguments[key] for key in ("image_hw", "input_hw", "resized_hw", "offset_yx")))


def assert_equal(got: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(np.ascontiguousarray(got), expected, strict=True)


# ------------------------------------------------------------------------------------------------------ preprocess


def fuzz_preprocessor(provider: Provider) -> None:
    color, dtype = provider.pick(FORMATS), provider.pick(["f4", "f2", "u1"])
    is_raw = dtype == "u1"
    numbers = [0.0, 1.0, 0.5, -1.25, 255.0, 3.4e38, -float("inf"), float("nan")]
    arguments = {
        **placement(provider, even={"nv12": (2, 2), "yuyv": (1, 2)}.get(color, (1, 1))),
        "pixel_format": color,
        "resampling": provider.pick(RESAMPLINGS),
        "gain": (1.0,) * 3 if is_raw else tuple(provider.pick(numbers[1:5]) for _ in range(3)),
        "bias": (0.0,) * 3 if is_raw else tuple(provider.pick(numbers[:5]) for _ in range(3)),
        "padding": (7.0,) * 3 if is_raw else tuple(provider.pick(numbers) for _ in range(3)),
        "is_bgr": provider.boolean(),
        "is_mirrored": provider.chance(4),
    }
    if arguments["is_mirrored"] and not provider.chance(8):
        arguments["resized_hw"] = arguments["image_hw"]
    arguments = spoiled(provider, arguments)
    plan = call(core.Preprocessor, **arguments)
    if max(*arguments["image_hw"], *arguments["input_hw"]) > MOST + 2:
        return
    (height, width), color = arguments["image_hw"], arguments["pixel_format"]
    rows = height * 3 // 2 if color == "nv12" else height
    image = array_from(provider, inputs, (rows, width, *CHANNELS[color]), "u1")
    out_arena = inputs if provider.chance(12) else targets
    batch = array_from(provider, out_arena, (*arguments["input_hw"], 1 if color == "gray" else 3), dtype)
    fill_memory(provider)
    fill(Memory.now(), [batch], plan.fill, image, batch, provider.pick(pools))
    if max(arguments["resized_hw"]) <= 4 * MOST:  # the reference makes all of it, the core what is seen
        assert_equal(batch, expected_batch(image, batch.dtype, arguments))


def expected_batch(image: NDArray[np.uint8], dtype: np.dtype[Any], arguments: dict[str, Any]) -> NDArray[Any]:
    """Return what the reference makes of an image."""
    geometry, channels = geometry_of(arguments), 1 if arguments["pixel_format"] == "gray" else 3
    gain, bias, padding = (np.array(list(arguments[key])[:channels], np.float32) for key in ("gain", "bias", "padding"))
    pixels, order = pixels_of(np.ascontiguousarray(image), arguments["pixel_format"])
    if geometry.resized_hw != geometry.image_hw:
        pixels = RESIZE[arguments["resampling"]](pixels, geometry.resized_hw)
    content = geometry.content
    if arguments["is_mirrored"]:
        rows, cols = (
            mirrored(np.arange(full) - offset, image)
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


# ----------------------------------------------------------------------------------------------------------- masks


def window(provider: Provider, arguments: dict[str, Any]) -> dict[str, Any]:
    """Add an output, the whole one or a part of it, and which pixels it answers for."""
    visible = geometry_of(arguments).visible
    whole = size(provider)
    corner, cells = (0, 0), whole
    if provider.chance(4):
        cells = tuple(provider.integer(1, n) for n in whole)
        corner = tuple(provider.integer(-2, n) for n in whole)
        top, left = (provider.integer(0, n) for n in visible[2:])
        height, width = visible.height - top, visible.width - left
        visible = Rect(visible.top + top, visible.left + left, height, width)
    return {**arguments, "whole_hw": whole, "corner_yx": corner, "visible": tuple(visible), "cells": cells}


def fuzz_mask_decoder(provider: Provider) -> None:
    decision = provider.pick(["argmax", "argmax", "threshold", "each"])
    channels = 1 if decision == "threshold" else provider.pick([1, 2, 3, 5, 19])
    arguments = window(provider, placement(provider))
    table = [provider.integer(0, 300) for _ in range(channels if decision == "argmax" else 2)]
    cells = arguments.pop("cells")
    arguments = {
        **arguments,
        "logits_hw": cells,
        "channels": channels,
        "decision": decision,
        "threshold": provider.pick([0.0, 0.5, -1.0]),
        "is_logits": provider.boolean(),
        "align_corners": provider.boolean(),
        "upsampling": provider.pick([0, 0, 2, 3]),
        "upsampling_align_corners": provider.boolean(),
        "table": table if provider.chance(4) else [],
    }
    arguments = spoiled(provider, arguments)
    plan = call(core.MaskDecoder, **arguments)
    if max(*arguments["image_hw"], *arguments["logits_hw"]) > MOST or arguments["channels"] > 19:
        return
    logits_shape = (*arguments["logits_hw"], arguments["channels"])
    planes = (arguments["channels"],) if arguments["decision"] == "each" else ()
    if provider.chance(2):
        arena = inputs
        logits = array_from(provider, arena, logits_shape, provider.pick(["f4", "f2"]))
    else:  # as planes, which most networks yield
        logits = array_from(provider, inputs, (logits_shape[2], *logits_shape[:2]), "f4")
        logits = logits.transpose(1, 2, 0) if isinstance(logits, np.ndarray) and logits.ndim == 3 else logits
    shape = (*planes, *arguments["image_hw"])
    mask = array_from(provider, inputs if provider.chance(12) else targets, shape, provider.pick(["u1", "u2"]))
    wanted = [
        array_from(provider, targets if provider.chance(12) else arena, shape, "f4") if provider.chance(3) else None
        for arena in maps
    ]
    fill_memory(provider)
    set_floats(provider, logits)
    arguments_of_fill = (logits, mask, *wanted, provider.pick(pools))
    memory = Memory.now()
    written: list[Any] = [mask, *wanted]
    old = [copy_of(one) for one in written]
    is_finite = fill(memory, written, plan.fill, *arguments_of_fill)
    assert is_finite == bool(np.isfinite(logits).all())
    if not is_finite:
        return
    expected = expected_results(logits.astype(np.float32), arguments, old)
    for got, one in zip((mask, wanted[1]), (expected[0], expected[1]), strict=True):
        if got is not None:
            assert_equal(got, one)
    if wanted[0] is not None:
        assert not np.isnan(wanted[0][..., slice_of(arguments)[0], slice_of(arguments)[1]]).any()


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
        for part, interpolated in interpolated_rows(plane, rows, cols):
            best = margins(interpolated) if is_argmax else np.abs(interpolated[..., 0] - threshold)
            margin[at][part] = best
    return mask, margin


def axis_of(arguments: dict[str, Any], i: int) -> Axis:
    """Return one axis of a placement whose visible part is any part."""
    sizes = (arguments[key][i] for key in ("image_hw", "resized_hw", "input_hw", "offset_yx"))
    return Axis(*sizes, (arguments["visible"][i], arguments["visible"][i + 2]))


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
    return windowed(taps, arguments["corner_yx"][axis], arguments["logits_hw"][axis])


def fuzz_label_resampler(provider: Provider) -> None:
    arguments = window(provider, placement(provider))
    arguments["labels_hw"] = arguments.pop("cells")
    arguments = spoiled(provider, arguments)
    plan = call(core.LabelResampler, **arguments)
    if max(*arguments["image_hw"], *arguments["labels_hw"]) > MOST:
        return
    dtype = provider.pick(["u1", "u2"])
    labels = array_from(provider, inputs, arguments["labels_hw"], dtype)
    mask = array_from(provider, inputs if provider.chance(12) else targets, arguments["image_hw"], dtype)
    fill_memory(provider)
    memory = Memory.now()
    old = copy_of(mask)
    fill(memory, [mask], plan.fill, labels, mask, provider.pick(pools))
    cells = [
        np.clip(
            nearest_labels(axis_of(arguments, i), arguments["whole_hw"][i]) - arguments["corner_yx"][i],
            0,
            arguments["labels_hw"][i] - 1,
        )
        for i in (0, 1)
    ]
    old[slice_of(arguments)] = labels[np.ix_(*cells)]
    assert_equal(mask, old)


# --------------------------------------------------------------------------------------------------------- overlays


def fuzz_overlay(provider: Provider) -> None:
    height, width = size(provider)
    weight = provider.integer(0, 256) if not provider.chance(8) else any_size(provider)
    kind = provider.pick(["rgb", "gray", "none"])
    image = (
        None if kind == "none" else array_from(provider, inputs, (height, width, 3)[: 3 if kind == "rgb" else 2], "u1")
    )
    mask = array_from(provider, maps[0], (height, width), provider.pick(["u1", "u2"]))
    colors = array_from(provider, maps[1], (provider.integer(0, 5), 3), "u1")
    out = array_from(provider, inputs if provider.chance(12) else targets, (height, width, 3), "u1")
    fill_memory(provider)
    memory = Memory.now()
    fill(memory, [out], core.overlay, image, mask, colors, weight, out, provider.pick(pools))
    lookup = np.concatenate([colors, np.zeros((1, 3), np.uint8)])[np.minimum(mask, len(colors))]
    pixels = np.zeros_like(lookup) if image is None else image[..., None] if image.ndim == 2 else image
    assert_equal(out, blend(np.broadcast_to(pixels, lookup.shape), lookup, weight))


def fuzz_small_calls(provider: Provider) -> None:
    kind = provider.integer(0, 2)
    if kind == 0:
        count = any_value(provider)
        if not isinstance(count, int) or not 1 <= count <= 1024:
            call(core.Threads, count)
            raise AssertionError(f"{count!r} threads were accepted")
    elif kind == 1:
        call(core.use_target, any_value(provider))
    else:
        value = any_value(provider)
        call(core.Preprocessor, **{"image_hw": value} if provider.boolean() else {})


TARGETS = (fuzz_preprocessor, fuzz_mask_decoder, fuzz_label_resampler, fuzz_overlay, fuzz_small_calls)
accepted = dict.fromkeys((target.__name__ for target in TARGETS), 0)


def target(provider: Provider) -> None:
    core.use_target(provider.pick(core.targets()))
    one = TARGETS[min(provider.integer(0, 15) // 4, 3) if not provider.chance(16) else 4]
    try:
        one(provider)
    except RefusedError:
        return
    accepted[one.__name__] += 1


if __name__ == "__main__":
    instrument(formats, geometry, mask, resize, taps)
    run(target, most_bytes=400)
