"""The CUDA kernels without a GPU: they compile for all, never contract, and say on the CPU what the core says."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from enum import EnumMeta, IntEnum
from pathlib import Path
from typing import Any

import fake_cuda_core
import gpu_cases
import kernels_on_cpu as on_cpu
import numpy as np
import pytest
import sass

from seginfer import BackendUnavailableError, ClassSpec, InputError, InputSpec, ModelSpec, OutputSpec, preprocess
from seginfer._cuda import compiler, gpu, kernel_args, steps
from seginfer._cuda.kernels import KERNELS, OVERLAY, source_of
from seginfer._cuda.nvrtc import Nvrtc, find_nvrtcs
from seginfer._cuda.steps import Launch
from seginfer._inputs import launches as input_launches
from seginfer._system.driver import has_gpu
from seginfer._tasks.dense import launches as mask_launches

PARITY = {name for name in KERNELS if "maps" not in name}

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


# ------------------------------------------------------------------------------------------------- compilation


@pytest.fixture(scope="module")
def cubins() -> dict[str, bytes]:
    """Every kernel for every architecture."""
    newest_nvrtc()

    def compiled(name: str) -> bytes:
        return next(compiler.compile_cubins(name))[1]

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(compiler.ARCHITECTURES, pool.map(compiled, compiler.ARCHITECTURES), strict=True))


def newest_nvrtc() -> Nvrtc:
    found = find_nvrtcs()
    if not found:
        pytest.skip("needs an NVRTC: pip install 'seginfer[cuda]'")
    return found[-1]


@pytest.mark.full
def test_nvrtc_compiles_every_kernel_for_every_architecture(cubins: dict[str, bytes]) -> None:
    for cubin in cubins.values():
        assert cubin.startswith(b"\x7fELF")
        assert all(f".text.{name}\0".encode() in cubin for name in KERNELS)


SOME = [name for name in KERNELS if "preprocess" not in name or name.endswith("yuv_weighted_float32")]
"""Kernels with all floating-point arithmetic of the others; all are looked at by the long tests."""


def ptx(*, contracts: bool) -> str:
    """Return what NVRTC makes of some kernels before it turns to one GPU."""
    options = ["--gpu-architecture=compute_80", "--std=c++17", f"--fmad={str(contracts).lower()}"]
    options.append(f"--include-path={compiler.include_folder()}")
    return newest_nvrtc().compile(source_of(SOME), options, "PTX").decode()


def arithmetic(text: str) -> dict[str, Counter[str]]:
    """Count the floating-point operations of each kernel."""
    found: dict[str, Counter[str]] = {}
    for part in text.split(".entry ")[1:]:
        operations = re.findall(r"^\s*(?:@\S+\s+)?((?:fma|mad|mul|add|sub|div|rcp|sqrt)\.\S*f(?:16|32|64))", part, re.M)
        found[part.split("(")[0].strip()] = Counter(operations)
    return found


def test_no_kernel_contracts_and_every_operation_rounds() -> None:
    found = arithmetic(ptx(contracts=False))
    assert set(found) == set(SOME)
    assert all(".rn" in operation for operations in found.values() for operation in operations)
    assert not any(operation.startswith(("fma", "mad")) for operations in found.values() for operation in operations)
    assert {operation for name in PARITY & set(SOME) for operation in found[name]} <= {
        "mul.rn.f32",
        "add.rn.f32",
        "sub.rn.f32",
    }


def test_contraction_would_be_seen() -> None:
    found = arithmetic(ptx(contracts=True))
    whole = {OVERLAY} | {name for name in SOME if name.endswith("_1")}  # overlays and labels
    assert all(found[name]["fma.rn.f32"] for name in set(SOME) - whole)


@pytest.mark.full
def test_machine_code_of_parity_paths_has_no_fma(cubins: dict[str, bytes], tmp_path: Path) -> None:
    """HFMA2 of -0 and 0 is how constants are loaded; confidences divide, which takes fma."""
    tool = sass.tool("cuobjdump")
    for name, cubin in cubins.items():
        file = tmp_path / f"{name}.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([tool, "-sass", str(file)], capture_output=True, text=True, check=True).stdout
        fused = {}
        for part in text.split("Function : ")[1:]:
            lines = [line for line in part.splitlines() if re.search(r"\b[DFH]FMA", line)]
            fused[part.split()[0]] = [line for line in lines if not re.search(r"HFMA2\S* R\d+, -RZ, RZ,", line)]
        assert fused.keys() == KERNELS.keys()
        assert not any(fused[kernel] for kernel in PARITY), name
        assert fused["seginfer_maps_float32_2"], "the pattern no longer finds what is there"


@pytest.mark.full
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc on PATH")
def test_nvcc_compiles_the_cpp_header_for_every_architecture(tmp_path: Path) -> None:
    targets = [name.removeprefix("sm_") for name in compiler.ARCHITECTURES]
    codes = [f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets]
    command = [
        "nvcc",
        "-std=c++17",
        "-fmad=false",
        "--threads=2",
        "-Werror=all-warnings",
        "-Xcompiler=-Wall,-Wextra,-Werror",
    ]
    source = on_cpu.ROOT / "tests" / "cpp" / "uses_cuda.cu"
    object_file = ["-c", str(source), "-o", str(tmp_path / "uses_cuda.o")]
    done = subprocess.run(
        [*command, *codes, f"-I{compiler.include_folder()}", *object_file], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_architecture_is_named_with_its_remedy() -> None:
    newest_nvrtc()
    with pytest.raises(BackendUnavailableError, match=r"sm_1, NVRTC .* cannot; .*driver"):
        next(compiler.compile_cubins("sm_1"))


# ------------------------------------------------------------------------------------- the kernels, on the CPU


@needs_compiler
def test_records_are_laid_out_as_in_cpp(cpu: on_cpu.Cpu) -> None:
    expected: list[int] = []
    for record in (kernel_args.PREPROCESS, kernel_args.MASK, kernel_args.OVERLAY):
        assert record.fields is not None
        assert record.names is not None
        expected += [record.itemsize, *(record.fields[name][1] for name in record.names)]
    found = (ctypes.c_int * (len(expected) + 1))(*[-1] * (len(expected) + 1))
    cpu.library.layout(found)
    assert list(found) == [*expected, -1]
    assert kernel_args.PALETTE_ENTRY.itemsize == 8


def test_enumerations_are_as_in_cpp() -> None:
    text = (compiler.include_folder() / "seginfer" / "kernels" / "enums.h").read_text()
    found = dict(re.findall(r"enum class (\w+) : int {([^}]*)};", text))
    twins: dict[str, Any] = {
        one.__name__: one for one in vars(kernel_args).values() if isinstance(one, EnumMeta) and one is not IntEnum
    }
    assert found.keys() == set(re.findall(r"^enum \w+ (\w+)", text, re.M)) == twins.keys()
    for name, members in found.items():
        numbered = [(member.strip().upper(), number) for number, member in enumerate(members.split(","))]
        assert [(one.name, one.value) for one in twins[name]] == numbered


def test_no_enumeration_is_defined_twice_in_cpp() -> None:
    files = [path for path in (on_cpu.ROOT / "cpp_bindings").rglob("*") if path.suffix in (".h", ".cuh", ".cpp")]
    names = Counter(name for path in files for name in re.findall(r"^enum \w+ (\w+)", path.read_text(), re.M))
    assert set(names.values()) == {1}, names
    assert {"Source", "PixelFormat"} <= names.keys()


@needs_compiler
def test_tiles_are_as_in_cpp(cpu: on_cpu.Cpu) -> None:
    found = (ctypes.c_int * 8)()
    cpu.library.tiles(found)
    block_x, block_y, gather, filtered, mask_cols, mask_rows, maps, overlay = found
    assert (block_x, block_y, 1) == kernel_args.BLOCK
    assert ((block_x, gather), (block_x, filtered)) == (kernel_args.GATHER_TILE, kernel_args.FILTER_TILE)
    assert ((mask_cols, mask_rows), (overlay, block_y)) == (kernel_args.MASK_TILE, kernel_args.OVERLAY_TILE)
    assert (block_x, maps) == kernel_args.MAP_TILE


@needs_compiler
def test_batches_equal_the_cpu_bit_for_bit(cpu: on_cpu.Cpu) -> None:
    kernels = {kernel for seed in range(600) for kernel in on_cpu.check_input(cpu, seed)}
    assert kernels == {kernel for kernel in KERNELS if "preprocess" in kernel}


@needs_compiler
def test_masks_and_margins_equal_the_cpu_bit_for_bit(cpu: on_cpu.Cpu) -> None:
    taps = Counter(on_cpu.check_mask(cpu, seed) for seed in range(300))
    assert min(taps[1], taps[2], taps[3]) > 10


@needs_compiler
def test_overlays_equal_the_specification_bit_for_bit(cpu: on_cpu.Cpu) -> None:
    for seed in range(100):
        on_cpu.check_overlay(cpu, seed)


@needs_compiler
@pytest.mark.parametrize(
    ("value", "kind", "fault"),
    [(np.nan, np.float32, 1), (-np.inf, np.float16, 1), (3, np.int64, 2), (-1, np.int32, 2), (3, np.uint8, 2)],
)
def test_bad_values_are_reported_of_their_image_alone(cpu: on_cpu.Cpu, value: float, kind: Any, fault: int) -> None:
    """Wherever they lie: in padding, too, and between the cells that a small mask reads."""
    is_labels = issubclass(kind, np.integer)
    output = OutputSpec(kind="labels" if is_labels else "logits", stride=4)
    spec = ModelSpec("semantic", InputSpec((400, 640), resize="letterbox"), ClassSpec(("a", "b", "c")), (output,))
    images = [np.zeros((*hw, 3), np.uint8) for hw in ((50, 300), (300, 50), (7, 9))]
    _, geometries = preprocess(images, spec)
    for at in ((0, 0), (0, 159), (99, 0), (99, 159), (50, 80), (49, 1), (3, 71)):
        values = np.zeros((3, *(() if is_labels else (3,)), 100, 160), kind)
        index = (1, *(() if is_labels else (2,)), *at)
        values[index] = value
        faults, masks = np.zeros(3, np.uint32), [np.zeros(image.shape[:2], np.uint8) for image in images]
        records = mask_launches.mask_records(geometries, (100, 160), spec, faults.ctypes.data, cpu.upload)
        mask_launches.set_output(records, mask_launches.OutputAt(values.ctypes.data, values.dtype.name), spec)
        results = [mask_launches.ResultsAt(on_cpu.plane_at(mask)) for mask in masks]
        mask_launches.set_results(records, results, geometries, np.dtype(np.uint8))
        for launch in mask_launches.mask_launches(records):
            cpu.run(launch)
        assert faults.tolist() == [0, fault, 0], at
        assert max(mask.max() for mask in masks) < 3


def test_what_32_bits_cannot_count_is_refused() -> None:
    names = tuple(map(str, range(512)))
    spec = ModelSpec("semantic", InputSpec((64, 64)), ClassSpec(names), (OutputSpec(stride=None),))
    _, geometries = preprocess([np.zeros((64, 64, 3), np.uint8)], spec)
    records = mask_launches.mask_records(geometries, (2048, 2048), spec, 0, lambda array: array.ctypes.data)
    with pytest.raises(InputError, match=r"fewer than 2\^31 values per image, got 2147483648"):
        mask_launches.set_output(records, mask_launches.OutputAt(0, "float32"), spec)
    images = input_launches.input_records(geometries, spec.input, "rgb", lambda array: array.ctypes.data)
    with pytest.raises(InputError, match=r"a pitch below 2\^31 bytes"):
        input_launches.set_images(images, [input_launches.ImageAt(0, 1 << 31)], geometries, "rgb")
    images["height"], images["width"] = 1 << 16, 1 << 14
    with pytest.raises(InputError, match=r"fewer than 2\^31 values, got 3221225472"):
        input_launches.set_batch(images, 0, spec.input)


@pytest.mark.full
@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads the sanitizer of Linux")
def test_kernels_stay_inside_their_arrays(tmp_path: Path) -> None:
    library = on_cpu.build(tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O0")
    names = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    preload = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in names
    ]
    folders = os.pathsep.join((str(on_cpu.ROOT), str(on_cpu.ROOT / "tests")))
    environment = {
        **os.environ,
        "PYTHONPATH": folders,
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    code = f"import kernels_on_cpu; kernels_on_cpu.check_many({str(library)!r}, 80)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]


@needs_compiler
def test_steps_launch_what_they_must(cpu: on_cpu.Cpu) -> None:
    """Run the GPU's tests with the CPU behind cuda-core's interface."""
    with fake_cuda_core.installed(cpu) as world:
        gpu_cases.check_many(60)
        assert not world.buffers


@needs_compiler
def test_a_batch_beyond_the_largest_grid_takes_several_launches(
    cpu: on_cpu.Cpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "MAX_GRID_Z", 2)
    with fake_cuda_core.installed(cpu):
        gpu_cases.check_many(12)
        step = steps.Step(gpu.Gpu())
        records = np.zeros(5, kernel_args.MASK)
        names = [f"seginfer_{name}_float32_2" for name in ("mask", "maps")]
        step.place([Launch(name, records, (1, 1, 5)) for name in names])
        launched = [one for one in step.work if isinstance(one, gpu.Kernel)]
        parts = [(one.name, one.grid[2], one.records - launched[0].records) for one in launched]
    size = records.itemsize
    assert parts == [(name, z, at * size) for name in names for z, at in ((2, 0), (2, 2), (1, 4))]


def make_small(cuda_kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"IMAGE_HW": (54, 96), "INPUT_HW": (32, 48), "LOGITS_HW": (8, 12), "COPIED_BYTES": 1 << 16}
    for name, value in {**sizes, "ROUNDS": 2, "WARM_UP": 1, "CALLS": 1}.items():
        monkeypatch.setattr(cuda_kernels, name, value)
    monkeypatch.setattr(compiler, "require_cuda", fake_cuda_core.module)


@needs_compiler
def test_the_benchmark_measures_every_kernel(cpu: on_cpu.Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(on_cpu.ROOT / "benchmarks"))
    import cuda_kernels  # type: ignore[import-not-found, unused-ignore]

    make_small(cuda_kernels, monkeypatch)
    with fake_cuda_core.installed(cpu):
        record = cuda_kernels.measure(2)
    assert record["architecture"] == "sm_90"
    assert [kernel["name"].split(",")[0] for kernel in record["kernels"]] == [
        *["preprocess"] * 4,
        *["mask", "confidence"] * 2,
        "overlay",
    ]


@needs_compiler
def test_a_kernel_that_writes_wrong_bytes_loses_no_other(
    cpu: on_cpu.Cpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(on_cpu.ROOT / "benchmarks"))
    import cuda_kernels

    make_small(cuda_kernels, monkeypatch)
    expected = vars(cuda_kernels)["preprocess"]

    def wrong(images: Any, spec: Any) -> Any:
        batch, geometries = expected(images, spec)
        return (batch + (spec.input.resampling == "torch"), geometries)

    monkeypatch.setattr(cuda_kernels, "preprocess", wrong)
    monkeypatch.setattr(cuda_kernels.Bench, "overlay", lambda self: self.nothing)
    monkeypatch.setattr(sys, "argv", ["cuda_kernels.py", "--frames", "2", "--folder", str(tmp_path)])
    with fake_cuda_core.installed(cpu):
        assert cuda_kernels.main() == 1
    (file,) = tmp_path.iterdir()
    kernels = {kernel["name"]: kernel for kernel in json.loads(file.read_text())["kernels"]}
    bad = {name for name, kernel in kernels.items() if "time_ms" not in kernel}
    assert bad == {"preprocess, torch, float32", "overlay"}
    assert "bytes of the GPU differ from the CPU's" in kernels["preprocess, torch, float32"]["wrong"]
    assert kernels["overlay"]["failed"].startswith("AttributeError: ")
    assert capsys.readouterr().out.count("of copy") == len(kernels) - 2


def test_a_missing_gpu_is_named_with_its_remedy() -> None:
    pytest.importorskip("cuda.core", reason="needs cuda-core: pip install 'seginfer[cuda]'")
    with pytest.raises(BackendUnavailableError, match=r"driver is not installed|expected GPU 99, the driver sees"):
        gpu.Gpu(99)


def test_the_benchmark_refuses_without_a_gpu(tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(on_cpu.ROOT / "benchmarks" / "cuda_kernels.py"), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("no GPU to measure: ")
    assert not list(tmp_path.iterdir())
