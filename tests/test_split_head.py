"""A final upsampling that export leaves to the mask step: the same masks as PyTorch's two interpolations."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Tiny, make_spec, pictures
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer import (
    ClassSpec,
    Geometry,
    InputSpec,
    ModelSpec,
    OutputSpec,
    Segmenter,
    SpecError,
    UpsampleSpec,
    confidence,
    postprocess,
)
from seginfer._files.model_file import read_model
from seginfer.export import certify, export_onnx
from seginfer.export.parity.dense import decide, upsample_output

SIZE = (48, 64)
IMAGES = pictures((100, 77), (48, 64), (33, 200))


class Upsampled(nn.Module):
    """Logits at a fraction of the input's size, upsampled to it as the field's decoders do."""

    def __init__(self, stride: int = 4, **how: Any) -> None:
        super().__init__()
        self.net = Tiny(stride=stride)
        self.how = {"mode": "bilinear", "align_corners": False, **how}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": F.interpolate(self.net(x), size=x.shape[2:], **self.how)}


@settings(max_examples=150)
@given(
    resize=st.sampled_from(["stretch", "letterbox", "center-crop"]),
    channels=st.sampled_from([1, 2, 7]),
    upsample=st.builds(UpsampleSpec, st.integers(2, 16), st.booleans()),
    stride=st.sampled_from([1, 2]),
    align_corners=st.booleans(),
    cells=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    image_hw=st.tuples(st.integers(1, 160), st.integers(1, 160)),
    seed=st.integers(0, 2**32 - 1),
)
def test_one_interpolation_decides_as_torchs_two_do(
    resize: Any,
    channels: int,
    upsample: UpsampleSpec,
    stride: int,
    align_corners: bool,
    cells: tuple[int, int],
    image_hw: tuple[int, int],
    seed: int,
) -> None:
    output = OutputSpec(stride=stride, align_corners=align_corners, upsample=upsample)
    spec = ModelSpec(
        "binary" if channels == 1 else "semantic",
        InputSpec(size=(cells[0] * output.graph_stride, cells[1] * output.graph_stride), resize=resize),
        ClassSpec(tuple(f"class {i}" for i in range(max(channels, 2)))),
        (output,),
    )
    logits = np.random.default_rng(seed).standard_normal((1, channels, *cells), dtype=np.float32)
    geometry = Geometry.place(image_hw, spec.input)
    labels, margin = decide(upsample_output(logits, output), geometry, spec)
    (mask,) = postprocess(logits, [geometry], spec)
    assert margin[labels != mask].max(initial=0) <= tolerances.MASK_ROUNDING.limit * np.abs(logits).max()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"resize": "stretch"},
        {"resize": "letterbox", "layout": "NHWC"},
        {"resize": "center-crop", "resampling": "torch"},
        {"resize": "pad", "size": None, "multiple_of": 8},
    ],
    ids=str,
)
def test_the_split_is_certified_against_the_whole_module(
    fields: dict[str, Any], align_corners: bool, tmp_path: Path
) -> None:
    output = {"layout": fields.get("layout", "NCHW")}
    spec = make_spec(output=output, **fields)
    module = Upsampled(8, align_corners=align_corners)
    certificate = export_onnx(module, spec, tmp_path / "m.onnx", images=IMAGES)
    assert (certificate.decisive_agreement, certificate.pixel_agreement) == (1.0, 1.0)
    assert read_model(tmp_path / "m.onnx").spec.output.upsample == UpsampleSpec(8, align_corners)
    assert all(node.op_type != "Resize" for node in onnx.load(tmp_path / "m.onnx").graph.node)


def test_masks_and_confidence_are_those_of_the_whole_graph(tmp_path: Path) -> None:
    spec = make_spec(resize="letterbox")
    export_onnx(Upsampled(), spec, tmp_path / "split.onnx", images=IMAGES)
    export_onnx(Upsampled(), spec, tmp_path / "whole.onnx", images=IMAGES, split_head=False)
    assert read_model(tmp_path / "whole.onnx").spec.output.upsample is None
    results = []
    for name in ("split.onnx", "whole.onnx"):
        with Segmenter.open(tmp_path / name) as segmenter:
            results.append(segmenter(IMAGES, confidence=True))
    for split, whole in zip(*results, strict=True):
        assert np.array_equal(split.mask, whole.mask)
        np.testing.assert_allclose(split.confidence, whole.confidence, atol=tolerances.CONFIDENCE.limit)


def test_the_graph_stops_at_the_small_logits(tmp_path: Path) -> None:
    export_onnx(Upsampled(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert read_model(tmp_path / "m.onnx").graph.outputs[0].shape[2:] == (12, 16)


@pytest.mark.parametrize(
    "module",
    [Upsampled(mode="nearest", align_corners=None), Upsampled(mode="bicubic"), Tiny()],
    ids=["nearest", "bicubic", "no upsampling"],
)
def test_other_ends_stay_in_the_graph(module: nn.Module, tmp_path: Path) -> None:
    export_onnx(module, make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert read_model(tmp_path / "m.onnx").spec.output.upsample is None


def test_an_upsampling_by_no_whole_factor_stays_in_the_graph(tmp_path: Path) -> None:
    spec = make_spec(size=(50, 66))  # a stride of 4 leaves 13 x 17 cells
    export_onnx(Upsampled(), spec, tmp_path / "m.onnx", images=IMAGES)
    assert read_model(tmp_path / "m.onnx").spec.output.upsample is None


def test_a_factor_that_is_only_nearly_whole_stays_in_the_graph(tmp_path: Path) -> None:
    class Nearly(Upsampled):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": F.interpolate(self.net(x), scale_factor=4.01, mode="bilinear")}

    assert export_onnx(Nearly(), make_spec(), tmp_path / "m.onnx", images=IMAGES).passed
    assert read_model(tmp_path / "m.onnx").spec.output.upsample is None


def test_a_second_output_keeps_its_size(tmp_path: Path) -> None:
    class Twice(Upsampled):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = super().forward(x)["out"]
            return {"out": logits, "aux": logits}

    spec = dataclasses.replace(make_spec(), outputs=(OutputSpec(name="out"), OutputSpec(name="aux")))
    export_onnx(Twice(), spec, tmp_path / "m.onnx", images=IMAGES)
    shapes = {output.name: output.shape[2:] for output in read_model(tmp_path / "m.onnx").graph.outputs}
    assert shapes == {"out": (12, 16), "aux": SIZE}


def test_what_was_done_to_the_graph_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Restoring(Upsampled):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            pooled, indices = F.max_pool2d(x, 2, return_indices=True)
            return super().forward(F.max_unpool2d(pooled, indices, 2))  # type: ignore[arg-type]  # torch takes a number too

    with caplog.at_level(logging.INFO, "seginfer"):
        export_onnx(Restoring(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    surgery = [record.getMessage() for record in caplog.records if record.getMessage().startswith("surgery")]
    assert len(surgery) == 2
    assert "unpooled without scatter" in surgery[0]
    assert "final upsampling by 4 left to the mask step" in surgery[1]


class Rectified(Upsampled):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": torch.relu(super().forward(x)["out"])}


def test_an_upsampling_that_is_not_the_last_step_stays_in_the_graph(tmp_path: Path) -> None:
    export_onnx(Rectified(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert read_model(tmp_path / "m.onnx").spec.output.upsample is None


def test_a_wrong_split_fails_the_certificate(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_onnx(Upsampled(), make_spec(), path, images=IMAGES)
    with Segmenter.open(path) as segmenter:
        certificate = certify(Upsampled(align_corners=True), segmenter, IMAGES)
    assert not certificate.passed


def test_a_spec_from_an_export_may_be_exported_again(tmp_path: Path) -> None:
    export_onnx(Upsampled(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    spec = read_model(tmp_path / "m.onnx").spec
    assert export_onnx(Upsampled(), spec, tmp_path / "again.onnx", images=IMAGES, split_head=False).passed
    assert read_model(tmp_path / "again.onnx").spec.output.upsample is None


def test_confidence_interpolates_twice_too() -> None:
    spec = ModelSpec(
        "binary", InputSpec(size=(32, 32)), ClassSpec(("no", "yes")), (OutputSpec(upsample=UpsampleSpec(4)),)
    )
    logits = np.random.default_rng(1).standard_normal((1, 1, 8, 8), dtype=np.float32)
    geometry = Geometry.place((50, 41), spec.input)
    (ours,) = confidence(logits, [geometry], spec)
    whole = F.interpolate(torch.from_numpy(logits), size=(32, 32), mode="bilinear")
    expected = F.interpolate(whole, size=(50, 41), mode="bilinear").sigmoid()[0, 0].numpy()
    np.testing.assert_allclose(ours, np.maximum(expected, 1 - expected), atol=tolerances.CONFIDENCE.limit)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"upsample": {"factor": 1}}, "factor must be at least 2"),
        ({"upsample": {"factor": 4}, "kind": "labels"}, "cannot interpolate class ids"),
        ({"upsample": {"times": 4}}, "times"),
    ],
)
def test_a_bad_upsampling_is_refused(fields: dict[str, Any], message: str) -> None:
    data = json.loads(make_spec().to_json())
    data["outputs"][0].update(fields)
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_json(json.dumps(data))
