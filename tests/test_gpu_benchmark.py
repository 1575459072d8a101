"""Does the GPU's benchmark run, with a GPU and without one? What it measures is not for a test to judge."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cuda_core
import kernels_on_cpu as on_cpu
import numpy as np
import pytest
from fake_network import FakeDeviceBackend

from seginfer import Segmenter
from seginfer._cuda import compiler
from seginfer._system.driver import GpuInfo, has_gpu
from seginfer.backends import read_any_model
from seginfer.backends.onnxruntime import OnnxRuntimeBackend

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
ONE_CASE = ["--quick", "--sizes", "512x1024", "--precisions", "fp32", "--batches", "2"]
MEMORY = 1 << 34


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def run_here(call: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call a function of this file in a process of its own: benchmarks and tests have modules of one name."""
    folders = [str(BENCHMARKS), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {folders!r}; import test_gpu_benchmark as t; sys.exit(t.{call}(*sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("record") / "new" / "cpu.json"
    arguments = ["--quick", "--sizes", "512x1024", "--batches", "2", "--peers", "eager", "onnxruntime"]
    done = run_script("--json", path, "--device", "cpu", *arguments)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_a_record_of_the_cpu_says_that_it_is_none_of_a_gpu(record: dict[str, Any]) -> None:
    assert record["device"] == "cpu"
    assert record["quick"] is True
    assert record["gpu"] is None
    assert record["warning"].startswith("THIS IS NOT A GPU")
    assert "skipped" in record["kernels"]
    assert record["is_complete"] is True


def test_a_record_says_where_it_comes_from(record: dict[str, Any]) -> None:
    assert {"python", "numpy", "torch", "onnxruntime", "seginfer"} <= set(record["versions"])
    assert set(record["commit"]) == {"sha", "has_changes"}
    assert record["machine"]["processor"]
    assert record["goal"] == {"end_to_end_over_network": 1.2, "sense": "<="}
    assert str(BENCHMARKS.parent) not in json.dumps(record)


def test_every_case_has_its_numbers(record: dict[str, Any]) -> None:
    assert [case["precision"] for case in record["cases"]] == ["fp32", "fp16"]
    for case in record["cases"]:
        for name in ("torch", "onnxruntime"):
            result = case["backends"][name]
            times = result["end_to_end"]
            assert 0 < times["min_ms"] <= times["median_ms"] <= times["p99_ms"]
            assert result["frames_per_s"] == pytest.approx(case["batch"] * 1e3 / times["median_ms"])
            assert result["runs_as"] == "calls of the host"
            assert result["network"]["median_ms"] > 0
            assert result["is_goal_met"] is (result["end_to_end_over_network"] <= 1.2)
            assert all(result["against"][peer]["over_ours"] > 0 for peer in ("eager", "onnxruntime"))


def test_every_result_was_compared_with_pytorch(record: dict[str, Any]) -> None:
    for case in record["cases"]:
        for name in ("torch", "onnxruntime"):
            checks = case["backends"][name]["checks"]
            assert checks["decisive_pixels_unlike_pytorch"] == 0
            assert checks["decisive_pixels"] > 0.8 * case["batch"] * np.prod(record["image_hw"])
        assert all(0.85 < peer["pixel_agreement"] <= 1 for peer in case["peers"].values())


def test_what_is_not_there_is_listed_with_its_reason(record: dict[str, Any]) -> None:
    assert set(record["missing"]) == {"backend tensorrt", "backend tensorrt_rtx", "peer compile"}
    assert record["missing"]["peer compile"] == "left out by --peers"
    for case in record["cases"]:
        assert set(case["backends"]) == {"torch", "onnxruntime", "tensorrt", "tensorrt_rtx"}
        assert "GPU" in case["backends"]["tensorrt"]["skipped"]


def main_with_wrong(folder: str) -> int:
    """Run the benchmark where the network sees a mirror, then where all masks are two pixels to the side."""
    import gpu  # type: ignore[import-not-found, unused-ignore]

    infer: Any = OnnxRuntimeBackend.infer
    segment: Any = Segmenter._segment

    def mirrored(self: OnnxRuntimeBackend, batch: Any, out: Any = None) -> Any:
        return {name: np.ascontiguousarray(array[..., ::-1]) for name, array in infer(self, batch, out).items()}

    def shifted(self: Segmenter, *arguments: Any, **options: Any) -> Any:
        results, ios = segment(self, *arguments, **options)
        for result in results:
            result.labels[:] = np.roll(result.labels, 2, axis=1)
        return results, ios

    only = ["--backends", "onnxruntime", "--peers", "onnxruntime"]
    codes = []
    for owner, name, wrong in ((OnnxRuntimeBackend, "infer", mirrored), (Segmenter, "_segment", shifted)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, wrong)
            codes.append(gpu.main(["--json", f"{folder}/{name}.json", "--device", "cpu", *ONE_CASE, *only]))
    return 0 if codes == [1, 1] else 3


def test_a_wrong_result_is_kept_as_one_and_fails_the_run(tmp_path: Path) -> None:
    done = run_here("main_with_wrong", str(tmp_path))
    assert done.returncode == 0, done.stderr
    logits, mask = re.findall(r"a result is wrong: (.*)", done.stderr)
    assert "pixels undecided" in logits
    assert "decisive pixels (margin above" in mask
    assert left_in(tmp_path) == ["_segment.json", "infer.json"]
    for name, reason in (("infer", logits), ("_segment", mask)):
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert record["is_complete"]
        (case,) = record["cases"]
        assert case["backends"]["onnxruntime"] == {"wrong": reason}


OBSTACLES = {"": "one CUDA graph", "it waits for the host": "plain launches"}


def main_with_a_fake_gpu(library: str, folder: str) -> int:
    """Run the benchmark on the GPU's pipeline, with a CPU behind cuda-core and behind the network, by obstacle."""
    import cuda_kernels
    import gpu
    from _gpu import cases, machine

    def opened(name: str, case: Any) -> Segmenter:
        del name
        model = read_any_model(case.network.files[case.precision].ours)
        backend = FakeDeviceBackend(Path(model.path), (model.spec.output.name,))
        backend.obstacle = obstacle
        return Segmenter(model.spec, backend, pixels="cuda")

    small = {"IMAGE_HW": (54, 96), "INPUT_HW": (32, 48), "LOGITS_HW": (8, 12), "COPIED_BYTES": 1 << 16}
    codes = []
    for i, obstacle in enumerate(OBSTACLES):  # noqa: B007, `opened` reads it
        with (
            fake_cuda_core.installed(on_cpu.Cpu(ctypes.CDLL(library))) as world,
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in {**small, "ROUNDS": 1, "WARM_UP": 0, "CALLS": 1}.items():
                patch.setattr(cuda_kernels, name, value)
            patch.setattr(compiler, "require_cuda", fake_cuda_core.module)
            patch.setattr(cases, "why_missing", lambda *_: "")
            patch.setattr(cases, "prepare", lambda *_: None)
            patch.setattr(cases, "open_segmenter", opened)
            for module in (gpu, machine):
                patch.setattr(module, "find_gpu", lambda index=0: GpuInfo(index, "A CPU", (9, 0), MEMORY, "13.0", ""))
            for module in (cases, machine):
                patch.setattr(module, "free_and_total_bytes", lambda: (MEMORY - world.of_device(), MEMORY))
            codes.append(gpu.main(["--json", f"{folder}/{i}.json", *ONE_CASE, "--backends", "onnxruntime"]))
    return int(max(codes))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(has_gpu(), reason="there is a GPU; run the benchmark itself")
def test_on_a_gpu_frames_and_networks_run_as_graphs_or_say_why_not(kernel_library: Path, tmp_path: Path) -> None:
    done = run_here("main_with_a_fake_gpu", str(kernel_library), str(tmp_path))
    assert done.returncode == 0, done.stderr
    for i, (obstacle, expected) in enumerate(OBSTACLES.items()):
        record = json.loads((tmp_path / f"{i}.json").read_text())
        assert (record["device"], record["warning"], record["gpu"]["name"]) == ("cuda", None, "A CPU")
        assert len(record["kernels"]["kernels"]) == 9
        (case,) = record["cases"]
        result = case["backends"]["onnxruntime"]
        assert result["checks"]["decisive_pixels_unlike_pytorch"] == 0
        assert result["runs_as"] == expected
        assert obstacle in result["pipeline"]
        assert result["network"]["how"] == f"{expected}, by CUDA events"
        assert result["network"]["median_ms"] == 1.0  # by the fake's clock
        assert result["end_to_end_over_network"] > 0
        assert result["peak_gpu_memory_mib"] > 0
        assert "sees no CUDA device" in result["against"]["eager"]["skipped"]


def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("there is a GPU")
    done = run_script("--json", tmp_path / "none.json")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu.py: nothing to measure: ")
    assert "--device cpu" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not left_in(tmp_path)


def test_without_any_backend_there_is_nothing_to_measure(tmp_path: Path) -> None:
    done = run_script("--json", tmp_path / "none.json", "--device", "cpu", "--backends", "tensorrt")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "gpu.py: nothing to measure: tensorrt: TensorRT runs on an NVIDIA GPU"
    assert not left_in(tmp_path)


def test_what_the_minutes_did_not_do_for_is_listed(tmp_path: Path) -> None:
    done = run_script("--json", tmp_path / "late.json", "--device", "cpu", "--quick", "--minutes", "0")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "late.json").read_text())
    assert not record["cases"]
    assert [network["input_hw"] for network in record["networks"]] == [[32, 64], [64, 128]]
    assert all("--minutes" in network["skipped"] for network in record["networks"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--json", str(tmp_path / "half.json"), "--device", "cpu"]
    chosen = ["--quick", "--backends", "onnxruntime", "--peers", "onnxruntime"]
    with subprocess.Popen(
        [*command, *chosen],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job starts with it ignored
    ) as process:
        assert process.stderr is not None
        while "batch 2 ..." not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130, rest
    assert rest.endswith(f"gpu.py: stopped; 1 cases are in {tmp_path / 'half.json'}\n")
    assert left_in(tmp_path) == ["half.json"]
    record = json.loads((tmp_path / "half.json").read_text())
    assert not record["is_complete"]
    (case,) = record["cases"]
    assert case["backends"]["onnxruntime"]["end_to_end"]["median_ms"] > 0


def test_help_has_examples() -> None:
    done = run_script("--help")
    assert done.returncode == 0
    assert done.stdout.count("python benchmarks/gpu.py --json") >= 3
