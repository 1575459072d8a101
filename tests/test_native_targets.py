"""Ring 2: compilers and processors agree: one digest of everything that the C++ library writes, on each of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "cpp_bindings"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not (shutil.which("g++") and shutil.which("cmake")), reason="needs g++ and cmake"),
]


class Target(NamedTuple):
    compiler: str
    options: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    """What runs the program, if not the machine itself."""


TARGETS = {
    "clang": Target("clang++"),
    "aarch64": Target(
        "aarch64-linux-gnu-g++",
        ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        ("qemu-aarch64",),
    ),
    "x86-64-v2": Target("g++", (), ("qemu-x86_64", "-cpu", "Nehalem")),  # the first processor of that level
}


def digests(target: Target, folder: Path) -> dict[str, str]:
    """Build the library and the program, and return a digest by instruction set."""
    cmake: list[str | Path] = [
        "cmake",
        "-S",
        CORE,
        "-B",
        folder,
        "-DSEGINFER_PYTHON=OFF",
        f"-DCMAKE_CXX_COMPILER={target.compiler}",
    ]
    subprocess.run([*cmake, *target.options], check=True, capture_output=True)
    built = subprocess.run(["cmake", "--build", folder, "-j2"], check=True, capture_output=True, text=True)
    assert "warning" not in built.stdout + built.stderr
    program = folder / "digest"
    flags: list[str | Path] = [
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        "-pthread",
        "-static",
        f"-I{CORE / 'include'}",
        "-o",
        program,
    ]
    sources = [ROOT / "tests" / "cpp" / "digest.cpp", folder / "libseginfer.a"]
    subprocess.run([target.compiler, *flags, *sources], check=True)
    printed = subprocess.run([*target.runner, program], check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in printed.splitlines())


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(Target("g++"), tmp_path_factory.mktemp("native"))


def test_instruction_sets_agree(expected: dict[str, str]) -> None:
    assert "portable" in expected
    assert len(set(expected.values())) == 1, expected


@pytest.mark.parametrize("name", TARGETS)
def test_another_compiler_or_processor_writes_the_same_bytes(
    name: str, expected: dict[str, str], tmp_path: Path
) -> None:
    target = TARGETS[name]
    missing = [tool for tool in (target.compiler, *target.runner[:1]) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    got = digests(target, tmp_path)
    assert set(got.values()) == set(expected.values())
    if target.runner:
        assert set(got) == {"portable"}, "instruction sets were chosen that this processor does not have"
