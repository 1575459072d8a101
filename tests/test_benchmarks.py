"""Do the benchmarks run, and does the report say what they found? What they measure is not for a test to judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RATIOS = {
    "mask_vs_torch",
    "mask_vs_cv2",
    "mask_noise_vs_torch",
    "mask_noise_vs_cv2",
    "preprocess_vs_numpy",
    "preprocess_vs_blob",
    "preprocess_vs_memcpy",
    "end_to_end_vs_model_api",
    "end_to_end_vs_backend",
    "call_overhead_us",
    "steady_allocations",
}
PLACE = "# title\n\n<!-- benchmarks:begin -->\nold\n<!-- benchmarks:end -->\n\nthe rest\n"


def run_script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def results_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a quick run without the peers that need their own environment, marked as those of a full one."""
    path = tmp_path_factory.mktemp("results") / "results.json"
    done = run_script("run.py", "--json", path, "--quick", "--no-peers")
    assert done.returncode == 0, done.stderr
    path.write_text(json.dumps({**json.loads(path.read_text()), "quick": False}))
    return path


@pytest.fixture(scope="module")
def results(results_file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(results_file.read_text())
    return loaded


def test_every_ratio_is_a_number_or_has_a_reason(results: dict[str, Any]) -> None:
    assert set(results["ratios"]) == RATIOS
    for name, number in results["ratios"].items():
        assert isinstance(number, float) or results["skipped"][name]
    missing = {name for name, number in results["ratios"].items() if number is None}
    assert missing <= {"end_to_end_vs_model_api", "steady_allocations"}  # a peer left out; a C compiler


def test_results_say_where_they_come_from(results: dict[str, Any]) -> None:
    assert results["machine"]["cores_used"] <= 2
    assert {"python", "numpy", "onnxruntime", "seginfer", "torch"} <= set(results["versions"])
    assert set(results["commit"]) == {"sha", "has_changes"}
    assert str(ROOT) not in json.dumps(results)


def test_every_stage_checked_its_results(results: dict[str, Any]) -> None:
    assert set(results["results"]) == {"mask", "preprocess", "overhead", "memory", "camera", "end_to_end"}
    for stage in results["results"].values():
        assert stage["checks"] or "steady_allocations" in stage["skipped"]


def test_the_report_fills_the_place_in_a_readme(results_file: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(PLACE)
    done = run_script("report.py", results_file, "--readme", readme)
    assert done.returncode == 0, done.stderr
    text = readme.read_text()
    assert text.startswith("# title\n")
    assert text.endswith("<!-- benchmarks:end -->\n\nthe rest\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} == {7}
    assert len(rows) >= 2 + len(RATIOS)
    assert sum("not measured" in row for row in rows) == sum(
        n is None for n in json.loads(results_file.read_text())["ratios"].values()
    )


def test_the_report_refuses_what_it_cannot_use(results_file: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no place\n")
    done = run_script("report.py", results_file, "--readme", readme)
    assert done.returncode == 2
    assert "benchmarks:begin" in done.stderr
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps({**json.loads(results_file.read_text()), "quick": True}))
    readme.write_text(PLACE)
    done = run_script("report.py", quick, "--readme", readme)
    assert done.returncode == 2
    assert readme.read_text() == PLACE
    assert "run again" in done.stderr
    quick.write_text("{}")
    assert run_script("report.py", quick).returncode == 2


def test_the_plot_is_drawn_and_the_same_each_time(results_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        done = run_script("report.py", results_file, "--plot", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.full
def test_the_plot_is_drawn_as_png_too(results_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run_script("report.py", results_file, "--plot", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_one_stage_can_run_alone(tmp_path: Path) -> None:
    done = run_script("run.py", "--json", tmp_path / "new" / "one.json", "--quick", "--only", "overhead")
    assert done.returncode == 0, done.stderr
    loaded = json.loads((tmp_path / "new" / "one.json").read_text())
    assert loaded["ratios"]["call_overhead_us"] > 0
    assert loaded["skipped"]["mask_vs_cv2"]
