"""Ring 2: the C++ library by itself, under sanitizers, and each of its headers; needs a compiler and CMake."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models import make_spec

from seginfer import Geometry, InputError
from seginfer._spec.model_spec import MAX_SIDE
from seginfer._system.environment import usable_cores

ROOT = Path(__file__).parent.parent
INCLUDE = ROOT / "cpp_bindings" / "include"
HEADERS = sorted(path.relative_to(INCLUDE).as_posix() for path in INCLUDE.rglob("*.h"))
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
FUZZERS = ("geometry", "kernels")
POLICIES = ("stretch", "pad", "letterbox", "center-crop")

needs_compiler = pytest.mark.skipif(
    not (COMPILERS and shutil.which("cmake") and (shutil.which("ninja") or shutil.which("make"))),
    reason="no C++ compiler, CMake and Ninja or Make",
)


def run(*command: str | Path, text: str = "", timeout_s: float = 300) -> str:
    """Run a command to its good end and return what it printed."""
    # Leaks are no concern here, and looking for them needs rights that containers may not have.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, env=environment)
    assert done.returncode == 0, (
        f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    )
    return done.stdout


@pytest.fixture(scope="session", params=["portable", pytest.param("every target", marks=pytest.mark.full)])
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library and its checks with AddressSanitizer and UndefinedBehaviorSanitizer, warnings as errors."""
    folder = tmp_path_factory.mktemp("native_cpp")
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    options = ("-DCMAKE_BUILD_TYPE=None", f"-DONLY_PORTABLE={'ON' if request.param == 'portable' else 'OFF'}")
    run("cmake", "-S", ROOT / "tests" / "cpp", "-B", folder, *generator, *options)
    run("cmake", "--build", folder, "--parallel", str(usable_cores()), timeout_s=600)
    return folder


# Headers for nvcc compile where CUDA's own headers are.
HOST_HEADERS = [name for name in HEADERS if "#include <cuda" not in (INCLUDE / name).read_text()]


@needs_compiler
@pytest.mark.parametrize(
    "compiler", [*COMPILERS[:1], *(pytest.param(name, marks=pytest.mark.full) for name in COMPILERS[1:])]
)
@pytest.mark.parametrize("header", HOST_HEADERS)
def test_every_header_compiles_alone_and_twice(header: str, compiler: str) -> None:
    source = f'#include "{header}"\n' * 2
    run(compiler, "-std=c++17", "-fsyntax-only", *WARNINGS, "-I", INCLUDE, "-x", "c++", "-", text=source)


def placements(rng: np.random.Generator) -> Iterator[tuple[str, int, int, int, int, bool]]:
    """Yield a policy, an image, an input and whether it is centred: usual sizes, small ones, and the largest."""
    for i in range(6000):
        most = (40, 700, 5000, MAX_SIDE)[i % 4]
        image_h, image_w, input_h, input_w = (int(n) for n in rng.integers(1, most, 4, endpoint=True))
        if i % 5 == 0:
            image_h, image_w = max(1, image_h * input_h // most), image_w
        if i % 7 == 0:
            input_h, input_w = image_h, image_w
        yield POLICIES[i // 4 % 4], image_h, image_w, input_h, input_w, bool(rng.integers(2))
    for policy in POLICIES:
        for side in (1, 2, MAX_SIDE - 1, MAX_SIDE):
            yield policy, side, 1, 1, side, True
            yield policy, side, side, side, side, False


def placed(policy: str, image_h: int, image_w: int, input_h: int, input_w: int, is_centered: bool) -> list[int] | None:
    """Return what `Geometry` makes of it; None if it, or the limit of sides, refuses."""
    anchor = "center" if is_centered else "top-left"
    spec = make_spec(size=(input_h, input_w), resize=policy, anchor=anchor)
    try:
        geometry = Geometry.place((image_h, image_w), spec.input)
    except InputError:
        return None
    if max(geometry.resized_hw) > MAX_SIDE:
        return None
    return [*geometry.resized_hw, *geometry.offset_yx, *geometry.content, *geometry.visible]


@needs_compiler
def test_the_geometry_of_cpp_is_that_of_python(build: Path, rng: np.random.Generator) -> None:
    cases = list(placements(rng))
    lines = "\n".join(" ".join((policy, *(str(int(n)) for n in numbers))) for policy, *numbers in cases)
    printed = run(build / "check_geometry", text=lines).splitlines()
    expected = [placed(*case) for case in cases]
    assert sum(one is not None for one in expected) > len(cases) / 2
    for case, line, one in zip(cases, printed, expected, strict=True):
        got = None if line.startswith("refused: ") else list(map(int, line.split()))
        assert got == one, (case, line)


@needs_compiler
@pytest.mark.parametrize("seed", [20, pytest.param(21, marks=pytest.mark.full)])
@pytest.mark.parametrize("step", ["preprocess", "masks"])
def test_no_byte_outside_of_an_array_is_read_or_written(build: Path, step: str, seed: int) -> None:
    """Images, batches, outputs, masks and maps are heap blocks of exact size, which AddressSanitizer watches."""
    assert "0 failures" in run(build / f"check_{step}", str(seed))


@needs_compiler
@pytest.mark.parametrize("name", FUZZERS)
def test_the_kept_inputs_of_a_fuzzer_find_nothing(build: Path, name: str, tmp_path: Path) -> None:
    inputs = kept_inputs(name, tmp_path)
    assert len(inputs) > 20
    assert f"{len(inputs)} inputs" in run(build / f"fuzz_{name}", *inputs)


@pytest.mark.full
@needs_compiler
@pytest.mark.skipif("clang++" not in COMPILERS, reason="needs clang++ with libFuzzer")
@pytest.mark.parametrize("name", FUZZERS)
def test_a_fuzzer_of_the_library_finds_nothing_in_a_minute(name: str, tmp_path: Path) -> None:
    options = ("-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_COMPILER=clang++", "-DFUZZERS=ON")
    run("cmake", "-S", ROOT / "tests" / "cpp", "-B", tmp_path / "build", *options)
    run("cmake", "--build", tmp_path / "build", "--target", f"fuzz_{name}", "--parallel", "2", timeout_s=600)
    kept_inputs(name, tmp_path / "corpus")
    run(tmp_path / "build" / f"fuzz_{name}", "-max_total_time=60", "-max_len=200", tmp_path / "corpus", timeout_s=300)


def kept_inputs(name: str, folder: Path) -> list[Path]:
    """Unpack the corpus of a fuzzer."""
    with zipfile.ZipFile(ROOT / "tests" / "cpp" / "corpus" / f"{name}.zip") as archive:
        archive.extractall(folder)
    return sorted(folder.iterdir())


@needs_compiler
def test_the_library_refuses_what_it_cannot_take(build: Path) -> None:
    assert "0 failures" in run(build / "check_refusals")


@needs_compiler
def test_the_thread_pool_covers_all_work_once(build: Path) -> None:
    assert "0 failures" in run(build / "check_pool")


@needs_compiler
def test_the_thread_pool_has_no_races(build: Path) -> None:
    built = subprocess.run(["cmake", "--build", build, "--target", "check_races"], capture_output=True, text=True)
    if built.returncode:
        assert "tsan" in built.stdout, built.stdout
        pytest.skip("no ThreadSanitizer")
    done = subprocess.run([build / "check_races"], capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel's memory layout")
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    assert "0 failures" in done.stdout
