"""A certificate is refused where it would prove nothing, and granted where only rounding differs."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SIZE, Tiny, make_spec, pictures
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer import ClassSpec, ExportError, InputError, InputSpec, ModelSpec, ParityError, Segmenter
from seginfer.export import certify, export_onnx
from seginfer.export.zoo.deconvnet import deconvnet

IMAGES = pictures((90, 120), SIZE)


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class BatchMixing(nn.Module):
    """Right for one image alone, wrong as soon as another one is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return logits + 0.5 * (x - x.mean(0, keepdim=True))


class RareClass(nn.Module):
    """A loud background, and a faint class in a small corner of the colours."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = sign
        self.dummy = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        faint = self.sign * 0.3 * (x[:, :1] > 1.5).float()
        rare = x[:, :1] > 1.5
        background = torch.where(rare, torch.zeros_like(faint), torch.full_like(faint, 1e4))
        return torch.cat([background, faint, -faint], 1) + 0 * self.dummy


class Unpooling(nn.Module):
    """Small values, and here and there two maxima of a window that only rounding tells apart; the place decides."""

    def __init__(self, *, later_of_equals: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.sign = -1 if later_of_equals else 1
        with torch.no_grad():
            self.last.weight *= 20

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        if self.sign < 0:  # the last of equal maxima instead of the first
            pooled, indices = F.max_pool2d(y.flip(2, 3), 2, return_indices=True)
            return self.last(F.max_unpool2d(pooled + 1, indices, 2).flip(2, 3))  # type: ignore[arg-type]  # torch takes a number too
        pooled, indices = F.max_pool2d(y, 2, return_indices=True)
        return self.last(F.max_unpool2d(pooled + 1, indices, 2))  # type: ignore[arg-type]  # torch takes a number too


class Chaotic(nn.Module):
    """Looks at digits that rounding makes up."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.net(x) * 1e5)


def test_where_rounding_decides_a_pipeline_is_held_to_pytorchs_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = tuple(f"class {i}" for i in range(21))
    spec = ModelSpec("semantic", InputSpec(size=(224, 224), mean=(0.45,), std=(0.22,)), ClassSpec(names))
    certificate = export_onnx(deconvnet(divisor=16), spec, tmp_path / "m.onnx", images=pictures((224, 224)))
    assert certificate.passed
    assert certificate.rounding_agreement is not None
    assert certificate.pixel_agreement > 0.99


def test_a_wrong_unpooling_is_not_taken_for_rounding(tmp_path: Path) -> None:
    export_onnx(Unpooling(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        assert certify(Unpooling(), segmenter, IMAGES).passed
        assert certify(Unpooling(later_of_equals=True), segmenter, IMAGES).stage == "network"


def test_a_network_whose_masks_are_rounding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError) as caught:
        export_onnx(Chaotic(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert caught.value.certificate.rounding_agreement is not None
    assert not (tmp_path / "m.onnx").exists()


def test_a_network_that_decides_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="one constant for all pixels") as caught:
        export_onnx(Constant(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert caught.value.certificate.undecided_share == 1.0
    assert not (tmp_path / "m.onnx").exists()


class Scaled(nn.Module):
    """Logits that are as small as float32 hardly holds, or not at all."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.net, self.scale = Tiny(), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-50])
def test_logits_that_vanish_in_float32_are_refused(scale: float, tmp_path: Path) -> None:
    """In float64 they do not vanish, and that difference was taken for rounding."""
    with pytest.raises(ParityError):
        export_onnx(Scaled(scale), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert not list(tmp_path.iterdir())


class Dropping(nn.Module):
    """Dropout that stays on, as for Monte Carlo estimates."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.net, self.head, self.p = Tiny(), nn.Conv2d(3, 3, 1), p

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.net(x), self.p, training=True))


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.noise = Tiny(), Noise()

    def forward(self, x: Tensor) -> Tensor:
        return self.noise(self.net(x))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.randn_like(x)


class Stubborn(nn.Dropout):
    """Stays in train mode whatever is asked."""

    def train(self, mode: bool = True) -> Stubborn:
        del mode
        return super().train(True)


@pytest.mark.parametrize(
    ("module", "place"),
    [
        (Dropping(), r"the outermost module \(Dropping\)"),
        (Noisy(), r"noise \(Noise\)"),
        (nn.Sequential(Tiny(), Stubborn(0.3)), r"1 \(Stubborn\)"),
    ],
    ids=["dropout", "noise", "train mode"],
)
def test_a_random_network_is_refused_by_name(module: nn.Module, place: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"the module is random.*first in {place}"):
        export_onnx(module, make_spec(), tmp_path / "m.onnx", images=IMAGES)
    export_onnx(Tiny(), make_spec(), tmp_path / "tiny.onnx", images=IMAGES)
    with (
        Segmenter.open(tmp_path / "tiny.onnx") as segmenter,
        pytest.raises(ExportError, match=f"the module is random.*first in {place}"),
    ):
        certify(module, segmenter, IMAGES)
    assert not (tmp_path / "m.onnx").exists()


class NoStatistics(nn.Module):
    """Batch norm that always takes the statistics of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()
        self.net.norm = nn.BatchNorm2d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_a_batch_norm_without_statistics_is_the_cause_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"net\.norm \(BatchNorm2d\).*depend on its batch: export with batch_size=1"):
        export_onnx(NoStatistics(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    certificate = export_onnx(NoStatistics(), make_spec(), tmp_path / "m.onnx", images=IMAGES, batch_size=1)
    assert any("net.norm (BatchNorm2d) behaves as in training" in warning for warning in certificate.warnings)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Tiny(channels=8), "yields 8 channels"),
        (Tiny(stride=2), "stride"),
        (nn.Sequential(Tiny(), nn.Flatten()), "expected logits"),
        (Tiny(in_channels=1), "the module failed on a batch"),
    ],
    ids=["channels", "size", "rank", "input"],
)
def test_a_module_of_another_shape_is_no_traceback(module: nn.Module, words: str, tmp_path: Path) -> None:
    export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    with Segmenter.open(tmp_path / "m.onnx") as segmenter, pytest.raises(ExportError, match=words):
        certify(module, segmenter, IMAGES)


def test_a_network_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"\(BatchMixing\) makes an image's result depend on its batch") as caught:
        export_onnx(BatchMixing(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert caught.value.certificate.stage == "network"
    assert export_onnx(BatchMixing(), make_spec(), tmp_path / "m.onnx", images=IMAGES, batch_size=1).passed


def test_a_rare_faint_class_that_is_wrong_fails(tmp_path: Path) -> None:
    image = pictures(SIZE)[0] // 2
    image[10:13, 20:23] = 255
    export_onnx(RareClass(1), make_spec(), tmp_path / "m.onnx", images=[image])
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        assert certify(RareClass(1), segmenter, [image]).passed
        certificate = certify(RareClass(-1), segmenter, [image])
    assert certificate.stage == "network"
    assert certificate.pixel_agreement > 0.99


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("image_hw", [(1080, 1919), (777, 1301)])
def test_a_right_center_crop_of_a_large_photo_passes(
    image_hw: tuple[int, int], align_corners: bool, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    module = nn.Conv2d(3, 19, 3, padding=1)
    names = tuple(f"class {i}" for i in range(19))
    spec = ModelSpec("semantic", InputSpec(size=(512, 512), resize="center-crop"), ClassSpec(names))
    spec = ModelSpec(spec.task, spec.input, spec.classes, (make_spec(output={"align_corners": align_corners}).output,))
    certificate = export_onnx(module, spec, tmp_path / "m.onnx", images=pictures(image_hw))
    assert certificate.decisive_agreement == 1.0
    assert certificate.undecided_share < 0.001


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_probabilities_must_be_probabilities(kind: str, tmp_path: Path) -> None:
    spec = make_spec(output={"kind": kind})
    if kind == "logits":
        assert export_onnx(Tiny(), spec, tmp_path / "m.onnx", images=IMAGES).passed
        return
    with pytest.raises(ExportError, match="use kind 'logits'"):
        export_onnx(Tiny(), spec, tmp_path / "m.onnx", images=IMAGES)
    softmax = nn.Sequential(Tiny(), nn.Softmax(1))
    assert export_onnx(softmax, spec, tmp_path / "m.onnx", images=IMAGES).passed


class Labels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, x: Tensor) -> Any:
        return self.net(x).argmax(1)


def test_a_module_that_decides_labels_is_no_traceback(tmp_path: Path) -> None:
    export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    with Segmenter.open(tmp_path / "m.onnx") as segmenter, pytest.raises(ExportError, match="expected logits"):
        certify(Labels(), segmenter, IMAGES)
    with pytest.raises(ExportError, match="use kind 'logits'"):
        export_onnx(Tiny(), make_spec(output={"kind": "labels"}), tmp_path / "n.onnx", images=IMAGES)


def test_labels_decided_in_the_graph_are_compared(tmp_path: Path) -> None:
    spec = make_spec(output={"kind": "labels"}, resize="letterbox")
    certificate = export_onnx(Labels(), spec, tmp_path / "m.onnx", images=IMAGES)
    assert certificate.pixel_agreement >= 0.999
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        other = Labels()
        with torch.no_grad():
            other.net.last.bias[0] += 5  # type: ignore[index]
        assert certify(other, segmenter, IMAGES).stage == "network"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_of_another_precision_says_how_to_convert_it(dtype: torch.dtype, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"module\.float\(\)"):
        export_onnx(Tiny().to(dtype), make_spec(), tmp_path / "m.onnx", images=IMAGES)
