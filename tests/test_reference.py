"""A pipeline is held to the user's own one, and the usual mistakes of a spec are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
import user_pipelines as users
from networks import SIZE, Tiny, make_spec, pictures
from torch import nn

from seginfer import (
    Certificate,
    ExportError,
    InputError,
    ModelFileError,
    ModelSpec,
    ParityError,
    Segmenter,
    attach_spec,
    read_model,
)
from seginfer._cli import main
from seginfer.export import certify, export_onnx
from seginfer.export.parity.torch_reference import torch_backend

SPEC = make_spec(mean=users.MEAN, std=users.STD)
IMAGES = pictures((150, 220), (97, 64))
IN_255 = {"mean": tuple(255 * v for v in users.MEAN), "std": tuple(255 * v for v in users.STD)}

# The seven usual mistakes. "swapped classes" is in the reference, "softmax inside" in the module.
MISTAKES: dict[str, dict[str, Any]] = {
    "no mean and std": {"mean": (0.0,), "std": (1.0,)},
    "constants of 0..255": IN_255,
    "scale 1": {"scale": 1.0},
    "bgr": {"color": "bgr"},
    "half size": {"size": (SIZE[0] // 2, SIZE[1] // 2)},
}
REFERENCES: list[Callable[..., Any]] = [users.logits, users.labels, users.probabilities, users.without_modules]


def compare(spec: ModelSpec, reference: Any, module: Any = None, **options: Any) -> Certificate:
    """Certify a pipeline that runs the module itself."""
    module = module or Tiny().eval()
    segmenter = Segmenter(spec, torch_backend(module, spec))
    certificate: Certificate = certify(module, segmenter, IMAGES, reference=reference, **options)
    return certificate


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_right_spec_passes(reference: Any) -> None:
    certificate = compare(SPEC, reference)
    assert certificate.passed, certificate.summary()
    assert (certificate.reference, certificate.reference_name) == ("user", f"user_pipelines:{reference.__name__}")
    assert certificate.reference_agreement is not None
    assert certificate.reference_agreement > 0.999
    assert f"masks equal those of user_pipelines:{reference.__name__}" in certificate.proved()
    assert "that the spec is that of training" not in certificate.not_proved()


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_usual_mistake_fails_in_preprocessing(mistake: str, reference: Any) -> None:
    wrong = replace(SPEC, input=replace(SPEC.input, **MISTAKES[mistake]))
    assert compare(wrong, None).passed  # a certificate of the spec alone believes it
    certificate = compare(wrong, reference)
    assert not certificate.passed
    assert certificate.stage == "preprocess", certificate.summary()
    assert certificate.finding


@pytest.mark.parametrize(
    ("mistake", "reference", "words"),
    [
        ("no mean and std", users.logits, "color='rgb', scale=0.00392, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224"),
        ("bgr", users.labels, "color='rgb'"),
        ("half size", users.labels, "the reference feeds its network 48 x 64 pixels, the spec 24 x 32"),
        ("bgr", users.without_modules, "with color='rgb'"),
        ("constants of 0..255", users.without_modules, "100.00% with scale=1"),
        ("half size", users.without_modules, "with size=(48, 64)"),
    ],
)
def test_the_cause_is_named(mistake: str, reference: Any, words: str) -> None:
    wrong = replace(SPEC, input=replace(SPEC.input, **MISTAKES[mistake]))
    assert words in compare(wrong, reference).finding


def test_swapped_classes_fail_behind_the_network() -> None:
    certificate = compare(SPEC, users.other_classes)
    assert certificate.stage == "postprocess"
    assert "1 there is 2 here, 2 there is 1 here" in certificate.finding


@pytest.mark.parametrize("reference", [None, users.labels])
def test_a_softmax_inside_is_refused(reference: Any) -> None:
    with pytest.raises(ExportError, match="use kind='probabilities'"):
        compare(SPEC, reference, nn.Sequential(Tiny(), nn.Softmax(1)).eval())


def test_other_weights_are_told_from_preprocessing() -> None:
    module = Tiny().eval()
    with torch.no_grad():
        module.last.bias += torch.tensor([2.0, 0.0, -2.0])  # type: ignore[operator]  # there is one
    certificate = compare(SPEC, users.labels, module)
    assert certificate.stage == "postprocess"
    assert "inputs of the networks are equal" in certificate.finding


def test_a_wrong_spec_is_not_exported(tmp_path: Path) -> None:
    wrong = replace(SPEC, input=replace(SPEC.input, **MISTAKES["no mean and std"]))
    with pytest.raises(ParityError, match=r"preprocess.*mean=\(0\.485") as caught:
        export_onnx(Tiny(), wrong, tmp_path / "m.onnx", images=IMAGES, reference=users.labels)
    assert caught.value.certificate.stage == "preprocess"
    assert not list(tmp_path.iterdir())
    images = dict(zip(("a.png", "b.png"), IMAGES, strict=True))
    export_onnx(Tiny(), SPEC, tmp_path / "m.onnx", images=images, reference=users.labels)
    certificate = read_model(tmp_path / "m.onnx").spec.provenance.certificate
    assert certificate is not None
    assert (certificate.reference, certificate.reference_name) == ("user", "user_pipelines:labels")
    assert [record.name for record in certificate.image_records] == ["a.png", "b.png"]
    assert len({record.sha256 for record in certificate.image_records}) == 2
    assert certificate.synthetic is False
    assert certificate.date.endswith("+00:00")
    assert certificate.host
    assert certificate.versions["seginfer"]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (users.failing, "failed on an image (150, 220, 3) with KeyError"),
        (users.random, "is random: two runs on one image differ"),
        (users.too_small, "at the image's own size, from user_pipelines:too_small; interpolate them in it"),
        (lambda image: np.full(image.shape[:2], 7), "expected labels 0..2"),
        (lambda image: np.full((3, *image.shape[:2]), np.nan), "NaN or infinite"),
        (lambda _: "mask", "interpolate them in it"),
    ],
)
def test_a_reference_that_is_no_pipeline_is_refused(reference: Any, words: str) -> None:
    with pytest.raises(ExportError) as caught:
        compare(SPEC, reference)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_cannot_change_the_images() -> None:
    def greedy(image: Any) -> Any:
        result = users.labels(image)
        image[:] = 0
        return result

    before = [image.copy() for image in IMAGES]
    assert compare(SPEC, greedy).passed
    assert all(np.array_equal(a, b) for a, b in zip(before, IMAGES, strict=True))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph without a spec."""
    path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    export_onnx(Tiny(), SPEC, path, images=IMAGES)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


def test_a_foreign_graph_is_compared_with_a_reference_alone(foreign: Path, tmp_path: Path) -> None:
    for fields, stage in (({}, None), *((MISTAKES[name], "preprocess") for name in MISTAKES if name != "half size")):
        spec = replace(SPEC, input=replace(SPEC.input, **fields))
        attach_spec(foreign, spec, tmp_path / "m.onnx")
        for reference in (users.labels, users.without_modules):
            with Segmenter.open(tmp_path / "m.onnx") as segmenter:
                certificate = certify(None, segmenter, IMAGES, reference=reference)
            assert certificate.stage == stage, (fields, certificate.summary())
            assert not certificate.has_module
            assert "that the graph computes the same as PyTorch" in certificate.not_proved()
    with Segmenter.open(tmp_path / "m.onnx") as segmenter, pytest.raises(InputError, match="module or a reference"):
        certify(None, segmenter, IMAGES)


def test_the_command_line_takes_a_reference(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for i, image in enumerate(IMAGES):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), image[:, :, ::-1])
    path, images = tmp_path / "m.onnx", ["--images", *(str(tmp_path / f"{i}.png") for i in range(2))]
    attach_spec(foreign, replace(SPEC, input=replace(SPEC.input, color="bgr")), path)
    assert main(["parity", str(path), "--reference", "user_pipelines:labels", *images, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)["certificate"]
    assert (result["stage"], result["reference_name"]) == ("preprocess", "user_pipelines:labels")
    assert [record["name"] for record in result["image_records"]] == ["0.png", "1.png"]
    attach_spec(foreign, SPEC, path)
    assert main(["parity", str(path), "--reference", "user_pipelines:labels", *images]) == 0
    assert main(["parity", str(path), *images]) == 2
    assert "SOURCE or a --reference" in capsys.readouterr().err
    for reference, words in (("user_pipelines:NOT_A_FUNCTION", "must be a function"), ("nothing", "module:function")):
        assert main(["parity", str(path), "--reference", reference, *images]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "spec.json").write_text(SPEC.to_json())
    export = ["export", "networks:Tiny", "--spec", str(tmp_path / "spec.json"), "-o", str(tmp_path / "e.onnx")]
    assert main([*export, "--reference", "user_pipelines:other_classes", *images]) == 2
    assert "postprocess" in capsys.readouterr().err
    assert not (tmp_path / "e.onnx").exists()
    assert main([*export, "--reference", "user_pipelines:labels"]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "e.onnx")]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "4 synthetic pictures: says nothing about your data" in shown


BINARY_SPEC = make_spec("binary", mean=users.MEAN, std=users.STD)


@pytest.mark.parametrize("kind", ["labels", "probabilities", "logits"])
def test_a_binary_reference_of_any_kind(kind: str) -> None:
    module = Tiny(channels=1).eval()
    as_kind: dict[str, Callable[[Any], Any]] = {
        "labels": lambda values: values[0] > 0,
        "probabilities": torch.sigmoid,
        "logits": lambda values: values,
    }
    assert compare(BINARY_SPEC, lambda image: as_kind[kind](users.logits(image, module)), module).passed
    wrong = replace(BINARY_SPEC, input=replace(BINARY_SPEC.input, mean=(0.0,), std=(1.0,)))
    assert compare(wrong, lambda image: as_kind[kind](users.logits(image, module)), module).stage == "preprocess"


def _ending(path: Path, *ops: tuple[str, dict[str, Any]]) -> Path:
    """Append operators to the graph of a model with one output."""
    model = onnx.load(path)
    node = next(node for node in model.graph.node if "logits" in node.output)
    tensor = node.output[list(node.output).index("logits")] = "raw"
    for i, (op, attributes) in enumerate(ops):
        after = "logits" if i == len(ops) - 1 else f"after_{i}"
        model.graph.node.append(onnx.helper.make_node(op, [tensor], [after], **attributes))
        tensor = after
    onnx.checker.check_model(model)
    onnx.save(model, path.with_name("ending.onnx"))
    return path.with_name("ending.onnx")


IDENTITY: tuple[str, dict[str, Any]] = ("Identity", {})
TURN: list[tuple[str, dict[str, Any]]] = [("Transpose", {"perm": [0, 2, 3, 1]}), ("Transpose", {"perm": [0, 3, 1, 2]})]
CASTS: list[tuple[str, dict[str, Any]]] = [("Cast", {"to": 11}), ("Cast", {"to": 1})]


@pytest.mark.parametrize("op", ["Sigmoid", "HardSigmoid", "Softmax"])
@pytest.mark.parametrize("tail", [[], [IDENTITY], TURN, CASTS, [*TURN, IDENTITY, *CASTS]], ids=len)
def test_attach_finds_an_activation_behind_the_last_layer(
    op: str, tail: list[tuple[str, dict[str, Any]]], foreign: Path, tmp_path: Path
) -> None:
    path = _ending(foreign, (op, {"axis": 1} if op == "Softmax" else {}), *tail)
    with pytest.raises(ModelFileError, match=f"ends in {op}: use kind='probabilities'"):
        attach_spec(path, SPEC, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    attach_spec(path, replace(SPEC, outputs=(replace(SPEC.output, kind="probabilities"),)), tmp_path / "m.onnx")


def test_log_softmax_is_right_as_logits(foreign: Path, tmp_path: Path) -> None:
    """It moves all classes of a pixel alike: labels and probabilities are those of the logits."""
    found = []
    for path in (foreign, _ending(foreign, ("LogSoftmax", {"axis": 1}))):
        attach_spec(path, SPEC, tmp_path / "m.onnx")
        with Segmenter.open(tmp_path / "m.onnx") as segmenter:
            found.append(segmenter(IMAGES[0], confidence=True))
    assert (found[0].labels == found[1].labels).mean() > 0.9999
    first, second = (np.asarray(one.confidence) for one in found)
    np.testing.assert_allclose(first, second, atol=1e-5)
    probabilities = replace(SPEC, outputs=(replace(SPEC.output, kind="probabilities"),))
    with pytest.raises(ModelFileError, match="use kind='logits'"):
        attach_spec(tmp_path / "m.onnx", probabilities, tmp_path / "n.onnx")


class Positive(nn.Module):
    """Logits that happen to lie in 0..1."""

    def forward(self, x: Any) -> Any:
        x = x - x.mean((1, 2, 3), keepdim=True)
        return torch.relu(x) / (1 + x.abs())


def test_values_alone_do_not_prove_an_activation(tmp_path: Path) -> None:
    """The graph decides. Values in 0..1 are a warning as long as some pixels are not set."""
    with pytest.raises(ExportError, match="ends in Sigmoid: use kind='probabilities'"):
        export_onnx(nn.Sequential(Tiny(channels=1), nn.Sigmoid()), BINARY_SPEC, tmp_path / "m.onnx", images=IMAGES)
    assert not list(tmp_path.iterdir())
    module = nn.Sequential(Tiny(channels=1), Positive())
    certificate = export_onnx(module, BINARY_SPEC, tmp_path / "m.onnx", images=IMAGES)
    assert any("all outputs lie in 0..1" in warning for warning in certificate.warnings)


class Joined(nn.Module):
    """A binary network that ends in an activation and an operator that hides it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 2, 3, padding=1), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 1, H, W) probabilities."""
        y: torch.Tensor = self.conv(x)
        first = y[:, :1]
        endings: dict[str, torch.Tensor] = {
            "one of a softmax": y.softmax(1)[:, 1].unsqueeze(1),
            "a product": first.sigmoid() * y[:, 1:].sigmoid(),
            "the rest": 1 - first.sigmoid(),
            "the highest": y.sigmoid().amax(1, keepdim=True),
            "written out": 0.5 * torch.tanh(first) + 0.5,
        }
        return endings[self.how]


@pytest.mark.parametrize("how", ["one of a softmax", "a product", "the rest", "the highest", "written out"])
def test_an_activation_behind_another_operator_is_found(how: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="kind='probabilities'"):
        export_onnx(Joined(how).eval(), BINARY_SPEC, tmp_path / "m.onnx", images=IMAGES)
    assert not list(tmp_path.iterdir())
    right = replace(BINARY_SPEC, outputs=(replace(BINARY_SPEC.output, kind="probabilities"),))
    assert export_onnx(Joined(how).eval(), right, tmp_path / "m.onnx", images=IMAGES).passed


def test_a_gate_is_no_activation(tmp_path: Path) -> None:
    """x * sigmoid(x) takes any value."""
    module = nn.Sequential(Tiny(), nn.SiLU()).eval()
    assert export_onnx(module, SPEC, tmp_path / "m.onnx", images=IMAGES).passed


def test_labels_of_a_reference_may_differ_in_a_pixel_of_many() -> None:
    def one_off(image: Any) -> Any:
        labels = users.labels(image)
        labels[0, 0] = (labels[0, 0] + 1) % 3
        return labels

    def twentieth_off(image: Any) -> Any:
        labels = users.labels(image)
        labels[::20] = (labels[::20] + 1) % 3
        return labels

    assert compare(SPEC, one_off).passed
    assert not compare(SPEC, twentieth_off).passed


def test_a_reference_that_returns_a_dictionary_is_refused_in_words() -> None:
    with pytest.raises(ExportError, match="got dict; return the tensor itself"):
        compare(SPEC, lambda image: {"out": users.logits(image)})


def test_the_classes_of_a_pixel_may_move_alike() -> None:
    assert compare(SPEC, lambda image: users.logits(image).log_softmax(0)).passed


def test_a_small_mistake_is_a_warning_though_the_masks_agree() -> None:
    mean = (users.MEAN[0] + 0.002, *users.MEAN[1:])
    spec = replace(SPEC, input=replace(SPEC.input, mean=mean))
    certificate = compare(spec, users.logits)
    assert not certificate.passed or any("the masks agree, but" in warning for warning in certificate.warnings)
    assert not any("the masks agree" in warning for warning in compare(SPEC, users.logits).warnings)
