"""Fuzzes seginfer._ext: nothing but an error comes of bad input, and good input gives what the reference gives.

Arrays lie between pages that crash when they are touched. What is accepted must equal the reference and leave every
other byte as it was; what is refused must have written nothing.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from arrays import any_size, any_value
from bindings import (
    MOST,
    Memory,
    RefusedError,
    array_from,
    assert_equal,
    call,
    copy_of,
    core,
    fill,
    fill_memory,
    inputs,
    maps,
    placement,
    pools,
    set_floats,
    size,
    spoiled,
    targets,
)
from driver import Provider, instrument, run
from expected import expected_batch, expected_labels, expected_results, geometry_of, slice_of

from seginfer._geometry import geometry
from seginfer._geometry.geometry import Rect
from seginfer._inputs import formats
from seginfer._inputs.formats import YUV_420, YUV_422, PixelLayout, image_shape
from seginfer._reference import mask, resize, taps
from seginfer._reference.mask import blend
from seginfer._reference.yuv import YuvMatrix, YuvRange
from seginfer._spec.model_spec import Resampling

LAYOUTS, RESAMPLINGS = get_args(PixelLayout), get_args(Resampling)
EVEN: dict[str, tuple[int, int]] = {**dict.fromkeys(YUV_420, (2, 2)), **dict.fromkeys(YUV_422, (1, 2))}


# ------------------------------------------------------------------------------------------------------ preprocess


def fuzz_preprocessor(provider: Provider) -> None:
    color, dtype = provider.pick(LAYOUTS), provider.pick(["f4", "f2", "u1"])
    is_raw = dtype == "u1"
    numbers = [0.0, 1.0, 0.5, -1.25, 255.0, 3.4e38, -float("inf"), float("nan")]
    arguments = {
        **placement(provider, even=EVEN.get(color, (1, 1))),
        "pixel_format": color,
        "yuv_matrix": provider.pick(get_args(YuvMatrix)),
        "yuv_range": provider.pick(get_args(YuvRange)),
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
    color = arguments["pixel_format"]
    image = array_from(provider, inputs, image_shape(arguments["image_hw"], color), "u1")
    out_arena = inputs if provider.chance(12) else targets
    batch = array_from(provider, out_arena, (*arguments["input_hw"], 1 if color == "gray" else 3), dtype)
    fill_memory(provider)
    fill(Memory.now(), [batch], plan.fill, image, batch, provider.pick(pools))
    if max(arguments["resized_hw"]) <= 4 * MOST:  # the reference makes all of it, the core what is seen
        assert_equal(batch, expected_batch(image, batch.dtype, arguments))


# ----------------------------------------------------------------------------------------------------------- masks


def window(provider: Provider, arguments: dict[str, Any]) -> dict[str, Any]:
    """Add an output, the whole one or a part of it, and which pixels it answers for."""
    visible = geometry_of(arguments).visible
    whole = size(provider)
    corner: tuple[int, ...] = (0, 0)
    cells: tuple[int, ...] = whole
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
    assert_equal(mask, expected_labels(labels, arguments, old))


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
    run(lambda data: target(Provider(data)), most_bytes=400)
