"""Ranges are never learned from the images that a certificate is measured on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from half_networks import Body, Times
from networks import SIZE, Tiny, make_spec, pictures
from numpy.typing import NDArray

from seginfer import InputError, preprocess, read_model
from seginfer._cli import main
from seginfer.export import _onnx, export_onnx, precision
from seginfer.export.precision.fp32 import FP32, Unchanged
from seginfer.export.precision.precision import Precision

IMAGES = pictures(*[SIZE] * 9)
OTHERS = pictures(*[(40, 56)] * 3)


class Seen:
    """Bytes of the network inputs that an export learned from, and of those that it compared."""

    def __init__(self) -> None:
        self.learned: list[bytes] = []
        self.compared: list[bytes] = []

    def convert(self, model: onnx.ModelProto, batches: Iterable[NDArray[Any]]) -> Unchanged:
        self.learned += [batch.tobytes() for batch in batches]
        return Unchanged(model, ())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Plant a precision "seen" that changes nothing and records what it sees."""
    seen = Seen()
    planted = Precision("seen", seen.convert, FP32.limits, needs_calibration=True)
    monkeypatch.setitem(precision.PRECISIONS, "seen", planted)
    original = _onnx.certify

    def certify(module: Any, segmenter: Any, images: dict[str, Any], **options: Any) -> Any:
        seen.compared += [preprocess([image], segmenter.spec)[0].tobytes() for image in images.values()]
        return original(module, segmenter, images, **options)

    monkeypatch.setattr(_onnx, "certify", certify)
    return seen


@pytest.mark.parametrize(
    ("images", "calibration", "compared", "learned"),
    [
        (IMAGES, OTHERS, 9, 3),
        (IMAGES, IMAGES[:4] + OTHERS, 9, 3),
        (IMAGES, None, 5, 4),
        (IMAGES[:8], None, 4, 4),
        (IMAGES[:7], None, 7, 4),
        (IMAGES[:1], None, 1, 4),
        (IMAGES[:1] * 12, None, 6, 4),
        (None, None, 4, 4),
        (None, OTHERS, 4, 3),
    ],
    ids=["given", "given with shared ones", "halved", "just enough", "too few", "one", "repeated", "none", "synthetic"],
)
def test_no_image_is_learned_from_and_compared(
    images: Any, calibration: Any, compared: int, learned: int, seen: Seen, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    certificate = export_onnx(Tiny(), make_spec(), path, images=images, calibration=calibration, precision="seen")
    assert certificate.passed
    assert (certificate.images, len(seen.compared), len(seen.learned)) == (compared, compared, learned)
    assert not set(seen.compared) & set(seen.learned)


@pytest.mark.usefixtures("seen")
def test_shared_images_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibration = IMAGES[:4] + OTHERS
    export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=IMAGES, calibration=calibration, precision="seen")
    assert "4 calibration images are left out" in caplog.text


def test_calibration_images_that_are_all_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give images that differ"):
        export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=IMAGES, calibration=IMAGES[:2], precision="fp16")


def test_bad_calibration_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match="calibration is empty"):
        export_onnx(Tiny(), make_spec(), path, images=IMAGES, calibration=[], precision="fp16")
    bad: Any = [np.zeros((8, 8, 3), np.float32)]
    with pytest.raises(InputError, match="uint8"):
        export_onnx(Tiny(), make_spec(), path, images=IMAGES, calibration=bad, precision="fp16")
    with pytest.raises(InputError, match="'fp32' takes no calibration images; leave calibration out"):
        export_onnx(Tiny(), make_spec(), path, images=IMAGES, calibration=OTHERS)
    assert not list(tmp_path.iterdir())


def test_an_fp32_export_compares_every_image(tmp_path: Path) -> None:
    assert export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=IMAGES).images == 9


def test_ranges_follow_the_calibration_images(tmp_path: Path) -> None:
    """Bright images drive a layer to 13,000, near the end of float16's range. Dark ones drive it to 170."""
    module, spec = Body(Times(100)), make_spec(mean=(0.0,), std=(1.0,), scale=1.0)
    dark = [image // 64 for image in IMAGES[:2]]
    reasons = []
    for calibration in ([image // 64 for image in OTHERS], OTHERS):
        path = tmp_path / "m.onnx"
        export_onnx(module, spec, path, images=dark, calibration=calibration, precision="fp16")
        reasons.append(set(read_model(path).spec.provenance.fp32_nodes))
    assert reasons[1] - reasons[0] == {"values near the end of float16's range"}


def test_the_command_line_takes_calibration_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (tmp_path / "spec.json").write_text(make_spec().to_json())
    for name, images in (("photos", IMAGES), ("others", OTHERS)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            assert cv2.imwrite(str(tmp_path / name / f"{i}.png"), image)
    export = ["export", "networks:Tiny", "--spec", str(tmp_path / "spec.json"), "--images", str(tmp_path / "photos")]
    export += ["-o", str(tmp_path / "m.onnx"), "--json"]
    counts = []
    for more in ([], ["--calibration", str(tmp_path / "others")]):
        assert main([*export, "--precision", "fp16", *more]) == 0
        counts.append(json.loads(capsys.readouterr().out)["certificate"]["images"])
    assert counts == [5, 9]
    assert main([*export, "--calibration", str(tmp_path / "others")]) == 2
    assert "leave calibration out" in capsys.readouterr().err
