"""Ring 4: abuse by machine. Each fuzzer of tests/fuzz runs for a while; on a crash its input is printed."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from native import needs_core

FUZZERS = Path(__file__).parent / "fuzz"


def fuzz(name: str, folder: Path, seconds: int) -> str:
    """Run a fuzzer in a process of its own to its good end and return what it printed."""
    command = [sys.executable, str(FUZZERS / name), "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120 + seconds * 8)
    if done.returncode:
        found = "".join(
            f"\n{path.name}: base64 {base64.b64encode(path.read_bytes()).decode()}" for path in folder.glob("crash-*")
        )
        pytest.fail(
            f"{name} ended with {done.returncode}. To repeat it, write the bytes into a file, and run "
            f"`python tests/fuzz/{name} FILE`:{found}\n{done.stdout[-2000:]}{done.stderr[-6000:]}",
            pytrace=False,
        )
    return done.stdout + done.stderr


@pytest.mark.parametrize("seconds", [3, pytest.param(120, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "name", [pytest.param("fuzz_bindings.py", marks=needs_core), "fuzz_spec.py"], ids=["bindings", "spec"]
)
def test_a_fuzzer_finds_nothing(name: str, seconds: int, tmp_path: Path) -> None:
    said = fuzz(name, tmp_path, seconds)
    runs = int(said.rpartition("Done ")[2].split()[0])
    assert runs > 30 * seconds, said[-2000:]
