"""Ring 1: ModelSpec as a value: its JSON form, defaults, derived numbers and palettes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_spec

from seginfer import (
    Certificate,
    ClassSpec,
    FlipCount,
    ImageRecord,
    InputSpec,
    ModelSpec,
    OutputSpec,
    Provenance,
    SpecError,
)

TEXT = st.text(min_size=1, max_size=12)
COLOR = st.tuples(*[st.integers(0, 255)] * 3)
FINITE = st.floats(-1e3, 1e3)


def channels(values: st.SearchStrategy[float], count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.one_of(*[st.lists(values, min_size=n, max_size=n).map(tuple) for n in {1, count}])


@st.composite
def inputs(draw: st.DrawFn) -> InputSpec:
    color: Any = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    count = 1 if color == "gray" else 3
    dtype: Any = draw(st.sampled_from(["float32", "float16", "uint8"]))
    size = draw(st.none() | st.tuples(st.integers(1, 4096), st.integers(1, 4096)))
    resamplings = ["opencv", "pillow", "nearest"] + ["torch", "torch-antialias"] * (dtype != "uint8")
    raw: dict[str, Any] = {"scale": 1.0, "mean": (0.0,), "std": (1.0,)}
    scaled: dict[str, Any] = {
        "scale": draw(st.floats(1e-6, 1e3)),
        "mean": draw(channels(FINITE, count)),
        "std": draw(channels(st.floats(1e-6, 1e3), count)),
    }
    return InputSpec(
        size=size,
        multiple_of=draw(st.integers(1, 64)),
        name=draw(TEXT),
        layout=draw(st.sampled_from(["NCHW", "NHWC"])),
        dtype=dtype,
        color=color,
        resize=draw(st.sampled_from(["stretch", "pad"] + ["letterbox", "center-crop"] * (size is not None))),
        anchor=draw(st.sampled_from(["center", "top-left"])),
        resampling=draw(st.sampled_from(resamplings)),
        pad_value=draw(channels(st.floats(0, 255), count)),
        **(raw if dtype == "uint8" else scaled),
    )


@st.composite
def certificates(draw: st.DrawFn) -> Certificate:
    values: dict[str, Any] = {}
    share = st.floats(0, 1)
    drawn = {"bool": st.booleans(), "int": st.integers(1, 10**12), "float": share, "str": TEXT}
    drawn |= {"float | None": st.none() | share, "bool | None": st.none() | st.booleans()}
    few, many = st.integers(0, 10**6), st.integers(10**6, 10**12)
    flips = st.builds(FlipCount, st.none() | st.floats(0, 100), many, few)
    drawn["tuple[FlipCount, ...]"] = st.lists(flips, max_size=3).map(tuple)
    drawn["tuple[ImageRecord, ...]"] = st.lists(st.builds(ImageRecord, TEXT, TEXT), max_size=3).map(tuple)
    drawn["tuple[str, ...]"] = st.lists(TEXT, max_size=3).map(tuple)
    for field in dataclasses.fields(Certificate):
        strategy = drawn.get(str(field.type), st.dictionaries(TEXT, TEXT, max_size=2))
        values[field.name] = draw(strategy)
    stage = draw(st.sampled_from([None, "preprocess", "network", "postprocess", "reference"]))
    reference = draw(st.sampled_from(["spec", "user"]))
    return Certificate(**{**values, "passed": stage is None, "stage": stage, "reference": reference})


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    task: Any = draw(st.sampled_from(["semantic", "binary", "multilabel"]))
    count = 2 if task == "binary" else draw(st.integers(1, 8))
    names = tuple(draw(st.lists(TEXT, min_size=count, max_size=count, unique=True)))
    colors = draw(st.just(()) | st.lists(COLOR, min_size=count, max_size=count).map(tuple))
    kinds = ["logits", "probabilities"] + ["labels"] * (task == "semantic")
    outputs = tuple(
        OutputSpec(
            name=name,
            kind=draw(st.sampled_from(kinds)),
            layout=draw(st.sampled_from(["NCHW", "NHWC"])),
            stride=draw(st.integers(1, 32)),
            align_corners=draw(st.booleans()),
            threshold=draw(st.floats(0.01, 0.99)),
        )
        for name in draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    )
    provenance = Provenance(
        source=draw(st.text(max_size=20)),
        opset=draw(st.none() | st.integers(1, 30)),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        certificate=draw(st.none() | certificates()),
    )
    image = draw(inputs())
    if image.size and min(image.size) >= outputs[0].whole_stride and draw(st.booleans()):
        margin = draw(st.integers(0, (min(image.size) - outputs[0].whole_stride) // 2))
        image = dataclasses.replace(image, resize="tile", multiple_of=outputs[0].whole_stride, tile_margin=margin)
    ignore = st.integers(count, 65535)
    classes = ClassSpec(names, colors, draw(ignore if image.resize == "center-crop" else st.none() | ignore))
    return ModelSpec(task, image, classes, outputs, provenance)


@settings(max_examples=150)
@given(specs(), st.sampled_from([None, 2]))
def test_json_brings_back_the_same_spec(spec: ModelSpec, indent: int | None) -> None:
    text = spec.to_json(indent=indent)
    assert text.isascii()
    assert ModelSpec.from_json(text) == spec
    assert json.loads(text)["schema"] == 1


def test_float32_nodes_are_read_under_their_old_key() -> None:
    nodes = {"head": ("last/Conv",), "positions": ("a", "b")}
    spec = dataclasses.replace(make_spec("binary"), provenance=Provenance(precision="fp16", fp32_nodes=nodes))
    old = json.loads(spec.to_json())
    old["provenance"]["islands"] = old["provenance"].pop("fp32_nodes")
    read = ModelSpec.from_json(json.dumps(old))
    assert read == spec
    assert "islands" not in read.to_json()


def test_float32_nodes_under_both_keys_are_refused() -> None:
    both = json.loads(make_spec("binary").to_json())
    both["provenance"]["islands"] = {}
    with pytest.raises(SpecError, match="unknown key 'islands'"):
        ModelSpec.from_json(json.dumps(both))


def test_a_spec_file_is_read_back(tmp_path: Path) -> None:
    spec = make_spec("binary", resize="letterbox", pad_value=(114.0,))
    path = tmp_path / "spec.json"
    path.write_text(spec.to_json(indent=2), encoding="utf-8")
    assert ModelSpec.load(path) == spec


def test_what_json_leaves_out_takes_the_documented_defaults() -> None:
    spec = ModelSpec.from_json(
        '{"schema": 1, "task": "semantic", "input": {"size": [512, 1024]}, "classes": {"names": ["a", "b", "c"]}}'
    )
    assert spec.input == InputSpec(size=(512, 1024))
    assert (spec.input.color, spec.input.layout, spec.input.dtype) == ("rgb", "NCHW", "float32")
    assert (spec.input.resize, spec.input.resampling, spec.input.anchor) == ("stretch", "opencv", "center")
    assert (spec.input.scale, spec.input.mean, spec.input.std) == (1 / 255, (0.0,), (1.0,))
    assert spec.outputs == (OutputSpec(name="logits", kind="logits", stride=1, align_corners=False, threshold=0.5),)
    assert (spec.classes.ignore_index, spec.provenance) == (255, Provenance())


def test_a_spec_cannot_be_changed_and_lists_become_tuples() -> None:
    spec = make_spec(mean=[0.1, 0.2, 0.3])
    assert spec.input.mean == (0.1, 0.2, 0.3)
    assert hash(spec.input) == hash(make_spec(mean=(0.1, 0.2, 0.3)).input)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.task = "binary"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("task", "count", "ignore_index", "channels", "ignore_value", "dtype"),
    [
        ("semantic", 3, 255, 3, 255, np.uint8),
        ("semantic", 3, None, 3, 0, np.uint8),
        ("semantic", 256, None, 256, 0, np.uint8),
        ("semantic", 257, None, 257, 0, np.uint16),
        ("semantic", 3, 256, 3, 256, np.uint16),
        ("binary", 2, 255, 1, 255, np.uint8),
        ("multilabel", 3, 255, 3, 0, np.uint8),
        ("multilabel", 300, 1000, 300, 0, np.uint8),
    ],
)
def test_channels_and_mask_values_follow_from_task_and_classes(
    task: str, count: int, ignore_index: int | None, channels: int, ignore_value: int, dtype: type
) -> None:
    spec = make_spec(task, names=tuple(f"class {i}" for i in range(count)), ignore_index=ignore_index)
    assert (spec.num_classes, spec.num_channels, spec.ignore_value) == (count, channels, ignore_value)
    assert spec.mask_dtype == dtype


def test_one_value_stands_for_all_channels() -> None:
    spec = InputSpec(mean=(0.5,), std=(0.1, 0.2, 0.3))
    assert spec.per_channel(spec.mean) == (0.5, 0.5, 0.5)
    assert spec.per_channel(spec.std) == (0.1, 0.2, 0.3)
    assert InputSpec(color="gray").per_channel((7.0,)) == (7.0,)


def test_cityscapes_names_get_cityscapes_colours_in_any_order_and_case() -> None:
    assert ClassSpec(("road", "Car", "traffic light", "Vegetation")).colors == (
        (128, 64, 128),
        (0, 0, 142),
        (250, 170, 30),
        (107, 142, 35),
    )


@pytest.mark.parametrize("names", [tuple(map(str, range(22))), ("road", "car", "spaceship", *map(str, range(19)))])
def test_other_names_get_pascal_voc_colours_by_index(names: tuple[str, ...]) -> None:
    colors = ClassSpec(names).colors
    assert colors[:8] == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
    )
    assert colors[8] == (64, 0, 0)
    assert colors[15] == (192, 128, 128)
    assert colors[20] == (0, 64, 128)
    assert len(set(colors)) == len(names)


def test_given_colours_are_kept() -> None:
    assert ClassSpec(("road", "car", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))).colors[2] == (7, 8, 9)
