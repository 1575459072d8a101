"""Ring 4: abuse. A wrong key, type or value of a spec is an error that names the place and the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_spec
from refusal import refuses

from seginfer import ClassSpec, InputSpec, MissingFileError, ModelSpec, OutputSpec, SpecError, UpsampleSpec

SCALARS = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["task", "input", "classes", "names", "size"])


def changed(path: str, value: Any) -> str:
    """Return the JSON of a good spec with the value at `path` ("input.mean") set."""
    data = json.loads(make_spec().to_json())
    data["outputs"] = data["outputs"][0]
    *parents, key = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[key] = value
    data["outputs"] = [data["outputs"]] if isinstance(data["outputs"], dict) else data["outputs"]
    return json.dumps(data)


UNKNOWN_KEYS = [
    ("input.resise", "input", "did you mean 'resize'?"),
    ("input.means", "input", "did you mean 'mean'?"),
    ("classes.colours", "classes", "did you mean 'colors'?"),
    ("outputs.align_corner", "outputs", "did you mean 'align_corners'?"),
    ("provenance.weights", "provenance", "did you mean 'weights_sha256'?"),
    ("inputs", "spec", "did you mean 'input'?"),
    ("input.zzz", "input", "known keys: size, multiple_of, name"),
]


@pytest.mark.parametrize(("path", "place", "hint"), UNKNOWN_KEYS, ids=[key for key, *_ in UNKNOWN_KEYS])
def test_an_unknown_key_is_named_with_the_nearest_known_one(path: str, place: str, hint: str) -> None:
    with refuses(SpecError, f"unknown key {path.rpartition('.')[2]!r}", place, hint):
        ModelSpec.from_json(changed(path, 1))


WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("task", "panoptic", "task must be one of semantic, binary, multilabel"),
    ("task", ["semantic"], "task must be one of"),
    ("input", None, "input must be a JSON object"),
    ("input", [1], "input must be a JSON object"),
    ("input.size", 512, "input.size must be a list"),
    ("input.size", [512], "input.size must hold 2 values"),
    ("input.size", [512, "512"], "input.size[1] must be int"),
    ("input.size", [512, 1.5], "input.size[1] must be int"),
    ("input.size", [True, 5], "input.size[0] must be int"),
    ("input.name", 3, "input.name must be str"),
    ("input.mean", 0.5, "input.mean must be a list"),
    ("input.mean", ["0.5"], "input.mean[0] must be float"),
    ("input.scale", True, "input.scale must be float"),
    ("input.scale", None, "input.scale must be float"),
    ("input.scale", 10**400, "input.scale must be float"),
    ("input.color", "RGB", "input.color must be one of rgb, bgr, gray"),
    ("input.resampling", "cubic", "input.resampling must be one of opencv, pillow"),
    ("outputs", [], "outputs must be one or more tensors"),
    ("outputs.align_corners", 1, "align_corners must be bool"),
    ("outputs.stride", 4.0, "stride must be int"),
    ("classes.names", "road", "classes.names must be a list"),
    ("classes.names", [1, 2, 3], "classes.names[0] must be str"),
    ("classes.colors", [[1, 2]], "classes.colors[0] must hold 3 values"),
    ("provenance.versions", ["torch"], "provenance.versions must be a JSON object"),
    ("provenance.versions", {"torch": 2}, "provenance.versions.torch must be str"),
    ("provenance.certificate", {}, "certificate.passed is missing"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"), WRONG_TYPES, ids=[f"{path}={str(value)[:20]}" for path, value, _ in WRONG_TYPES]
)
def test_a_value_of_a_wrong_type_is_named(path: str, value: Any, words: str) -> None:
    with refuses(SpecError, words):
        ModelSpec.from_json(changed(path, value))


BAD_VALUES: dict[str, tuple[Callable[[], object], str]] = {
    "zero std": (lambda: InputSpec(std=(0.2, 0.0, 0.2)), "input.std must be positive"),
    "negative std": (lambda: InputSpec(std=(-1.0,)), "input.std must be positive"),
    "nan mean": (lambda: InputSpec(mean=(float("nan"),)), "input.mean[0] must be finite"),
    "infinite std": (lambda: InputSpec(std=(float("inf"),)), "input.std[0] must be finite"),
    "two means": (lambda: InputSpec(mean=(0.1, 0.2)), "input.mean must hold 1 or 3 values for rgb"),
    "three means for gray": (lambda: InputSpec(color="gray", mean=(0.1, 0.2, 0.3)), "values for gray"),
    "zero scale": (lambda: InputSpec(scale=0.0), "input.scale must be positive"),
    "nan scale": (lambda: InputSpec(scale=float("nan")), "input.scale must be finite"),
    "bright padding": (lambda: InputSpec(pad_value=(256.0,)), "input.pad_value must be pixel values in 0..255"),
    "dark padding": (lambda: InputSpec(pad_value=(-1.0,)), "input.pad_value must be pixel values in 0..255"),
    "no size": (lambda: InputSpec(size=(0, 5)), "input.size must be positive"),
    "a huge size": (lambda: InputSpec(size=(8, 2**31)), "input.size must be at most 1048576, got 2147483648"),
    "no multiple": (lambda: InputSpec(multiple_of=0), "input.multiple_of must be at least 1"),
    "a huge multiple": (lambda: InputSpec(multiple_of=10**30), "input.multiple_of must be at most 1048576"),
    "a huge stride": (lambda: OutputSpec(stride=2**20 + 1), "outputs.stride must be at most 1048576, got 1048577"),
    "a huge upsampling": (lambda: UpsampleSpec(2**63), "outputs.upsample.factor must be at most 1048576"),
    "dynamic letterbox": (lambda: InputSpec(resize="letterbox"), "needs a fixed input.size"),
    "dynamic crop": (lambda: InputSpec(resize="center-crop"), "needs a fixed input.size"),
    "dynamic tiles": (lambda: InputSpec(resize="tile"), "'tile' needs a fixed input.size"),
    "a negative tile margin": (lambda: make_spec(resize="tile", tile_margin=-1), "tile_margin must be at least 0"),
    "a margin without tiles": (lambda: make_spec(tile_margin=4), "tile_margin 4 needs resize 'tile', got 'stretch'"),
    "nothing but margins": (
        lambda: make_spec(resize="tile", tile_margin=12),
        "at least one multiple_of 1; use a larger",
    ),
    "tiles below the stride": (
        lambda: make_spec(resize="tile", tile_margin=8, multiple_of=16),
        "tile_margin of 8 at each side must hold at least one multiple_of 16",
    ),
    "tiles between cells": (
        lambda: make_spec(resize="tile", multiple_of=6, output={"stride": 4}),
        "multiple_of of tiles must be a multiple of the output's stride 4, got 6",
    ),
    "tiles that upsample to corners": (
        lambda: make_spec(
            resize="tile", multiple_of=2, output={"upsample": UpsampleSpec(factor=2, align_corners=True)}
        ),
        "upsample with align_corners=False",
    ),
    "scaled uint8": (lambda: InputSpec(dtype="uint8"), "uint8 takes raw pixels; set scale to 1"),
    "float resize to uint8": (
        lambda: InputSpec(dtype="uint8", scale=1.0, resampling="torch"),
        "use opencv, pillow or nearest",
    ),
    "no stride": (lambda: OutputSpec(stride=0), "outputs.stride must be at least 1"),
    "threshold 0": (lambda: OutputSpec(threshold=0.0), "outputs.threshold is a probability"),
    "threshold 1": (lambda: OutputSpec(threshold=1.0), "outputs.threshold is a probability"),
    "no names": (lambda: ClassSpec(()), "classes.names is empty"),
    "double names": (lambda: ClassSpec(("a", "b", "a")), "classes.names must be unique"),
    "too few colours": (lambda: ClassSpec(("a", "b"), ((1, 2, 3),)), "classes.colors must hold 2 colours, got 1"),
    "bright colour": (lambda: ClassSpec(("a",), ((0, 0, 256),)), "classes.colors must be RGB in 0..255"),
    "binary of three": (lambda: make_spec("binary", names=("a", "b", "c")), "binary task must be two names"),
    "ignoring a class": (lambda: make_spec(ignore_index=2), "classes.ignore_index must be 3..65535"),
    "ignoring a huge value": (lambda: make_spec(ignore_index=65536), "classes.ignore_index must be 3..65535"),
    "multilabel labels": (lambda: make_spec("multilabel", output={"kind": "labels"}), "needs task 'semantic'"),
    "a crop without ignore": (
        lambda: make_spec(resize="center-crop", ignore_index=None),
        "a center crop leaves pixels unseen; set classes.ignore_index",
    ),
    "double outputs": (
        lambda: ModelSpec("semantic", InputSpec(), ClassSpec(("a",)), (OutputSpec(), OutputSpec())),
        "outputs must be one or more tensors with different names",
    ),
}


@pytest.mark.parametrize(("build", "words"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_bad_value_is_refused_on_construction(build: Callable[[], object], words: str) -> None:
    with refuses(SpecError, words):
        build()


@pytest.mark.parametrize("key", ["task", "input", "classes", "classes.names"])
def test_a_missing_key_is_named(key: str) -> None:
    data = json.loads(make_spec().to_json())
    *parents, last = key.split(".")
    del (data[parents[0]] if parents else data)[last]
    with refuses(SpecError, f"{key} is missing"):
        ModelSpec.from_json(json.dumps(data))


@pytest.mark.parametrize("version", [None, 0, 2, "1", [1], True, 1.0])
def test_another_schema_version_is_refused(version: object) -> None:
    with refuses(SpecError, 'add "schema": 1'):
        ModelSpec.from_json(changed("schema", version))


@pytest.mark.parametrize("text", ["", "{", "nul", "\x00", "[" * 100_000, '{"schema": 1, "schema"}', "[]", "7", "null"])
def test_text_that_is_no_json_object_is_refused(text: str) -> None:
    with refuses(SpecError, "JSON"):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"task"', '"task": "binary", "task"', "the key 'task' occurs twice"),
        ('"scale": 1.0', '"scale": 1.0, "scale": 2.0', "the key 'scale' occurs twice"),
        ('"scale": 1.0', '"scale": NaN', "NaN is no number"),
        ('"scale": 1.0', '"scale": -Infinity', "-Infinity is no number"),
        ('"scale": 1.0', '"scale": 1e999', "input.scale must be finite"),
    ],
)
def test_json_that_readers_take_differently_is_refused(old: str, new: str, words: str) -> None:
    text = changed("input.scale", 1.0)
    assert old in text
    with refuses(SpecError, words):
        ModelSpec.from_json(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pixel_agreement", 7),
        ("decisive_agreement", -0.1),
        ("undecided_share", 1.5),
        ("mean_iou", 2),
        ("rounding_agreement", 1.1),
        ("images", -3),
        ("pixels", 0),
        ("logit_max_error", -1e-9),
        ("stage", "network"),
        ("flips", [{"margin_below": None, "pixels": 1, "flipped": 2}]),
    ],
)
def test_a_certificate_of_impossible_numbers_is_refused(field: str, value: Any) -> None:
    shares = ("pixel_agreement", "decisive_agreement", "undecided_share", "mean_iou")
    errors = ("batch_max_error", "network_max_error", "logit_max_error", "logit_p999_error")
    good: dict[str, Any] = {"passed": True, "stage": None, "precision": "fp32", "images": 1, "pixels": 1}
    good |= dict.fromkeys(shares, 1.0) | dict.fromkeys(errors, 0.0)
    ModelSpec.from_json(changed("provenance.certificate", good))
    with refuses(SpecError, "certificate"):
        ModelSpec.from_json(changed("provenance.certificate", {**good, field: value}))


@settings(max_examples=100)
@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)))
def test_any_json_is_refused_in_one_line(value: Any) -> None:
    text = json.dumps({"schema": 1, **value} if isinstance(value, dict) else value)
    with refuses(SpecError):
        ModelSpec.from_json(text)


def test_a_spec_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with refuses(MissingFileError, "no spec file", "check the path"):
        ModelSpec.load(tmp_path / "missing.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with refuses(SpecError, "binary.json"):
        ModelSpec.load(binary)
