"""A model that works on tiles is certified against one pass of PyTorch over the whole image, or refused."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import Tiny, make_spec, pictures
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer import ExportError, ModelSpec, ParityError, Segmenter, SpecError, read_model
from seginfer.export import export_onnx
from seginfer.export.zoo.unet_paper import unet_same, unet_valid

IMAGES = pictures((70, 121), (48, 20), (1, 33))


class Unpadded(nn.Module):
    """Unpadded convolutions around a pooling; the output is the centre of the input, without `dropped` pixels."""

    def __init__(self, channels: int = 3, *, upsampling: bool = True, in_channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(in_channels, 8, 3), nn.Conv2d(8, channels, 3)
        self.upsampling = upsampling
        with torch.no_grad():
            self.last.weight *= 20

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.first(x)), 2)
        return self.last(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.upsampling else x)


class UpsampledLast(Tiny):
    """Logits at half the size, upsampled by the network itself."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__(stride=2)
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Any:
        return F.interpolate(super().forward(x), scale_factor=2.0, mode="bilinear", align_corners=self.align_corners)


class Global(Tiny):
    """Adds what it sees of the whole input to every pixel."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + 3 * x.mean((2, 3), keepdim=True)


class Labels(Tiny):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).argmax(1)


class OneSize(Tiny):
    def forward(self, x: Tensor) -> Any:
        if x.shape[2:] != (48, 64):
            raise ValueError(f"expected 48 x 64, got {tuple(x.shape[2:])}")
        return super().forward(x)


def tile_spec(task: str = "semantic", *, output: dict[str, Any] | None = None, **fields: Any) -> ModelSpec:
    return make_spec(task, output=output, **{"resize": "tile", "multiple_of": 2, "tile_margin": 6, **fields})


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        (Unpadded(), tile_spec()),
        (Unpadded(), tile_spec(size=(28, 32), tile_margin=2)),
        (Unpadded(1), tile_spec("binary", layout="NHWC")),
        (Unpadded(3), tile_spec("multilabel", output={"layout": "NHWC"})),
        (Unpadded(upsampling=False), tile_spec(output={"stride": 2})),
        (Unpadded(upsampling=False), tile_spec(output={"stride": 2, "align_corners": True})),
        (nn.Sequential(Unpadded(), nn.Softmax(1)), tile_spec(output={"kind": "probabilities"})),
        (Unpadded(), tile_spec(dtype="uint8", scale=1.0, mean=(0.0,), std=(1.0,))),
        (Tiny(), tile_spec(multiple_of=1, tile_margin=2)),
        (Tiny(stride=4), tile_spec(multiple_of=4, tile_margin=13, output={"stride": 4})),
        (Tiny(), tile_spec(multiple_of=1, color="bgr", dtype="float16")),
        (UpsampledLast(align_corners=False), tile_spec()),
        (Labels(), tile_spec(output={"kind": "labels"})),
    ],
)
def test_tiles_are_certified(module: nn.Module, spec: ModelSpec, tmp_path: Path) -> None:
    certificate = export_onnx(module, spec, tmp_path / "m.onnx", images=IMAGES)
    assert certificate.passed
    assert certificate.decisive_agreement == 1.0
    assert certificate.pixels == sum(image.size // 3 for image in IMAGES) * (3 if spec.task == "multilabel" else 1)


def test_a_graph_bound_to_a_batch_takes_that_many_tiles(tmp_path: Path) -> None:
    export_onnx(Unpadded(), tile_spec(), tmp_path / "free.onnx", images=IMAGES)
    export_onnx(Unpadded(), tile_spec(), tmp_path / "three.onnx", images=IMAGES, batch_size=3)
    with Segmenter.open(tmp_path / "free.onnx") as free, Segmenter.open(tmp_path / "three.onnx") as three:
        a, b = free(IMAGES[0]), three(IMAGES[0])
    assert np.array_equal(a.mask, b.mask)
    assert (a.timings.batch_size, b.timings.batch_size) == (4, 3)


@pytest.mark.parametrize(
    ("module", "side", "margin"), [(unet_valid(divisor=16), 220, 92), (unet_same(divisor=16), 224, 96)]
)
def test_the_u_net_of_the_paper_is_certified_on_tiles(
    module: nn.Module, side: int, margin: int, tmp_path: Path
) -> None:
    with torch.no_grad():
        module.get_parameter("head.weight").mul_(30)  # random weights alone decide nothing
    image = pictures((75, 101), channels=1)[0][:, :, 0]
    spec = tile_spec("semantic", color="gray", size=(side, side), multiple_of=16, tile_margin=margin)
    spec = ModelSpec(spec.task, spec.input, type(spec.classes)(("cell", "border")))
    certificate = export_onnx(module, spec, tmp_path / "m.onnx", images=[image])
    assert certificate.passed
    assert spec.input.tile_step == (32, 32)
    assert certificate.network_max_error <= certificate.logit_max_error * 2


def test_the_exported_upsampling_is_left_to_the_mask_step_and_tiles_still_agree(tmp_path: Path) -> None:
    export_onnx(UpsampledLast(align_corners=False), tile_spec(), tmp_path / "m.onnx", images=IMAGES)
    spec = read_model(tmp_path / "m.onnx").spec
    assert spec.output.graph_stride == 2
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        image = IMAGES[0]
        frame = np.pad(image, ((6, 80), (6, 80), (0, 0)), mode="reflect")[:86, :138]  # any even size that shows all
        batch = (torch.from_numpy(frame).permute(2, 0, 1)[None] / 255 - 0.45) / 0.22
        with torch.inference_mode():
            logits = UpsampledLast(align_corners=False).eval()(batch)[0, :, 6:76, 6:127]
        best = logits.topk(2, 0).values
        decisive = (best[0] - best[1] > 1e-3 * best[0].abs().max()).numpy()
        assert decisive.mean() > 0.95
        assert np.array_equal(segmenter(image).mask[decisive], logits.argmax(0).numpy()[decisive])


@pytest.mark.parametrize(
    ("module", "spec"),
    [
        (Tiny(), tile_spec(multiple_of=1, tile_margin=1)),  # the receptive field has a radius of 2
        (Unpadded(), tile_spec(multiple_of=43, tile_margin=2)),  # an odd step splits the pairs of the pooling
        (Global(), tile_spec()),
        (Labels(), tile_spec(multiple_of=1, tile_margin=0, output={"kind": "labels"})),
    ],
    ids=["margin below the receptive field", "step no multiple of the pooling", "global pooling", "labels"],
)
def test_tiles_that_differ_from_one_pass_are_refused(module: nn.Module, spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"input\.tile_margin .* input\.multiple_of") as caught:
        export_onnx(module, spec, tmp_path / "m.onnx", images=pictures((100, 121)))
    assert caught.value.certificate.stage == "network"
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("module", "spec", "message"),
    [
        (OneSize(), tile_spec(), r"one pass over the whole image.*\(1, 3, 84, 168\).*expected 48 x 64"),
        (Unpadded(), tile_spec(multiple_of=43, tile_margin=2), r"\(91, 150\).* set input\.multiple_of to the product"),
        (Unpadded(), tile_spec(tile_margin=1), "tile_margin must be at least 2 .* got 1"),
        (Unpadded(), tile_spec(output={"stride": 2}), "not the centre of its input"),
        (Unpadded(upsampling=False), tile_spec(tile_margin=3, output={"stride": 2}), "at least 4 .* got 3"),
    ],
)
def test_a_module_that_tiles_do_not_fit_is_refused(
    module: nn.Module, spec: ModelSpec, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export_onnx(module, spec, tmp_path / "m.onnx", images=IMAGES)
    assert "\n" not in str(caught.value)


def test_an_upsampling_that_depends_on_the_tile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="upsample with align_corners=False"):
        export_onnx(UpsampledLast(align_corners=True), tile_spec(), tmp_path / "m.onnx", images=IMAGES)
    with pytest.raises(ParityError, match=r"input\.tile_margin"):
        export_onnx(
            UpsampledLast(align_corners=True), tile_spec(), tmp_path / "m.onnx", images=IMAGES, split_head=False
        )


def test_synthetic_pictures_are_larger_than_a_tile(tmp_path: Path) -> None:
    assert export_onnx(Tiny(), tile_spec(multiple_of=1), tmp_path / "m.onnx").pixels > 4 * 48 * 64
