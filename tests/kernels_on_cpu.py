"""The CUDA kernels compiled for the CPU, which runs their grids: held to what the CPU's own core says."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kernel_cases import InputCase, MaskCase, OverlayCase, input_case, mask_case, overlay_case
from numpy.typing import NDArray

from seginfer._cuda import kernel_args
from seginfer._cuda.kernels import KERNELS, source_of
from seginfer._cuda.steps import Launch
from seginfer._inputs import launches as input_launches
from seginfer._tasks.dense import launches as mask_launches

ROOT = Path(__file__).resolve().parent.parent
Array = NDArray[Any]


def build(folder: Path, *flags: str) -> Path:
    """Compile the kernels for the CPU, contraction off, every warning an error."""
    library, kernels = folder / "kernels.so", folder / "kernels.cu"
    kernels.write_text(source_of(KERNELS))
    warnings = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
    command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", *warnings, "-fPIC", "-shared", *flags]
    command += [f'-DKERNELS="{kernels}"']
    source = ROOT / "tests" / "cpp" / "kernels_on_cpu.cpp"
    subprocess.run([*command, f"-I{ROOT / 'cpp_bindings' / 'include'}", str(source), "-o", str(library)], check=True)
    return library


@dataclass
class Cpu:
    """Runs launches on the CPU; device memory is host memory."""

    library: ctypes.CDLL
    kept: list[Array] = field(default_factory=list)

    def upload(self, array: Array) -> int:
        """Keep a copy, so that every array is an allocation of its own size."""
        self.kept.append(array.copy())
        return self.kept[-1].ctypes.data

    def run(self, launch: Launch) -> None:
        self.run_at(launch.kernel, np.ascontiguousarray(launch.records).ctypes.data, launch.grid)

    def run_at(self, kernel: str, records: int, grid: tuple[int, int, int]) -> None:
        function = ctypes.cast(self.library[kernel], ctypes.c_void_p)
        self.library.launch(function, ctypes.c_void_p(records), *map(ctypes.c_uint, grid))


def input_records(
    case: InputCase, upload: Callable[[Array], int], images: list[input_launches.ImageAt], out: int
) -> Array:
    records = input_launches.input_records(case.geometries, case.spec.input, case.color, upload)
    input_launches.set_images(records, images, case.geometries, case.color)
    input_launches.set_batch(records, out, case.spec.input)
    return records


def check_input(cpu: Cpu, seed: int) -> list[str]:
    """Hold kernels to the CPU's batch, bit for bit; return those that ran."""
    case = input_case(seed)
    images = [input_launches.ImageAt(image.ctypes.data, image.strides[0]) for image in case.inputs()]
    out = _garbage(case.expected)
    launches = input_launches.input_launches(input_records(case, cpu.upload, images, out.ctypes.data))
    for launch in launches:
        cpu.run(launch)
    assert_same(out, case.expected, case.spec)
    cpu.kept.clear()
    return [launch.kernel for launch in launches]


def check_mask(cpu: Cpu, seed: int) -> int:
    """Hold kernels to the CPU's masks, margins (bit for bit) and confidences; return the number of taps."""
    case = mask_case(seed)
    faults = np.zeros(len(case.geometries), np.uint32)
    records = mask_launches.mask_records(case.geometries, case.hw(), case.spec, faults.ctypes.data, cpu.upload)
    mask_launches.set_output(
        records, mask_launches.OutputAt(case.output.ctypes.data, case.output.dtype.name), case.spec
    )
    output = _with_strides(case, records) if seed % 3 == 0 and case.margins else case.output
    for has_maps in (False, True) if case.margins else (False,):
        masks = [_unseen(case, mask, is_roomy=seed % 2 == 0) for mask in case.masks]
        maps = _empty_maps(case) if has_maps else ([], [])
        mask_launches.set_results(
            records, results_at(case, masks, *maps), case.geometries, masks[0].dtype, table=table_of(case, cpu.upload)
        )
        for launch in mask_launches.mask_launches(records):
            cpu.run(launch)
        for mask, expected in zip(masks, case.masks, strict=True):
            assert_same(mask, expected, case.spec)
        check_maps(case, *maps)
    assert not faults.any()
    assert output.size
    cpu.kept.clear()
    return int(records["taps"].max())


def table_of(case: MaskCase, upload: Callable[[Array], int]) -> int:
    return 0 if case.remap is None else upload(np.array(case.remap, np.uint16))


def check_maps(case: MaskCase, confidences: list[Array], margins: list[Array]) -> None:
    for found, expected in zip(confidences, case.confidences if confidences else [], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for found, expected in zip(margins, case.margins if margins else [], strict=True):
        assert_same(found, expected, case.spec)


def results_at(
    case: MaskCase, masks: list[Array], confidences: list[Array], margins: list[Array]
) -> list[mask_launches.ResultsAt]:
    planes = [
        [plane_at(array) for array in case.per_geometry(arrays)] for arrays in (masks, confidences, margins) if arrays
    ]
    return [mask_launches.ResultsAt(*one) for one in zip(*planes, strict=True)]


def plane_at(array: Array) -> mask_launches.PlaneAt:
    strides = [stride // array.itemsize for stride in array.strides]
    return mask_launches.PlaneAt(array.ctypes.data, strides[-2], strides[0] if array.ndim == 3 else 0)


def _with_strides(case: MaskCase, records: Array) -> Array:
    """Let the records read the output from a larger array, which is returned."""
    output = _garbage(case.output, is_roomy=True)
    output[...] = case.output
    images, strides = _strides(output, case.spec.output.layout)
    records["plane_stride"], records["row_stride"], records["column_stride"] = strides
    plane_bytes = np.uint64(strides[0] * output.itemsize)
    planes = plane_bytes * np.arange(records.shape[1], dtype=np.uint64)
    records["logits"] = np.array(images, np.uint64)[:, None] + planes
    return output


def _strides(batch: Array, layout: str) -> tuple[list[int], tuple[int, int, int]]:
    """Return the address of every image, and the strides of channels, rows and columns in values."""
    planar = batch if layout == "NCHW" else batch.transpose(0, 3, 1, 2)
    channel, row, column = (stride // batch.itemsize for stride in planar.strides[1:])
    return [image.ctypes.data for image in batch], (channel, row, column)


def _unseen(case: MaskCase, mask: Array, *, is_roomy: bool) -> Array:
    """Return a mask as it is before the kernels: pixels that no geometry sees hold their value, others garbage."""
    result = _garbage(mask, is_roomy=is_roomy)
    if case.spec.input.resize == "center-crop":
        result[...] = case.spec.ignore_value
    return result


def _empty_maps(case: MaskCase) -> tuple[list[Array], list[Array]]:
    zero = case.spec.input.resize == "center-crop"
    confidences, margins = ([np.full_like(m, 0 if zero else np.nan) for m in case.margins] for _ in range(2))
    return confidences, margins


def overlay_records(case: OverlayCase, addresses: list[tuple[int, int, int]]) -> Array:
    """Return records of contiguous arrays, but for the palette; addresses are of image, mask and output."""
    records = np.zeros(len(case.masks), kernel_args.OVERLAY)
    for record, image, mask, where in zip(records, case.images, case.masks, addresses, strict=True):
        record["pixels"], record["mask"], record["out"] = where
        channels = 3 if image is None or image.ndim == 3 else 1
        record["height"], record["width"] = mask.shape
        record["channels"], record["row_bytes"] = channels, channels * mask.shape[1]
        record["mask_bytes"], record["mask_row_stride"] = mask.itemsize, mask.shape[1]
        record["out_row_bytes"] = 3 * mask.shape[1]
    return records


def check_overlay(cpu: Cpu, seed: int) -> None:
    """Hold the kernel to the specification; every other batch is painted in place."""
    case = overlay_case(seed)
    outs = [_garbage(expected) for expected in case.expected]
    images: list[Array | None] = list(case.images)
    if seed % 2 and images[0] is not None and images[0].ndim == 3:
        outs = [image.copy() for image in images if image is not None]
        images = [*outs]
    addresses = [
        (0 if image is None else image.ctypes.data, mask.ctypes.data, out.ctypes.data)
        for image, mask, out in zip(images, case.masks, outs, strict=True)
    ]
    records = overlay_records(case, addresses)
    records["palette"] = cpu.upload(mask_launches.palette_of(case.colors, case.weight))
    records["classes"] = len(case.colors)
    cpu.run(mask_launches.overlay_launch(records))
    for out, expected in zip(outs, case.expected, strict=True):
        assert_same(out, expected, seed)
    cpu.kept.clear()


def check_many(library: str, count: int) -> None:
    """Run `count` cases of every step; for processes of their own."""
    cpu = Cpu(ctypes.CDLL(library))
    for seed in range(count):
        check_input(cpu, seed)
        check_mask(cpu, seed)
        check_overlay(cpu, seed)


# ------------------------------------------------------------------------------------------------------- shared


def _garbage(like: Array, *, is_roomy: bool = False) -> Array:
    """Return an array like another, to be written to; a roomy one is part of an array with more and longer rows."""
    *outer, rows, cols = like.shape
    room = (*outer, rows + 1, cols // 16 * 16 + 32) if is_roomy else like.shape
    result = np.empty(room, like.dtype)[..., :rows, :cols]
    _fill_garbage(result if result.base is None else result.base)
    return result


def _fill_garbage(array: Array) -> None:
    whole = array if array.base is None else array.base
    whole.view(np.uint8)[...] = 0xA5


def assert_same(found: Array, expected: Array, context: object) -> None:
    """Compare bit for bit; and where the array is part of another, that must be as it was."""
    assert found.dtype == expected.dtype, context
    if found.base is not None and found.size < found.base.size:
        outside = np.ones(found.base.shape, bool)
        outside[tuple(map(slice, found.shape))] = False
        assert (found.base[outside].view(np.uint8) == 0xA5).all(), context
    different = found.view(f"u{found.itemsize}") != expected.view(f"u{found.itemsize}")
    assert not different.any(), (context, np.argwhere(different)[:3].tolist())
