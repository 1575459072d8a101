"""Random cases on a GPU: uploaded, run through the steps, downloaded and compared with what the CPU makes of them."""

from __future__ import annotations

from typing import Any

import kernels_on_cpu as on_cpu
import numpy as np
from kernel_cases import Array, input_case, mask_case, overlay_case

from seginfer._cuda._launch import Gpu, InputStep, MaskStep, OverlayStep
from seginfer._cuda._mask_plans import OutputAt, PlaneAt, ResultsAt
from seginfer._cuda._plans import ImageAt


def address(buffer: Any) -> int:
    return int(buffer.handle)


def downloaded(gpu: Gpu, buffer: Any, like: Array) -> Array:
    result = np.empty_like(like, order="C")
    gpu.download(buffer, result, gpu.stream)
    return result


def whole_rows(image: Array) -> Array:
    """Return an image with what lies between its rows."""
    return image if image.base is None else image.base


def check_input(gpu: Gpu, seed: int) -> None:
    case = input_case(seed)
    buffers = [gpu.upload(whole_rows(image)) for image in case.inputs()]
    images = [ImageAt(address(b), image.strides[0]) for b, image in zip(buffers, case.inputs(), strict=True)]
    batch = gpu.upload(np.full_like(case.expected, 77))
    InputStep(gpu, case.geometries, case.spec.input, case.color)(images, address(batch), gpu.stream)
    on_cpu.assert_same(downloaded(gpu, batch, case.expected), case.expected, case.spec)


def check_mask(gpu: Gpu, seed: int) -> None:
    case = mask_case(seed)
    step = MaskStep(gpu, case.geometries, case.hw(), case.spec, case.remap or ())
    output = gpu.upload(case.output)
    kinds = [case.masks, *((case.confidences, case.margins) if case.margins else ())]
    fills = (case.spec.ignore_value, 0, 0)
    buffers = [
        [gpu.upload(np.full_like(one, fill)) for one in arrays] for arrays, fill in zip(kinds, fills, strict=False)
    ]
    planes = [
        case.per_geometry([plane(buffer, one) for buffer, one in zip(row, arrays, strict=True)])
        for row, arrays in zip(buffers, kinds, strict=True)
    ]
    results = [ResultsAt(*one) for one in zip(*planes, strict=True)]
    step(OutputAt(address(output), case.output.dtype.name), results, case.masks[0].dtype, gpu.stream)
    step.check(gpu.stream)
    found = [
        [downloaded(gpu, b, one) for b, one in zip(*pair, strict=True)] for pair in zip(buffers, kinds, strict=True)
    ]
    for mask, expected in zip(found[0], case.masks, strict=True):
        on_cpu.assert_same(mask, expected, case.spec)
    on_cpu.check_maps(case, *(found[1:] or ([], [])))


def plane(buffer: Any, array: Array) -> PlaneAt:
    height, width = array.shape[-2:]
    return PlaneAt(address(buffer), width, height * width)


def check_overlay(gpu: Gpu, seed: int) -> None:
    case = overlay_case(seed)
    images = [None if image is None else gpu.upload(image) for image in case.images]
    masks, outs = ([gpu.upload(array) for array in arrays] for arrays in (case.masks, case.expected))
    for out in outs:
        out.fill(77, stream=gpu.stream)
    places = zip(images, masks, outs, strict=True)
    records = on_cpu.overlay_records(
        case, [(0 if i is None else address(i), address(m), address(o)) for i, m, o in places]
    )
    OverlayStep(gpu, case.colors, case.weight)(records, gpu.stream)
    for out, expected in zip(outs, case.expected, strict=True):
        on_cpu.assert_same(downloaded(gpu, out, expected), expected, seed)


def check_many(count: int) -> None:
    """Run `count` cases of every step; for processes of their own."""
    gpu = Gpu()
    for seed in range(count):
        check_input(gpu, seed)
        check_mask(gpu, seed)
        check_overlay(gpu, seed)
