"""The CUDA kernels on a GPU say what the CPU's core says, bit for bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gpu_cases
import numpy as np
import pytest
from kernel_cases import mask_case

from seginfer import InputError
from seginfer._cuda import compiler
from seginfer._cuda.gpu import Gpu
from seginfer._tasks.dense.launches import ResultsAt

pytestmark = pytest.mark.needs_cuda


@pytest.fixture(scope="module")
def gpu() -> Iterator[Gpu]:
    gpu = Gpu()
    yield gpu
    gpu.close()


def test_batches_equal_the_cpu_bit_for_bit(gpu: Gpu) -> None:
    for seed in range(400):
        gpu_cases.check_input(gpu, seed)


def test_masks_and_margins_equal_the_cpu_bit_for_bit(gpu: Gpu) -> None:
    for seed in range(400):
        gpu_cases.check_mask(gpu, seed)


def test_overlays_equal_the_specification_bit_for_bit(gpu: Gpu) -> None:
    for seed in range(100):
        gpu_cases.check_overlay(gpu, seed)


def test_values_that_are_not_finite_are_an_error_of_the_check(gpu: Gpu) -> None:
    case = mask_case(0)
    case.output.flat[-1] = np.nan
    with gpu_cases.Held(gpu) as held:
        masks = [held.upload(mask) for mask in case.masks]
        results = [ResultsAt(gpu_cases.plane(b, mask)) for b, mask in zip(masks, case.masks, strict=True)]
        step = gpu_cases.mask_step(held, case, case.per_geometry(results))
        step.start(gpu.stream)
        with pytest.raises(InputError, match="NaN or infinite"):
            step.check(gpu.stream)


@pytest.mark.full
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("needs compute-sanitizer of the CUDA toolkit")
    folders = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {folders!r}; import gpu_cases; gpu_cases.check_many(40)"
    command = ["compute-sanitizer", f"--tool={tool}", "--error-exitcode=1", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_cubins_of_this_machine_load(gpu: Gpu) -> None:
    assert {*compiler.names_of(f"sm_{gpu.device.arch}")} & {*compiler.ARCHITECTURES}, "add this architecture"


def test_the_cpp_header_paints_an_image(tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc on PATH")
    source, program = Path(__file__).parent / "cpp" / "uses_cuda.cu", tmp_path / "uses_cuda"
    options = ["-std=c++17", "-fmad=false", "-arch=native", f"-I{compiler.include_folder()}"]
    subprocess.run(["nvcc", *options, str(source), "-o", str(program)], check=True)
    assert subprocess.run([str(program)]).returncode == 0
