"""Ring 4: abuse by machine. Each fuzzer of tests/fuzz runs for a while; on a crash its input is printed."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from native import needs_core

FUZZERS = Path(__file__).parent / "fuzz"
NAMES = {path.stem.removeprefix("fuzz_") for path in FUZZERS.glob("fuzz_*.py")}
WITHOUT_CORPUS = {"bindings"}  # its inputs are choices, whose meaning changes with the code


def fuzz(name: str, folder: Path, seconds: int) -> str:
    """Run a fuzzer on its kept inputs, and then for some time, to its good end and return what it printed."""
    corpus, found = folder / "corpus", folder / "found"
    found.mkdir()
    corpus.mkdir()
    if name not in WITHOUT_CORPUS:
        zipfile.ZipFile(FUZZERS / "corpus" / f"{name}.zip").extractall(corpus)
        assert len(list(corpus.iterdir())) > 3
    command = [sys.executable, str(FUZZERS / f"fuzz_{name}.py"), "--seconds", str(seconds), str(corpus)]
    environment = {**os.environ, "TMPDIR": str(folder)}
    limit_s = 120 + seconds * 8
    done = subprocess.run(command, cwd=found, capture_output=True, text=True, timeout=limit_s, env=environment)
    if done.returncode:
        texts = [f"{path.name}: base64 {base64.b64encode(path.read_bytes()).decode()}" for path in found.iterdir()]
        pytest.fail(
            f"fuzz_{name} ended with {done.returncode}. To repeat it, write the bytes into a file, and run "
            f"`python tests/fuzz/fuzz_{name}.py FILE`: {texts}\n{done.stdout[-2000:]}{done.stderr[-6000:]}",
            pytrace=False,
        )
    return done.stdout + done.stderr


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_core if name == "bindings" else ()) for name in sorted(NAMES)]
)
def test_a_fuzzer_finds_nothing(name: str, seconds: int, tmp_path: Path) -> None:
    said = fuzz(name, tmp_path, seconds)
    runs = int(said.rpartition("Done ")[2].split()[0])
    assert runs > 4 * seconds, said[-2000:]
