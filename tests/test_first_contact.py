"""The first run on a GPU, as far as it goes without one: names, the script under stubs, and the probes on fakes."""

from __future__ import annotations

import ast
import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fake_cuda_core
import kernels_on_cpu as on_cpu
import pytest
from fake_network import FakeDeviceBackend
from models import SPECS, save_model
from test_waiting import WAITING

from seginfer import Segmenter
from seginfer._cuda import compiler
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.kernels import KERNELS
from seginfer._system.driver import has_gpu

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
SCRIPT = BENCHMARKS / "first_contact.sh"
PROBES = [BENCHMARKS / "first_contact_probe.py", *sorted((BENCHMARKS / "_probes").glob("*.py"))]
STAGES = [
    "probe: driver, copies, captures",
    "probe: kernels, frames",
    "tests of kernels",
    "tests of frames",
    "kernels",
    "frames",
    "memcheck",
    "racecheck",
    "ncu",
    "tests of backends",
    "engines",
]

# Stands for python3 and NVIDIA's tools: notes its arguments, writes what the real one writes, and may fail.
STUB = r"""#!/usr/bin/env bash
{ printf '%s\x1f' "${0##*/}" "$@"; echo; } >>"$CALLS"
case "$*" in
  *"$FAILS"*) exit 3 ;;
  *pytest*tests/*) echo "3 passed in 1s" ;;
  *first_contact_probe*) echo "PROBE gpu: a stub" ;;
esac
while [ $# -gt 1 ]; do
  [ "$1" = --folder ] && mkdir -p "$2" && echo '{"kernels": []}' >"$2/stub.json"
  [ "$1" = --json ] && echo '{}' >"$2"
  shift
done
exit 0
"""

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Run:
    """One run of the script under stubs, in a folder like the repository's root.

    Attributes:
        summary: what it reports.
        calls: commands that it started.
        left: names in its output folder.
    """

    def __init__(
        self,
        folder: Path,
        script: str = "benchmarks/first_contact.sh",
        seconds: int = 570,
        fails: str = "nothing",
        tools: tuple[str, ...] = ("compute-sanitizer", "ncu"),
    ):
        root, stubs, out = folder / "root", folder / "stubs", folder / "out"
        for path in (root, stubs, root / ".fc" / ".whl"):
            path.mkdir(parents=True)
        for name in ("benchmarks", "tests"):
            (root / name).symlink_to(ROOT / name)
        (root / ".fc" / ".whl" / "cuda_core-1-py3-none-any.whl").touch()
        shutil.copy(SCRIPT, root / ".fc")
        for name in ("python3", "nvidia-smi", *tools):
            (stubs / name).write_text(STUB)
            (stubs / name).chmod(0o755)
        calls = folder / "calls.txt"
        variables = {"PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(calls), "FAILS": fails, "OUT": str(out)}
        command = ["bash", script, str(seconds)]
        environment = {**os.environ, **variables, "TMPDIR": str(folder)}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        self.summary = (out / "summary.txt").read_text()
        self.calls = [line.split("\x1f")[:-1] for line in calls.read_text().splitlines()]
        self.left = {path.name for path in out.iterdir()}

    def stages(self, state: str) -> list[str]:
        """Return the names of stages that ended so."""
        return re.findall(rf"^{re.escape(state)} (.+?)(?:, \d+ s of \d+|: -?\d+ s left)$", self.summary, re.MULTILINE)

    def calls_of(self, name: str) -> list[list[str]]:
        """Return the arguments of the calls that have a word among them, after that word."""
        return [call[call.index(name) + 1 :] for call in self.calls if name in call]


def run_here(call: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call a function of this file in a process of its own: benchmarks and tests have modules of one name."""
    folders = [str(BENCHMARKS), str(ROOT / "tests")]
    code = f"import sys; sys.path[:0] = {folders!r}; import test_first_contact as t; t.{call}(*sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=200)


# ------------------------------------------------------------------------------------------------------- the script


@needs_bash
def test_the_script_is_valid_bash() -> None:
    done = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_of_the_repository_that_the_script_names_exists() -> None:
    text = SCRIPT.read_text()
    paths = set(re.findall(r"\b(?:benchmarks|tests|seginfer|cpp_bindings)/[\w./]+\w", text))
    assert len(paths) >= 7
    assert all((ROOT / path).exists() for path in paths)
    for module in set(re.findall(r"\bseginfer\.\w+", text)):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".pyi").exists()
    (prefix,) = re.findall(r"^KERNEL_NAMES=regex:(\w+)$", text, re.MULTILINE)
    assert all(name.startswith(prefix) for name in KERNELS)
    (cases,) = re.findall(r"gpu_cases\.(\w+)\(", text)
    assert hasattr(importlib.import_module("gpu_cases"), cases)
    (marked,) = re.findall(r'^MARKED="(\w+) and not (\w+)"$', text, re.MULTILINE)
    assert all(f'"{marker}: ' in (ROOT / "pyproject.toml").read_text() for marker in marked)


@needs_bash
@pytest.mark.parametrize("script", ["benchmarks/first_contact.sh", ".fc/first_contact.sh"])
def test_every_stage_runs_from_the_repository_and_from_the_folder_of_wheels(script: str, tmp_path: Path) -> None:
    run = Run(tmp_path, script)
    assert run.stages("ok") == ["wheels", *STAGES]
    assert "FAILED" not in run.summary
    assert "PROBE gpu: a stub" in run.summary
    assert "3 passed in 1s" in run.summary
    assert run.left == {"summary.txt", "tests.log", "kernels.json", "gpu.json", "engines.json", "logs.txt"}
    assert len(run.summary.splitlines()) < 70, "one page"
    wheels, build = (call for call in run.calls if "install" in call)
    assert wheels[-1] == ".fc/.whl/cuda_core-1-py3-none-any.whl"
    assert build[-2:] == ["-e", "."]


@needs_bash
def test_a_stage_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, fails="pytest -q")
    assert run.stages("FAILED(3)") == ["tests of kernels", "tests of frames", "tests of backends"]
    assert "NO TEST RAN" in run.summary
    assert run.stages("ok") == ["wheels", *(name for name in STAGES if not name.startswith("tests"))]


@needs_bash
def test_a_failed_build_is_reported(tmp_path: Path) -> None:
    run = Run(tmp_path, fails="-e .")
    assert "FAILED build" in run.summary
    run = Run(tmp_path / "core", fails="import seginfer")
    assert "NO COMPILED CORE" in run.summary


@needs_bash
def test_stages_are_skipped_when_too_little_time_is_left(tmp_path: Path) -> None:
    run = Run(tmp_path, seconds=14)
    assert run.stages("SKIPPED") == ["wheels", *STAGES]
    assert not run.calls_of("benchmarks/gpu.py")
    assert {"summary.txt", "logs.txt"} <= run.left


@needs_bash
def test_a_tool_that_is_not_installed_is_named(tmp_path: Path) -> None:
    if shutil.which("ncu") or shutil.which("compute-sanitizer"):
        pytest.skip("NVIDIA's tools are installed")
    run = Run(tmp_path, tools=())
    assert re.findall(r"^MISSING (\w+): (\S+) is not installed$", run.summary, re.MULTILINE) == [
        ("memcheck", "compute-sanitizer"),
        ("racecheck", "compute-sanitizer"),
        ("ncu", "ncu"),
    ]
    assert run.stages("ok") == ["wheels", *(name for name in STAGES if name not in ("memcheck", "racecheck", "ncu"))]


@needs_bash
def test_without_a_gpu_the_script_ends_with_the_reason(tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("there is a GPU")
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    variables = {"OUT": str(tmp_path / "out"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", SCRIPT], cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 2
    (path,) = (tmp_path / "out").iterdir()
    assert re.search(r"^STOPPED: NVIDIA's driver .*; \w+", path.read_text(), re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr
    assert "ok" not in done.stdout.split()


@needs_bash
def test_elsewhere_the_script_names_the_folder_to_run_in(tmp_path: Path) -> None:
    done = subprocess.run(["bash", SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "run this in the root of the repository" in done.stderr


def parse_options(*calls: str) -> None:
    """Parse the options of benchmark commands."""
    cuda_kernels, gpu = (importlib.import_module(name) for name in ("cuda_kernels", "gpu"))
    for call in calls:
        script, *arguments = call.split("\x1f")
        parser = {"benchmarks/gpu.py": gpu, "benchmarks/cuda_kernels.py": cuda_kernels}[script]._parser()
        parser.parse_args(arguments)


@needs_bash
def test_the_benchmarks_take_the_options_of_the_script(tmp_path: Path) -> None:
    run = Run(tmp_path)
    names = ("benchmarks/gpu.py", "benchmarks/cuda_kernels.py")
    calls = ["\x1f".join([name, *call]) for name in names for call in run.calls_of(name)]
    assert len(calls) == 4
    done = run_here("parse_options", *calls)
    assert done.returncode == 0, done.stderr


@needs_bash
def test_the_script_runs_every_file_of_tests_that_wait_for_a_gpu(tmp_path: Path) -> None:
    calls = Run(tmp_path).calls_of("pytest")
    files = [argument for call in calls for argument in call if argument.startswith("tests/")]
    assert sorted(files) == [f"tests/{name}" for name in WAITING]  # test_waiting.py collects them


# ------------------------------------------------------------------------------------------------------- the probes


def import_names(*paths: str) -> None:
    """Import every name that files import, at their top or in a function."""
    for path in paths:
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module("." * node.level + (node.module or ""), "_probes")
                assert all(hasattr(module, alias.name) for alias in node.names), f"{path}:{node.lineno}"


def test_every_name_of_the_probes_exists() -> None:
    pytest.importorskip("torch")
    done = run_here("import_names", *map(str, PROBES))
    assert done.returncode == 0, done.stderr


def run_probes_on_fakes(library: str, model: str) -> None:
    """Run the probes that need no PyTorch on a GPU, with a CPU behind cuda-core and behind the network."""
    import _probes
    from _probes import capture, copies, frames, kernels

    small = {"FRAME_HW": (24, 32), "CASES": 2, "FILL_BYTES": 64, "BATCHES": (1, 2), "CALLS": 2, "CALLER_FRAMES": 5}
    with fake_cuda_core.installed(on_cpu.Cpu(ctypes.CDLL(library))), pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "require_cuda", fake_cuda_core.module)
        for module in (_probes, copies, frames, kernels):
            for name in small.keys() & vars(module).keys():
                patch.setattr(module, name, small[name])
        kernels.run()
        copies.run()
        spec = SPECS["semantic"]
        backend = FakeDeviceBackend(save_model(Path(model), spec), (spec.output.name,))
        with Segmenter(spec, backend, pixels="cuda") as segmenter:
            frames.time_frames(segmenter, _probes.make_frames(2))
        gpu = Gpu()
        allocate = partial(gpu.device.allocate, 64, stream=gpu.stream)  # `Gpu.allocate` waits for a recording
        calls: dict[str, Callable[[], object]] = {"nothing": lambda: None, "allocation": allocate}
        for name, call in calls.items():
            for is_threaded in (True, False):
                outcome = capture.call_during_capture(gpu, call, is_threaded=is_threaded)
                _probes.report(f"{name}, {is_threaded}", outcome)
        gpu.close()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_probes_report_what_a_fake_gpu_does(cpu: on_cpu.Cpu, tmp_path: Path) -> None:
    done = run_here("run_probes_on_fakes", cpu.library._name, str(tmp_path / "model.onnx"))
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^PROBE (.+?): (.*)$", done.stdout, re.MULTILINE))
    assert {name: value for name, value in found.items() if name.startswith("check_")} == dict.fromkeys(
        (f"check_{name}" for name in ("input", "mask", "overlay")), "cases of 2 unlike the CPU: 0"
    )
    assert found["H2D mask"] == "1.000 ms, 0.0 GB/s"  # by the fake's clock
    assert found["graph alone, batch 1, ms"] == found["graph alone, batch 2, ms"] == "1.0"
    assert {name.split(",")[0].strip() for name in found if "grid" in name} >= {"seginfer_mask_float32_2"}
    assert len(found["frames per second with 1, 2, 3 callers of single frames"].split(",")) == 3
    assert found["nothing, True"] == found["nothing, False"] == "call works, capture survives"
    assert found["allocation, True"] == "call works, capture survives"
    assert re.fullmatch(r"CALL FAILS \(.+\), CAPTURE BREAKS \(.+\)", found["allocation, False"])


def test_a_probe_that_fails_is_reported_and_the_next_one_runs() -> None:
    if has_gpu():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(BENCHMARKS / "first_contact_probe.py"), "copies", "environment"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == ["== copies", "PROBE copies: FAILED with exit code 1"]
    assert "PROBE numpy: " in done.stdout
    assert done.stdout.endswith("PROBE environment: FAILED with exit code 1\n")
