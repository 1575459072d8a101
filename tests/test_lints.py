"""Usual mistakes are warned of, and usual models are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from networks import Tiny, make_spec, pictures
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from seginfer import InputError, InputSpec, MissingFileError, Segmenter, read_model
from seginfer._cli import main
from seginfer._cli.inputs import sample
from seginfer.assets import SOCCER
from seginfer.export import certify, export_onnx, load_source, load_weights
from seginfer.export._label_files import read_labels
from seginfer.export.parity.lints import input_warnings
from seginfer.export.parity.samples import is_synthetic, sample_images
from seginfer.export.parity.torch_reference import torch_backend

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IN_255: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
CAFFE: dict[str, Any] = {"mean": (104.007, 116.669, 122.679), "scale": 1.0, "color": "bgr"}

# Preprocessing of model families as they document it.
USUAL = {
    "torchvision, timm, SMP": IMAGENET,
    "MMSegmentation": {**IN_255, "scale": 1.0},
    "Caffe": CAFFE,
    "BEiT, ViT, Inception": {"mean": (0.5,), "std": (0.5,)},
    "TensorFlow": {"scale": 1 / 127.5, "mean": (1.0,)},
    "MobileNet in 0..255": {"scale": 1.0, "mean": (127.5,), "std": (127.5,)},
    "YOLO": {},
    "raw": {"scale": 1.0},
    "raw uint8": {"scale": 1.0, "dtype": "uint8"},
    "SAM": {**IN_255, "scale": 1.0},
    "CLIP": {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)},
    "Cityscapes": {"mean": (0.3257, 0.369, 0.3223), "std": (0.2112, 0.2148, 0.2115)},
    "gray": {"color": "gray", "mean": (0.449,), "std": (0.226,)},
    "EDSR": {"scale": 1.0, "mean": (114.444, 111.4605, 103.02)},
}
MISTAKEN = {
    "0..255 with scale": IN_255,
    "Caffe with scale": {"mean": CAFFE["mean"]},
    "std alone": {"std": (58.395, 57.12, 57.375)},
    "0..1 without scale": {**IMAGENET, "scale": 1.0},
    "half without scale": {"mean": (0.5,), "std": (0.5,), "scale": 1.0},
    "mean alone without scale": {"mean": (0.45,), "scale": 1.0},
}


@pytest.mark.parametrize("fields", USUAL.values(), ids=USUAL)
def test_usual_constants_are_no_mistake(fields: dict[str, Any]) -> None:
    assert input_warnings(InputSpec(size=(48, 64), **fields)) == ()


@pytest.mark.parametrize("fields", MISTAKEN.values(), ids=MISTAKEN)
def test_constants_of_the_other_range_are_warned_of(fields: dict[str, Any]) -> None:
    (warning,) = input_warnings(InputSpec(size=(48, 64), **fields))
    assert "look like those of pixels" in warning


def trained() -> Tiny:
    """Return a network whose batch norm has seen images."""
    module = Tiny()
    assert isinstance(module.norm.running_mean, torch.Tensor)
    module.norm.running_mean += 0.01
    return module.eval()


def warnings(images: Any, module: nn.Module | None = None, **fields: Any) -> str:
    module, spec = module or trained(), make_spec(**fields)
    return "\n".join(certify(module, Segmenter(spec, torch_backend(module, spec)), images).warnings)


def test_a_usual_model_on_usual_images_is_not_warned_of() -> None:
    for fields in USUAL.values():
        channels = 1 if fields.get("color") == "gray" else 3
        module = Tiny(in_channels=channels)
        module.norm.running_mean.fill_(0.01)  # type: ignore[union-attr]  # it has statistics
        images = [image[..., 0] if channels == 1 else image for image in pictures((90, 120), (48, 64))]
        spec = make_spec(**{"mean": (0.0,), "std": (1.0,), **fields})
        found = certify(module, Segmenter(spec, torch_backend(module.eval(), spec)), images).warnings
        assert [one for one in found if "everywhere" not in one] == [], fields  # random weights may see one class


def test_the_bundled_model_is_not_warned_of() -> None:
    module = load_source("seginfer.export.zoo.unet:soccer_unet").module
    load_weights(module, SOCCER / "pitch.safetensors")
    images = sample([SOCCER / "clip.webm"], 4, gray=False)
    with Segmenter.open(SOCCER / "pitch.onnx") as segmenter:
        certificate = certify(module, segmenter, images)
    assert certificate.passed
    assert certificate.warnings == ()
    assert certificate.synthetic is False


@pytest.mark.parametrize(
    ("images", "module", "fields", "words"),
    [
        (pictures((48, 64)), Tiny().eval(), {}, "every batch norm has its initial statistics"),
        (pictures((48, 64)), None, IN_255, "varies by"),
        ([np.zeros((48, 64, 3), np.uint8), *pictures((8, 8))], None, {}, "image samples are 0 or 255"),
    ],
)
def test_signs_in_images_and_weights(images: Any, module: Any, fields: dict[str, Any], words: str) -> None:
    assert words in warnings(images, module, **fields)


def test_one_class_everywhere_is_warned_of() -> None:
    module = trained()
    with torch.no_grad():
        module.last.bias[1] += 1e3  # type: ignore[index]
    assert "the masks are 'road' everywhere" in warnings(pictures((48, 64)), module)


def test_synthetic_pictures_are_known_by_their_content() -> None:
    spec = make_spec().input
    assert is_synthetic(sample_images(spec), spec)
    assert is_synthetic(sample_images(spec, seed=1)[:2], spec)
    other = sample_images(spec)
    other[0] = other[0] ^ 1
    assert not is_synthetic(other, spec)
    assert not is_synthetic(pictures((48, 64)), spec)


@pytest.fixture(scope="module")
def labelled() -> Any:
    images = {name: image for name, image in sample([SOCCER / "samples"], 9, gray=False).items() if "_mask" not in name}
    return images, read_labels(SOCCER / "samples", images)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"color": "bgr"}, "with color='rgb'"),
        ({"mean": (0.0,), "std": (1.0,)}, "with mean and std of ImageNet"),
        ({"scale": 1.0}, "with scale=0.00392157"),
        ({"mean": IN_255["mean"], "std": IN_255["std"]}, "with scale=1"),
    ],
)
def test_poor_labels_name_the_mistake(labelled: Any, fields: dict[str, Any], words: str) -> None:
    images, labels = labelled
    with Segmenter.open(SOCCER / "pitch.onnx") as segmenter:
        spec = segmenter.spec
        wrong = Segmenter(replace(spec, input=replace(spec.input, **fields)), segmenter.backend)
        right, poor = (
            certify(None, one, images, reference=lambda image, one=one: one(image).labels, labels=labels)
            for one in (segmenter, wrong)
        )
    assert right.labels_mean_iou is not None
    assert poor.labels_mean_iou is not None
    assert right.labels_mean_iou > poor.labels_mean_iou + 0.1
    assert any(words in warning for warning in poor.warnings), poor.warnings


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_that_start_elsewhere_are_named(labelled: Any, shift: int) -> None:
    images, labels = labelled
    moved = {
        name: np.where((label + shift >= 0) & (label + shift < 8), label + shift, 255) for name, label in labels.items()
    }
    with Segmenter.open(SOCCER / "pitch.onnx") as segmenter:
        found = certify(None, segmenter, images, reference=lambda image: segmenter(image).labels, labels=moved)
    assert any(f"with labels {-shift:+d}" in warning for warning in found.warnings), found.warnings


def test_labels_of_a_binary_task_may_be_bool() -> None:
    module, spec = Tiny(1).eval(), make_spec("binary")
    images = {"a": pictures((48, 64))[0]}
    segmenter = Segmenter(spec, torch_backend(module, spec))
    labels = {"a": segmenter(images["a"]).labels > 0}
    assert labels["a"].any()
    assert certify(module, segmenter, images, labels=labels).labels_mean_iou == 1


def test_labels_are_read_by_name(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    palette = Image.fromarray(ids, "P")
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "b_mask.png"), ids.astype(np.uint16))
    found = read_labels(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    assert list(found) == ["a.jpg", "b.jpg"]
    assert all(np.array_equal(label, ids) for label in found.values())
    Image.fromarray(ids).convert("RGB").save(tmp_path / "c.png")
    with pytest.raises(InputError, match="holds colours"):
        read_labels(tmp_path, ["c.jpg"])
    with pytest.raises(InputError, match=r"d_mask\.png or d\.png"):
        read_labels(tmp_path, ["d.jpg"])
    with pytest.raises(MissingFileError, match="no folder of labels"):
        read_labels(tmp_path / "none", ["d.jpg"])
    (tmp_path / "e.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="Pillow can read"):
        read_labels(tmp_path, ["e.jpg"])


@pytest.mark.parametrize(
    ("label", "words"),
    [(np.zeros((9, 9), int), "must be integers"), (np.full((48, 64), 3), "must be 0..2, or ignore_index 255, got 3")],
)
def test_labels_that_do_not_fit_are_refused(label: Any, words: str) -> None:
    module, spec = trained(), make_spec()
    with pytest.raises(InputError, match=words):
        certify(module, Segmenter(spec, torch_backend(module, spec)), {"a": pictures((48, 64))[0]}, labels={"a": label})
    with pytest.raises(InputError, match="no image has labels"):
        certify(module, Segmenter(spec, torch_backend(module, spec)), {"b": pictures((48, 64))[0]}, labels={"a": label})


def test_labels_of_minus_one_are_ignored_only_if_the_spec_says_so() -> None:
    spec = make_spec()
    spec = replace(spec, classes=replace(spec.classes, ignore_index=None))
    module, image = Tiny().eval(), pictures((48, 64))[0]
    segmenter = Segmenter(spec, torch_backend(module, spec))
    with pytest.raises(InputError, match=r"must be 0\.\.2"):
        certify(module, segmenter, {"a": image}, labels={"a": np.full((48, 64), -1)})
    segmenter = Segmenter(make_spec(), torch_backend(module, make_spec()))
    with pytest.raises(InputError, match="every label is ignore_index"):
        certify(module, segmenter, {"a": image}, labels={"a": np.full((48, 64), 255)})


def test_an_exported_file_carries_its_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx")
    certificate = read_model(tmp_path / "m.onnx").spec.provenance.certificate
    assert certificate is not None
    assert certificate.synthetic is True
    assert "every batch norm has its initial statistics: load trained weights" in certificate.warnings
    assert "m.onnx: every batch norm" in caplog.text
    assert "anything about your data" in certificate.not_proved()


def test_the_command_line_takes_labels_and_a_key_of_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    averaged = load_file(SOCCER / "pitch.safetensors")
    raw = {name: torch.zeros_like(tensor) for name, tensor in averaged.items()}
    torch.save({"model": raw, "ema": averaged}, tmp_path / "w.pt")
    samples = SOCCER / "samples"
    parity = ["parity", str(SOCCER / "pitch.onnx"), "seginfer.export.zoo.unet:soccer_unet", "--json"]
    parity += ["--images", str(samples / "near.png"), "--labels", str(samples), "--weights", str(tmp_path / "w.pt")]
    assert main([*parity, "--weights-key", "ema"]) == 0
    certificate = json.loads(capsys.readouterr().out)["certificate"]
    assert certificate["labels_mean_iou"] > 0.6
    assert certificate["image_records"][0]["name"] == "near.png"
    assert main(parity) == 2
    assert "'model' and 'ema'" in capsys.readouterr().err
    for factory in ("networks:Tiny", "networks:make_spec"):  # other classes, and no module: a line, not a traceback
        assert main(["parity", str(SOCCER / "pitch.onnx"), factory]) == 2
        assert len(capsys.readouterr().err.splitlines()) <= 2
