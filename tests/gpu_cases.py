"""Random cases on a GPU: uploaded, run through the steps, downloaded and compared with what the CPU makes of them."""

from __future__ import annotations

from typing import Any

import kernels_on_cpu as on_cpu
import numpy as np
from kernel_cases import Array, MaskCase, input_case, mask_case, overlay_case

from seginfer._cuda.gpu import Gpu
from seginfer._inputs.launches import ImageAt
from seginfer._inputs.steps import InputStep
from seginfer._tasks.dense.launches import OutputAt, PlaneAt, ResultsAt
from seginfer._tasks.dense.steps import MaskStep, OverlayStep


class Held:
    """What one case has on a GPU; freed at its end, in the order of use."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._buffers: list[Any] = []
        self._steps: list[Any] = []

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        for step in self._steps:
            step.close()
        for buffer in self._buffers:
            self.gpu.free(buffer)

    def upload(self, array: Array) -> Any:
        self._buffers.append(self.gpu.upload(array))
        return self._buffers[-1]

    def step(self, step: Any) -> Any:
        self._steps.append(step)
        return step

    def downloaded(self, buffer: Any, like: Array) -> Array:
        result = np.empty_like(like, order="C")
        self.gpu.download(buffer, result, self.gpu.stream)
        return result


def address(buffer: Any) -> int:
    return int(buffer.handle)


def whole_rows(image: Array) -> Array:
    """Return an image with what lies between its rows."""
    return image if image.base is None else image.base


def check_input(gpu: Gpu, seed: int) -> None:
    case = input_case(seed)
    with Held(gpu) as held:
        buffers = [held.upload(whole_rows(image)) for image in case.inputs()]
        images = [ImageAt(address(b), image.strides[0]) for b, image in zip(buffers, case.inputs(), strict=True)]
        batch = held.upload(np.full_like(case.expected, 77))
        step = InputStep(gpu, case.geometries, case.spec.input, case.color, images, address(batch))
        held.step(step).start(gpu.stream)
        on_cpu.assert_same(held.downloaded(batch, case.expected), case.expected, case.spec)


def mask_step(held: Held, case: MaskCase, results: list[ResultsAt]) -> MaskStep:
    """Return the step of a case."""
    output, faults = held.upload(case.output), held.upload(np.zeros(len(case.geometries), np.uint32))
    at = OutputAt(address(output), case.output.dtype.name)
    options: dict[str, Any] = {"faults": address(faults), "remap": case.remap or (), "mask_dtype": case.masks[0].dtype}
    step: MaskStep = held.step(MaskStep(held.gpu, case.geometries, case.hw(), case.spec, at, results, **options))
    return step


def check_mask(gpu: Gpu, seed: int) -> None:
    case = mask_case(seed)
    kinds = [case.masks, *((case.confidences, case.margins) if case.margins else ())]
    fills = (case.spec.ignore_value, 0, 0)
    with Held(gpu) as held:
        buffers = [
            [held.upload(np.full_like(one, fill)) for one in arrays] for arrays, fill in zip(kinds, fills, strict=False)
        ]
        planes = [
            case.per_geometry([plane(buffer, one) for buffer, one in zip(row, arrays, strict=True)])
            for row, arrays in zip(buffers, kinds, strict=True)
        ]
        step = mask_step(held, case, [ResultsAt(*one) for one in zip(*planes, strict=True)])
        step.start(gpu.stream)
        step.check(gpu.stream)
        found = [
            [held.downloaded(b, one) for b, one in zip(*pair, strict=True)] for pair in zip(buffers, kinds, strict=True)
        ]
    for mask, expected in zip(found[0], case.masks, strict=True):
        on_cpu.assert_same(mask, expected, case.spec)
    on_cpu.check_maps(case, *(found[1:] or ([], [])))


def plane(buffer: Any, array: Array) -> PlaneAt:
    height, width = array.shape[-2:]
    return PlaneAt(address(buffer), width, height * width)


def check_overlay(gpu: Gpu, seed: int) -> None:
    case = overlay_case(seed)
    with Held(gpu) as held:
        images = [None if image is None else held.upload(image) for image in case.images]
        masks, outs = ([held.upload(array) for array in arrays] for arrays in (case.masks, case.expected))
        for out in outs:
            out.fill(77, stream=gpu.stream)
        places = zip(images, masks, outs, strict=True)
        records = on_cpu.overlay_records(
            case, [(0 if i is None else address(i), address(m), address(o)) for i, m, o in places]
        )
        held.step(OverlayStep(gpu, case.colors, case.weight, records)).start(gpu.stream)
        for out, expected in zip(outs, case.expected, strict=True):
            on_cpu.assert_same(held.downloaded(out, expected), expected, seed)


def check_many(count: int) -> None:
    """Run `count` cases of every step; for processes of their own."""
    gpu = Gpu()
    for seed in range(count):
        check_input(gpu, seed)
        check_mask(gpu, seed)
        check_overlay(gpu, seed)
    gpu.close()
