"""The model of a frame on a GPU: its arithmetic, and what it prints beside a record."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import gpu_model as model  # type: ignore[import-not-found, unused-ignore]

NONE = Path("no such file")


def test_a_kernel_takes_the_longer_of_bytes_and_instructions() -> None:
    sheet = model.Sheet("a GPU", memory_gb_per_s=1000, multiprocessors=10, boost_ghz=1, bus_gb_per_s=10)
    assert sheet.instructions_per_us == 10 * 4 * 32 * 1000
    assert model.Kernel("", 1e6, 1e5).us(sheet) == pytest.approx(1 / model.BANDWIDTH)  # 1 MB at 1 MB per us
    assert model.Kernel("", 1e6, 5 * 1.28e6).us(sheet) == pytest.approx(5 / model.ISSUE)


def test_bytes_are_those_of_the_table() -> None:
    moved = {kernel.name: kernel.moved_bytes / 1e6 for kernel in model.kernels(NONE)}
    assert moved["preprocess, opencv, float32"] == pytest.approx(12.5, abs=0.05)
    assert moved["preprocess, opencv, float16"] == pytest.approx(9.4, abs=0.05)
    assert moved["confidence, float32"] == pytest.approx(10.8, abs=0.05)
    assert moved["overlay"] == pytest.approx(14.5, abs=0.05)
    assert moved["mask, float32"] == pytest.approx(2.5 + 2.07, abs=0.05)


def test_counts_of_the_file_replace_those_of_the_module(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(json.dumps({"per_pixel": {"overlay": 1.5, "other": 3}}))
    counts = model.instructions_per_pixel(tmp_path / "counts.json")
    assert counts["overlay"] == 1.5
    assert counts["confidence, float32"] == 1060
    assert "other" not in counts


def test_counts_of_the_repository_have_the_names_of_the_model() -> None:
    if not model.COUNTS.is_file():
        pytest.skip("no counts yet")
    recorded = json.loads(model.COUNTS.read_text())["per_pixel"]
    assert set(model.instructions_per_pixel()) <= set(recorded)


def test_a_frame_is_the_sum_of_its_parts_and_copies_scale_with_the_batch() -> None:
    one, four = (model.frame(model.find_sheet("h200"), batch, NONE) for batch in (1, 4))
    for parts in (one, four):
        assert parts["sum"] == pytest.approx(sum(parts.values()) - parts["sum"])
    assert four["upload"] == pytest.approx(4 * one["upload"])
    assert four["launches"] == one["launches"]
    assert one["upload"] == pytest.approx(1080 * 1920 * 3 / 63e3 / model.BANDWIDTH)
    orin = model.frame(model.find_sheet("agx orin"), 1, NONE)
    assert orin["upload"] == pytest.approx(2 * 1080 * 1920 * 3 / 204.8e3 / model.BANDWIDTH), "read and written"


@pytest.mark.parametrize("text", ["orin", "a card", ""])
def test_a_gpu_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match=r"expected one of .*H200.*; got"):
        model.find_sheet(text)


def test_measurements_stand_beside_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernels = [
        {"name": "overlay", "time_ms": 2.0},
        {"name": "label, float32", "time_ms": 0.5},
        {"name": "mask, float32", "time_ms": 1.0},
        {"name": "confidence, float32", "failed": "a reason"},
    ]
    result = {"end_to_end": {"median_ms": 3.0}, "network": {"median_ms": 2.5}}
    slower = {"end_to_end": {"median_ms": 9.0}, "network": {"median_ms": 2.5}}
    backends = {"torch": slower, "tensorrt": result, "onnxruntime": {"skipped": "a reason"}}
    case = {"batch": 1, "precision": "fp32", "input_hw": [512, 1024], "backends": backends}
    files = [tmp_path / "kernels.json", tmp_path / "gpu.json"]
    for file, record in zip(files, ({"frames": 100, "kernels": kernels}, {"cases": [case]}), strict=True):
        file.write_text(json.dumps(record))
    assert model.main(["rtx 4090", "--kernels", str(files[0]), "--frames", str(files[1])]) == 0
    rows = {line[:44].strip(): line[44:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["overlay"][1] == "20.0"
    assert rows["mask, float32"][1] == "15.0", "with its labels"
    assert rows["confidence, float32"][1] == "-"
    assert rows["sum"][1] == "500.0"
    assert len(rows["upload"]) == 1


def test_without_records_only_predictions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert model.main(["h100", "--batch", "16"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("H100 SXM, from its data sheet")
    assert "us per batch of 16" in text
