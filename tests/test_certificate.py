"""The parity certificate passes a right pipeline and names the stage of a wrong one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import Tiny, make_spec, pictures
from onnx import numpy_helper

from seginfer import ModelSpec, ParityError, Segmenter, _native, attach_spec, read_model
from seginfer._files.model_file import certificate_matches
from seginfer._geometry.geometry import Geometry
from seginfer._media.images import read_image
from seginfer._pipelines import host
from seginfer._reference import taps as reference_taps
from seginfer._tasks.dense import decode
from seginfer._tasks.dense import task as dense_task
from seginfer.assets import SOCCER
from seginfer.export import certify, export_onnx, load_source, load_weights

# Letterboxed, larger than the input and at a stride: every step of the pipeline has something to get wrong.
SPEC = make_spec(resize="letterbox", pad_value=(255.0,), output={"stride": 4})
IMAGES = pictures((150, 220), (97, 64))


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return Tiny(stride=4)


@pytest.fixture(scope="module")
def path(module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificate") / "m.onnx"
    export_onnx(module, SPEC, path, images=IMAGES)
    return path


@pytest.fixture
def segmenter(path: Path) -> Iterator[Segmenter]:
    with Segmenter.open(path) as segmenter:
        yield segmenter


def argmax_before_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    def classify(logits: Any, rows: Any, cols: Any, classify: Callable[[Any], Any], out: Any) -> None:
        nearest = [np.where(taps.weights[1] > 0.5, taps.indices[1], taps.indices[0]) for taps in (rows, cols)]
        out[...] = classify(logits)[np.ix_(*nearest)]

    monkeypatch.setattr(_native, "core", None)  # mistakes are made in the specification, which runs in its place then
    monkeypatch.setattr(decode, "classify_pixels", classify)


def bgr_for_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = vars(host)["make_encoder"]
    monkeypatch.setattr(host, "make_encoder", lambda geometry, spec, _: original(geometry, spec, "bgr"))


def no_half_pixel_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    original = reference_taps._taps

    def taps(m: int, scale: Any, _centre: Any, *rest: Any) -> Any:
        return original(m, scale, np.float32(0), *rest)

    monkeypatch.setattr(_native, "core", None)
    monkeypatch.setattr(reference_taps, "_taps", taps)


def padding_not_cropped(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Any = vars(dense_task)["make_decoder"]

    def make_decoder(g: Geometry, *rest: Any) -> Any:
        return original(Geometry(g.image_hw, g.input_hw, g.input_hw, (0, 0)), *rest)

    monkeypatch.setattr(dense_task, "make_decoder", make_decoder)


@pytest.mark.parametrize(
    ("mistake", "stage"),
    [
        (argmax_before_resize, "postprocess"),
        (bgr_for_rgb, "preprocess"),
        (no_half_pixel_centre, "postprocess"),
        (padding_not_cropped, "postprocess"),
    ],
)
def test_a_wrong_pipeline_fails_and_the_stage_is_named(
    mistake: Callable[[pytest.MonkeyPatch], None],
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
    module: torch.nn.Module,
    segmenter: Segmenter,
    tmp_path: Path,
) -> None:
    assert certify(module, segmenter, IMAGES).passed
    mistake(monkeypatch)
    certificate = certify(module, Segmenter(segmenter.spec, segmenter.backend), IMAGES)
    assert not certificate.passed
    assert certificate.stage == stage
    assert f"FAILED at {stage}" in certificate.summary()
    with pytest.raises(ParityError, match=stage) as caught:
        export_onnx(module, SPEC, tmp_path / "m.onnx", images=IMAGES)
    assert caught.value.certificate.stage == stage
    assert not os.listdir(tmp_path)


def test_half_pixels_missing_from_a_torch_resize_fail_in_preprocessing(
    monkeypatch: pytest.MonkeyPatch, module: torch.nn.Module, tmp_path: Path
) -> None:
    spec = make_spec(resampling="torch", output={"stride": 4})
    export_onnx(module, spec, tmp_path / "m.onnx", images=IMAGES)
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        no_half_pixel_centre(monkeypatch)
        assert certify(module, segmenter, IMAGES).stage == "preprocess"


@pytest.mark.parametrize(
    "change",
    [{"resampling": "pillow"}, {"mean": (0.0,)}, {"std": (1.0,)}, {"pad_value": (0.0,)}, {"anchor": "top-left"}],
    ids=str,
)
def test_a_spec_that_differs_from_what_ran_fails_in_preprocessing(
    change: dict[str, Any], module: torch.nn.Module, path: Path
) -> None:
    with Segmenter.open(path) as segmenter:
        wrong = dataclasses.replace(SPEC, input=dataclasses.replace(SPEC.input, **change))
        certificate = certify(module, _Deployed(segmenter, wrong), IMAGES)
    if change == {"anchor": "top-left"}:
        assert not certificate.passed
    else:
        assert certificate.stage == "preprocess"


class _Deployed:
    """A pipeline that was deployed with another spec than the one its module is judged by."""

    def __init__(self, segmenter: Segmenter, spec: ModelSpec) -> None:
        self.spec = SPEC
        self.backend = segmenter.backend
        self.trace = Segmenter(spec, segmenter.backend).trace


def test_other_weights_fail_in_the_network(module: torch.nn.Module, path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    onnx.save(model, tmp_path / "other.onnx")
    with Segmenter.open(tmp_path / "other.onnx", verify=False) as segmenter:
        assert certify(module, segmenter, IMAGES).stage == "network"
    assert not certificate_matches(tmp_path / "other.onnx", read_model(tmp_path / "other.onnx").spec)


def test_weights_rounded_to_half_precision_are_not_fp32(tmp_path: Path) -> None:
    """On trained weights: the error is far too small to move many labels, and far too large for rounding."""
    module = load_source("seginfer.export.zoo.unet:soccer_unet").module
    load_weights(module, SOCCER / "pitch.safetensors")
    model = onnx.load(SOCCER / "pitch.onnx")
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            rounded = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))
    onnx.save(model, tmp_path / "half.onnx")
    images = [read_image(SOCCER / "samples" / "near.png")]
    with Segmenter.open(tmp_path / "half.onnx", verify=False) as segmenter:
        assert certify(module, segmenter, images).stage == "network"
    with Segmenter.open(SOCCER / "pitch.onnx") as segmenter:
        assert certify(module, segmenter, images).passed


def test_a_mean_that_is_off_by_less_than_a_level_fails_in_preprocessing(module: torch.nn.Module, path: Path) -> None:
    with Segmenter.open(path) as segmenter:
        wrong = dataclasses.replace(SPEC, input=dataclasses.replace(SPEC.input, mean=(0.45 + 0.9 / 255,)))
        certificate = certify(module, _Deployed(segmenter, wrong), IMAGES)
    assert certificate.stage == "preprocess"


@pytest.mark.parametrize("change", [{"mean": (0.0,)}, {"color": "bgr"}, {"resampling": "torch"}], ids=str)
def test_a_certificate_does_not_outlive_its_pipeline(
    change: dict[str, Any], path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = read_model(path).spec
    attach_spec(path, dataclasses.replace(spec, input=dataclasses.replace(spec.input, **change)), tmp_path / "n.onnx")
    assert read_model(tmp_path / "n.onnx").spec.provenance.certificate is None
    assert "left out" in caplog.text


def test_a_certificate_survives_other_colours_and_names(path: Path, tmp_path: Path) -> None:
    spec = read_model(path).spec
    assert certificate_matches(path, spec)
    attach_spec(
        path, dataclasses.replace(spec, classes=dataclasses.replace(spec.classes, colors=())), tmp_path / "n.onnx"
    )
    assert certificate_matches(tmp_path / "n.onnx", read_model(tmp_path / "n.onnx").spec)


def test_a_pixel_is_decisive_only_beyond_twice_the_logit_error(module: torch.nn.Module, path: Path) -> None:
    """Noise on the exported logits makes pixels undecided and may flip those; it never flips a decisive one."""
    rng = np.random.default_rng(0)

    class Noisy:
        def __init__(self, backend: Any) -> None:
            self._backend = backend
            self.description, self.batch_size = "noisy", None

        def infer(self, batch: Any, _out: Any = None) -> Any:
            result = self._backend.infer(batch)
            scale = 1e-3 * np.abs(result["logits"]).max()
            return {"logits": result["logits"] + rng.uniform(-scale, scale, result["logits"].shape).astype(np.float32)}

    with Segmenter.open(path) as segmenter:
        noisy = Segmenter(segmenter.spec, Noisy(segmenter.backend))  # type: ignore[arg-type]
        certificate = certify(module, noisy, IMAGES)
    assert certificate.stage == "network"
    assert certificate.decisive_agreement == 1.0
    assert certificate.pixel_agreement < 1.0
    assert certificate.undecided_share > 1 - certificate.pixel_agreement
    assert 0.9 < certificate.mean_iou < 1.0
