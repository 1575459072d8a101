"""`seginfer demo` does the main job: it exports, certifies, runs the clip, and shows the result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import pytest
from picture_files import read_picture

from seginfer import read_model
from seginfer._cli import main
from seginfer._files.model_file import certificate_matches
from seginfer._media.video import VideoReader
from seginfer.assets import SOCCER


def test_the_demo_exports_certifies_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["export_skipped"] is None
    certificate = result["certificate"]
    assert certificate["passed"]
    assert certificate["decisive_agreement"] == 1.0
    assert certificate["pixel_agreement"] >= 0.9999
    assert certificate["pixels"] == certificate["images"] * 360 * 640
    assert certificate["logit_max_error"] < 1e-3
    model = Path(result["paths"]["model"])
    assert certificate_matches(model, read_model(model).spec)
    assert set(result["latency_ms"]) == {"preprocess", "infer", "postprocess", "total"}
    assert all(value["p50"] > 0 for value in result["latency_ms"].values())
    _check_pictures(result["paths"])


def _check_pictures(paths: dict[str, object]) -> None:
    assert len(list(VideoReader(str(paths["video"])))) == 48
    for overlay, mask in zip(paths["overlays"], paths["masks"], strict=True):  # type: ignore[call-overload]
        assert read_picture(overlay).shape == (360, 640, 3)
        classes = set(read_picture(mask, cv2.IMREAD_UNCHANGED).ravel().tolist())
        assert {1, 4} <= classes <= set(range(8))  # the clip follows the ball on the field
    report = Path(str(paths["report"]))
    text = report.read_text(encoding="utf-8")
    linked = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(linked) == 2 * len(paths["overlays"]) + 1  # type: ignore[arg-type]
    assert all((report.parent / name).is_file() for name in linked)
    assert "parity passed" in text
    assert "100.0000%" in text


def test_the_shipped_model_is_the_shipped_weights() -> None:
    from seginfer.export import load_source, load_weights, weights_sha256

    module = load_source("seginfer.export.zoo.unet:soccer_unet").module
    load_weights(module, SOCCER / "pitch.safetensors")
    spec = read_model(SOCCER / "pitch.onnx").spec
    assert spec.provenance.weights_sha256 == weights_sha256(module)
    assert certificate_matches(SOCCER / "pitch.onnx", spec)
    assert (SOCCER / "pitch.safetensors").stat().st_size <= 4_000_000
