"""The CUDA kernels without a GPU: they compile for all, never contract, and say on the CPU what the core says."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import EnumMeta, IntEnum
from pathlib import Path
from typing import Any

import fake_cuda_core
import gpu_cases
import kernels_on_cpu as on_cpu
import numpy as np
import pytest

from seginfer import BackendUnavailableError
from seginfer._cuda import compiler, gpu, kernel_args
from seginfer._cuda.steps import Launch
from seginfer._system.driver import has_gpu

PARITY = {"seginfer_preprocess", "seginfer_preprocess_filtered", "seginfer_label", "seginfer_mask", "seginfer_overlay"}
KERNELS = PARITY | {"seginfer_maps"}

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


# ------------------------------------------------------------------------------------------------- compilation


@pytest.fixture(scope="module")
def cubins() -> dict[str, bytes]:
    """Every kernel for every architecture, through cuda-core."""
    pytest.importorskip("cuda.core", reason="needs cuda-core: pip install 'seginfer[cuda]'")
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(compiler.ARCHITECTURES, pool.map(compiler.compile_cubin, compiler.ARCHITECTURES), strict=True))


@pytest.mark.full
def test_nvrtc_compiles_every_kernel_for_every_architecture(cubins: dict[str, bytes]) -> None:
    for cubin in cubins.values():
        assert cubin.startswith(b"\x7fELF")
        assert all(f".text.{name}\0".encode() in cubin for name in KERNELS)


def ptx(*, contracts: bool) -> str:
    """Return what NVRTC makes of the kernels before it turns to one GPU."""
    nvrtc: Any = pytest.importorskip("cuda.bindings.nvrtc", reason="needs cuda-bindings: pip install 'seginfer[cuda]'")
    _, program = nvrtc.nvrtcCreateProgram(compiler.SOURCE.encode(), b"kernels.cu", 0, [], [])
    options = ["--gpu-architecture=compute_80", "--std=c++17", f"--fmad={str(contracts).lower()}"]
    options.append(f"--include-path={compiler.include_folder()}")
    (code,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    assert code == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = b" " * size
    nvrtc.nvrtcGetPTX(program, text)
    return str(text.decode())


def arithmetic(text: str) -> dict[str, Counter[str]]:
    """Count the floating-point operations of each kernel."""
    found: dict[str, Counter[str]] = {}
    for part in text.split(".entry ")[1:]:
        operations = re.findall(r"^\s*(?:@\S+\s+)?((?:fma|mad|mul|add|sub|div|rcp|sqrt)\.\S*f(?:16|32|64))", part, re.M)
        found[part.split("(")[0].strip()] = Counter(operations)
    return found


def test_no_kernel_contracts_and_every_operation_rounds() -> None:
    found = arithmetic(ptx(contracts=False))
    assert set(found) == KERNELS
    assert all(".rn" in operation for operations in found.values() for operation in operations)
    assert not any(operation.startswith(("fma", "mad")) for operations in found.values() for operation in operations)
    assert {operation for name in PARITY for operation in found[name]} <= {"mul.rn.f32", "add.rn.f32", "sub.rn.f32"}


def test_contraction_would_be_seen() -> None:
    found = arithmetic(ptx(contracts=True))
    assert all(found[name]["fma.rn.f32"] for name in PARITY - {"seginfer_overlay"})  # overlays are whole numbers


@pytest.mark.full
def test_machine_code_of_parity_paths_has_no_fma(cubins: dict[str, bytes], tmp_path: Path) -> None:
    """HFMA2 of -0 and 0 is how constants are loaded; confidences divide, which takes fma."""
    tool = cuobjdump()
    for name, cubin in cubins.items():
        file = tmp_path / f"{name}.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([tool, "-sass", str(file)], capture_output=True, text=True, check=True).stdout
        fused = {}
        for part in text.split("Function : ")[1:]:
            lines = [line for line in part.splitlines() if re.search(r"\b[DFH]FMA", line)]
            fused[part.split()[0]] = [line for line in lines if not re.search(r"HFMA2\S* R\d+, -RZ, RZ,", line)]
        assert set(fused) == KERNELS
        assert not any(fused[kernel] for kernel in PARITY), name
        assert fused["seginfer_maps"], "the pattern no longer finds what is there"


def cuobjdump() -> str:
    found = shutil.which("cuobjdump") or next(map(str, site_tools("cuobjdump")), None)
    if found is None:
        pytest.skip("needs cuobjdump: pip install nvidia-cuda-cuobjdump")
    return found


def site_tools(name: str) -> Iterator[Path]:
    for folder in map(Path, sys.path):
        yield from sorted(folder.glob(f"nvidia/cu*/bin/{name}"))


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


def test_a_missing_compiler_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(BackendUnavailableError, match=r"cuda\.core.*pip install 'seginfer\[cuda\]'"):
        compiler.compile_cubin("sm_87")


def test_an_unknown_architecture_is_named_with_its_remedy() -> None:
    pytest.importorskip("cuda.core", reason="needs cuda-core: pip install 'seginfer[cuda]'")
    with pytest.raises(BackendUnavailableError, match=r"sm_1.*driver"):
        compiler.compile_cubin("sm_1")


# ------------------------------------------------------------------------------------- the kernels, on the CPU


@needs_compiler
def test_records_are_laid_out_as_in_cpp(cpu: on_cpu.Cpu) -> None:
    expected: list[int] = []
    for record in (kernel_args.PREPROCESS, kernel_args.LABEL, kernel_args.MASK, kernel_args.OVERLAY):
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
    found = (ctypes.c_int * 7)()
    cpu.library.tiles(found)
    block_x, block_y, gather, filtered, mask_cols, mask_rows, overlay = found
    assert (block_x, block_y, 1) == kernel_args.BLOCK
    assert ((block_x, gather), (block_x, filtered)) == (kernel_args.GATHER_TILE, kernel_args.FILTER_TILE)
    assert ((mask_cols, mask_rows), (overlay, block_y)) == (kernel_args.MASK_TILE, kernel_args.OVERLAY_TILE)
    assert (block_x, block_y) == kernel_args.PIXEL_TILE


@needs_compiler
def test_batches_equal_the_cpu_bit_for_bit(cpu: on_cpu.Cpu) -> None:
    kernels = Counter(on_cpu.check_input(cpu, seed) for seed in range(600))
    assert min(kernels["seginfer_preprocess"], kernels["seginfer_preprocess_filtered"]) > 100


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
    records = np.zeros(2, kernel_args.LABEL)
    is_labels = issubclass(kind, np.integer)
    values = np.zeros((2, 1 if is_labels else 3, 9, 5), kind)
    values[1, -1, 8, 4] = value
    labels, faults = np.zeros((2, 9, 5), np.uint16), np.zeros(2, np.uint32)
    kinds: dict[Any, int] = {np.float32: 0, np.float16: 1, np.uint8: 2, np.int32: 3, np.int64: 4}
    records["kind"], records["classes"], records["height"], records["width"] = kinds[kind], 3, 9, 5
    records["channel_stride"], records["row_stride"], records["column_stride"] = 45, 5, 1
    for i, record in enumerate(records):
        record["values"], record["labels"] = values[i].ctypes.data, labels[i].ctypes.data
        record["faults"] = faults[i:].ctypes.data
    cpu.run(Launch("seginfer_label", records, (1, 2, 2)))
    assert faults.tolist() == [0, fault]
    assert labels.max() < 3


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
def test_the_benchmark_measures_every_kernel(cpu: on_cpu.Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(on_cpu.ROOT / "benchmarks"))
    import cuda_kernels  # type: ignore[import-not-found, unused-ignore]

    sizes = {"IMAGE_HW": (54, 96), "INPUT_HW": (32, 48), "LOGITS_HW": (8, 12), "COPIED_BYTES": 1 << 16}
    for name, value in {**sizes, "ROUNDS": 2, "WARM_UP": 1, "CALLS": 1}.items():
        monkeypatch.setattr(cuda_kernels, name, value)
    monkeypatch.setattr(compiler, "require_cuda", fake_cuda_core.module)
    with fake_cuda_core.installed(cpu):
        record = cuda_kernels.measure(2)
    assert record["architecture"] == "sm_90"
    assert [kernel["name"].split(",")[0] for kernel in record["kernels"]] == [
        *["preprocess"] * 4,
        *["label", "mask", "confidence"] * 2,
        "overlay",
    ]


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
