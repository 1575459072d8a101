"""Any PyTorch module becomes one certified .onnx file, or no file at all."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from networks import SIZE, Returning, Tiny, make_spec, pictures
from torch import nn

from seginfer import ExportError, InputError, OutputSpec, OutputWriteError, Segmenter, read_model
from seginfer.export import export_onnx, weights_sha256

IMAGES = pictures((90, 120), (48, 64))


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict out", "dict logits", "object"])
def test_every_form_of_output_is_found(form: str, tmp_path: Path) -> None:
    certificate = export_onnx(Returning(form), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert certificate.passed
    assert certificate.decisive_agreement == 1.0
    assert certificate.undecided_share < 0.01


@pytest.mark.parametrize(
    "fields",
    [
        {"resize": "stretch", "resampling": "pillow"},
        {"resize": "letterbox", "resampling": "opencv", "color": "bgr", "pad_value": (114.0,)},
        {"resize": "center-crop", "resampling": "torch"},
        {"resize": "pad", "size": None, "multiple_of": 4, "resampling": "nearest"},
        {"resize": "stretch", "size": None, "multiple_of": 1, "resampling": "opencv"},
        {"resize": "letterbox", "resampling": "torch-antialias", "layout": "NHWC"},
        {"resize": "letterbox", "resampling": "opencv", "dtype": "float16"},
        {"dtype": "uint8", "scale": 1.0, "mean": (0.0,), "std": (1.0,)},
    ],
    ids=lambda fields: " ".join(str(value) for value in fields.values()),
)
def test_every_way_into_the_network_is_certified(fields: dict[str, Any], tmp_path: Path) -> None:
    certificate = export_onnx(Tiny(), make_spec(**fields), tmp_path / "m.onnx", images=IMAGES)
    assert certificate.decisive_agreement == 1.0
    assert certificate.pixel_agreement > 0.999


@pytest.mark.parametrize(("task", "channels"), [("semantic", 3), ("binary", 1), ("multilabel", 3)])
@pytest.mark.parametrize(
    "output", [{}, {"stride": 4}, {"stride": 4, "align_corners": True}, {"layout": "NHWC"}], ids=str
)
def test_every_way_out_of_the_network_is_certified(
    task: str, channels: int, output: dict[str, object], tmp_path: Path
) -> None:
    module = Tiny(channels, stride=int(output.get("stride", 1)))  # type: ignore[call-overload]
    spec = make_spec(task, output=output, resize="letterbox")
    certificate = export_onnx(module, spec, tmp_path / "m.onnx", images=IMAGES)
    assert certificate.decisive_agreement == 1.0
    assert certificate.undecided_share < 0.01


def test_a_gray_model_takes_gray_pictures(tmp_path: Path) -> None:
    images = [image[:, :, 0] for image in IMAGES]
    spec = make_spec(color="gray")
    assert export_onnx(Tiny(in_channels=1), spec, tmp_path / "m.onnx", images=images).passed
    assert export_onnx(Tiny(in_channels=1), spec, tmp_path / "m.onnx").passed


def test_masks_of_the_file_equal_pytorch_computed_by_hand(tmp_path: Path) -> None:
    module, spec = Tiny().eval(), make_spec()
    export_onnx(module, spec, tmp_path / "m.onnx", images=IMAGES)
    image = pictures(SIZE)[0]
    batch = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.45) / 0.22
    with torch.inference_mode():
        expected = module(batch).argmax(1)[0].numpy()
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        assert (segmenter(image).mask == expected).mean() > 0.999
    assert len(np.unique(expected)) == 3


def test_the_file_is_single_clean_and_carries_its_provenance(tmp_path: Path) -> None:
    module, path = Tiny(), tmp_path / "m.onnx"
    certificate = export_onnx(module, make_spec(), path, images=IMAGES)
    assert os.listdir(tmp_path) == ["m.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [18]
    assert model.ir_version == 8  # runtimes on devices that know opset 18 know no newer one
    assert b"site-packages" not in path.read_bytes()
    assert b"stack_trace" not in path.read_bytes()
    provenance = read_model(path).spec.provenance
    assert provenance.certificate == certificate
    assert provenance.weights_sha256 == weights_sha256(module)
    assert provenance.opset == 18
    assert provenance.versions["torch"] == torch.__version__


def test_the_batch_is_free_unless_it_is_bound(tmp_path: Path) -> None:
    export_onnx(Tiny(), make_spec(), tmp_path / "free.onnx", images=IMAGES)
    export_onnx(Tiny(), make_spec(), tmp_path / "two.onnx", images=IMAGES[:1], batch_size=2)
    many = pictures(*[SIZE] * 5)
    masks = []
    for name in ("free.onnx", "two.onnx"):
        with Segmenter.open(tmp_path / name) as segmenter:
            masks.append([result.mask for result in segmenter(many)])
    assert read_model(tmp_path / "two.onnx").graph.inputs[0].shape[0] == 2
    assert all(np.array_equal(a, b) for a, b in zip(*masks, strict=True))


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = Tiny().train()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_onnx(module, make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert module.training
    assert module.drop.training
    assert not module.norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Nested(nn.Module):
    """Tiny, and after it a part of the user's that PyTorch runs but cannot export."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.net = Tiny()
        self.blocks = nn.Sequential(nn.Identity(), part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.net(x))


class Looping(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.max() < 10:
            x = x * 2
        return x


class Decomposing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x)[0] @ x


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Branching(), r"module 'blocks\.1'.*avoid Python branches"),
        (Looping(), r"module 'blocks\.1'.*avoid Python branches"),
        (Decomposing(), r"module 'blocks\.1'.*_linalg_svd\.default has no ONNX form"),
    ],
)
def test_the_part_that_cannot_be_exported_is_named(
    part: nn.Module, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export_onnx(Nested(part), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)
    assert capfd.readouterr() == ("", "")


class Attending(nn.Module):
    """torch's own attention, whose code asks whether the batch is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        pixels = nn.functional.avg_pool2d(y, 8).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(pixels, pixels, pixels, need_weights=False)
        return self.head(y + mixed.mean(1)[:, :, None, None])


@pytest.mark.parametrize("batch_size", [None, 1])
def test_attention_exports_with_a_free_batch_too(batch_size: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "m.onnx"
    assert export_onnx(Attending(), make_spec(), path, images=IMAGES, batch_size=batch_size).passed


class AskingItsSize(nn.Module):
    """Takes another way at some sizes, in Python, where a traced graph cannot follow."""

    def __init__(self, question: Callable[[int, int], bool]) -> None:
        super().__init__()
        self.net = Tiny()
        self.question = question

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        return -y if self.question(*x.shape[2:]) else y


class Bound(AskingItsSize):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).reshape(2, 3, 48, 64)


class FixedPositions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()
        self.positions = nn.Parameter(torch.rand(1, 3, 96, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x + self.positions)


class Pyramid(nn.Module):
    """PSPNet's pooling: bins that may or may not divide the features."""

    def __init__(self, *bins: int) -> None:
        super().__init__()
        self.net = Tiny(stride=4)
        self.bins = bins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        pooled = [nn.functional.adaptive_avg_pool2d(y, bins) for bins in self.bins]
        y = y + sum(nn.functional.interpolate(p, size=y.shape[2:], mode="bilinear") for p in pooled)
        return nn.functional.interpolate(y, size=x.shape[2:], mode="bilinear")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (AskingItsSize(lambda height, _width: height > 200), "at 384 x 512"),
        (AskingItsSize(lambda height, width: height * width > 100_000), "at 384 x 512"),
        (AskingItsSize(lambda height, width: height == width), "at 100 x 100"),
        (AskingItsSize(lambda height, _width: height % 8 == 0), "off PyTorch|in steps of"),
        (FixedPositions(), r"constant \(96\)"),
    ],
)
def test_a_graph_that_is_right_at_some_sizes_only_is_refused(module: nn.Module, message: str, tmp_path: Path) -> None:
    spec = make_spec(size=None, multiple_of=4, resize="pad")
    with pytest.raises(ExportError, match=message):
        export_onnx(module, spec, tmp_path / "m.onnx", images=pictures((96, 160)))
    assert not os.listdir(tmp_path)


def test_a_batch_that_the_module_fixes_must_be_asked_for(tmp_path: Path) -> None:
    module = Bound(lambda _height, _width: False)
    with pytest.raises(ExportError, match="batches of 2 images only"):
        export_onnx(module, make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert export_onnx(module, make_spec(), tmp_path / "m.onnx", images=IMAGES, batch_size=2).passed


@pytest.mark.parametrize("bins", [(2,), (1, 2, 3, 6), (6, 2)], ids=str)
def test_pyramid_pooling_takes_sizes_that_were_not_traced(bins: tuple[int, ...], tmp_path: Path) -> None:
    spec = make_spec(size=None, multiple_of=16, resize="pad")
    images = pictures((96, 160), (50, 75), (150, 201))
    assert export_onnx(Pyramid(*bins), spec, tmp_path / "m.onnx", images=images).pixel_agreement == 1.0


class Buffered(nn.Module):
    """Names a buffer as torch names the node that computes a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.rand(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x - self.mean) + x.mean((2, 3), keepdim=True)


class Flat(nn.Module):
    """Operators for images on tensors of three dimensions, attention among them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.net(x)
        pixels = nn.functional.avg_pool2d(y, 8).flatten(2).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(pixels, pixels, pixels).mean(1)[:, :, None, None]
        return y + mixed + nn.functional.adaptive_avg_pool2d(y.flatten(2), (3, 8)).mean((1, 2), keepdim=True)[..., None]


@pytest.mark.parametrize("module", [Buffered(), Flat()], ids=["a name twice", "three dimensions"])
def test_what_tripped_the_exporter_once_is_exported(module: nn.Module, tmp_path: Path) -> None:
    assert export_onnx(module, make_spec(), tmp_path / "m.onnx", images=IMAGES).passed


class Poisoned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.zeros(1)


@pytest.mark.parametrize(
    ("module", "spec", "message"),
    [
        (Returning("nothing"), make_spec(), "no tensor for output"),
        (Tiny(channels=5), make_spec(), "5 channels"),
        (Tiny(stride=2), make_spec(), "stride"),
        (Tiny(in_channels=1), make_spec(), "failed on a batch"),
        (Branching(), make_spec(), "branches"),
        (Poisoned(), make_spec(), "NaN"),
    ],
)
def test_a_module_that_does_not_fit_leaves_no_file(
    module: nn.Module, spec: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(ExportError, match=message) as caught:
        export_onnx(module, spec, path, images=IMAGES)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert path.read_bytes() == b"the old file"


def test_an_interrupted_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"the old file")

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_onnx(Tiny(), make_spec(), path, images=IMAGES, on_progress=interrupt)
    assert os.listdir(tmp_path) == ["m.onnx"]
    assert path.read_bytes() == b"the old file"


def test_outputs_that_the_spec_does_not_name_are_not_in_the_file(tmp_path: Path) -> None:
    export_onnx(Returning("dict out"), make_spec(), tmp_path / "m.onnx", images=IMAGES)
    assert [output.name for output in read_model(tmp_path / "m.onnx").graph.outputs] == ["logits"]


def test_several_outputs_are_exported_where_the_spec_names_them(tmp_path: Path) -> None:
    outputs = (OutputSpec(name="out"), OutputSpec(name="aux"))
    spec = dataclasses.replace(make_spec(), outputs=outputs)
    export_onnx(Returning("dict out"), spec, tmp_path / "m.onnx", images=IMAGES)
    with Segmenter.open(tmp_path / "m.onnx") as segmenter:
        results = segmenter.backend.infer(np.zeros((1, 3, *SIZE), np.float32))
        assert segmenter(IMAGES[0]).mask.shape == IMAGES[0].shape[:2]
    assert {name: array.shape[1] for name, array in results.items()} == {"out": 3, "aux": 3}


def test_bad_arguments_are_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=[])
    with pytest.raises(InputError, match="uint8"):
        export_onnx(Tiny(), make_spec(), tmp_path / "m.onnx", images=[np.zeros((8, 8, 3), np.float32)])
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        export_onnx("weights.pt", make_spec(), tmp_path / "m.onnx", images=IMAGES)
    with pytest.raises(OutputWriteError, match="no folder"):
        export_onnx(Tiny(), make_spec(), tmp_path / "missing" / "m.onnx", images=IMAGES)
    assert not os.listdir(tmp_path)
