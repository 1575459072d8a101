"""The tests that wait for a GPU are found where packages are missing, and tell what a machine lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import conftest
import pytest
from shared import HIDE, need_cuda_provider

from seginfer import _native
from seginfer._system.driver import has_gpu

TESTS = Path(__file__).parent
WAITING = sorted(
    path.name
    for path in TESTS.glob("test_*.py")
    if re.search(r"pytest\.mark\.needs_", path.read_text(encoding="utf-8"))
)
HOOK = "tests.conftest import pytest_pycollect_makemodule"


def collect(folder: Path, arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Collect tests in a process that has none of the optional packages."""
    (folder / "hiding.py").write_text(HIDE)
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "--collect-only", "-q", "-rs"]
    command = [sys.executable, "-m", "pytest", "-p", "hiding", *options, *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment = {**inherited, "PYTHONPATH": str(folder), **variables}
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=600)


def check_collected(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout
    assert "error" not in done.stdout.splitlines()[-1]
    assert all(f"tests/{name}::" in done.stdout for name in WAITING), done.stdout


def test_there_are_tests_that_wait() -> None:
    assert {"test_cuda.py", "test_cuda_on_gpu.py", "test_driver.py", "test_tensorrt_on_gpu.py"} <= set(WAITING)


def test_waiting_tests_are_collected_without_optional_packages(tmp_path: Path) -> None:
    files = [f"tests/{name}" for name in (*WAITING, "test_native_overlay.py", "test_engine_parity.py")]
    done = collect(tmp_path, ["-m", "needs_cuda or needs_tensorrt", *files], FAIL_WITHOUT_CUDA="1")
    check_collected(done)


@pytest.mark.full
def test_no_file_stops_the_waiting_tests(tmp_path: Path) -> None:
    done = collect(tmp_path, ["-m", "needs_cuda or needs_tensorrt", "tests"], FAIL_WITHOUT_CUDA="1")
    check_collected(done)


def test_an_error_in_a_test_file_is_none_of_a_missing_package(tmp_path: Path) -> None:
    for name, line in (("test_broken.py", "import no_such_module"), ("test_lacking.py", "import pycocotools")):
        (tmp_path / name).write_text(f"{line}\n\n\ndef test_nothing() -> None: ...\n")
    (tmp_path / "conftest.py").write_text(f"import sys; sys.path.append({str(TESTS)!r})\nfrom {HOOK}\n")
    done = collect(tmp_path, [str(tmp_path)])
    assert done.returncode != 0
    assert "No module named 'no_such_module'" in done.stdout
    assert "pycocotools halted" not in done.stdout


def test_a_runtime_for_the_cpu_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(__version__="1.32.0", get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    words = r"ONNX Runtime 1\.32\.0 runs on the CPU alone \(pip uninstall onnxruntime; pip install 'seginfer\[gpu\]'\)"
    monkeypatch.setenv("FAIL_WITHOUT_CUDA", "1")
    with pytest.raises(pytest.fail.Exception, match=words):
        need_cuda_provider()
    monkeypatch.delenv("FAIL_WITHOUT_CUDA")
    with pytest.raises(pytest.skip.Exception, match=words):
        need_cuda_provider()


def test_without_the_core_there_is_nothing_to_compare_a_gpu_with(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = request.node
    item.add_marker("needs_cuda")
    monkeypatch.setattr(conftest, "has_gpu", lambda: True)
    assert conftest._missing(item) == ("" if _native.core else f"nothing to compare a GPU with: {_native.describe()}")
    monkeypatch.setattr(_native, "core", None)
    monkeypatch.setattr(_native, "_reason", "it was not built")
    assert conftest._missing(item).endswith("NumPy; no compiled core: it was not built")
    monkeypatch.setattr(conftest, "has_gpu", has_gpu)
