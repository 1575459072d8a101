"""Ring 4: abuse. A model file that is cut, foreign, bare or at odds with its spec is refused in one helpful line."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import SPECS, make_onnx, make_spec, save_model
from onnx import TensorProto, helper
from refusal import refuses

from seginfer import BackendError, ModelFileError, ModelSpec, Segmenter, attach_spec, read_model


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save_model(tmp_path_factory.mktemp("model") / "model.onnx", SPECS["semantic"]).read_bytes()


def test_a_model_file_cut_anywhere_is_refused(model_bytes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    for end in [*range(1, len(model_bytes), 7), len(model_bytes) - 1]:
        path.write_bytes(model_bytes[:end])
        with refuses(ModelFileError, "cut.onnx"):
            read_model(path)


FOREIGN = {
    "empty": b"",
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01",
    "zip": b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
    "text": b"name: road\nclasses: 19\n",
    "zeros": bytes(1000),
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(content)
    for call in (read_model, Segmenter.open, lambda p: attach_spec(p, SPECS["semantic"], tmp_path / "out.onnx")):
        with refuses(ModelFileError, "foreign.onnx"):
            call(path)
    assert sorted(tmp_path.iterdir()) == [path]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.integers(0, 400), st.booleans())
def test_random_bytes_are_refused_and_never_crash(
    model_bytes: bytes, tmp_path: Path, noise: bytes, at: int, is_prefix: bool
) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(noise if is_prefix else model_bytes[:at] + noise + model_bytes[at + len(noise) :])
    if is_prefix:
        with refuses(ModelFileError, "noise.onnx"):
            read_model(path)
    else:
        with suppress(ModelFileError):  # noise in a weight or in the model's name does no harm
            read_model(path)


def test_a_model_without_a_spec_is_refused_with_the_command_that_puts_one_in(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    onnx.save(make_onnx(SPECS["semantic"]), path)
    with refuses(ModelFileError, "no ModelSpec", "seginfer attach bare.onnx"):
        Segmenter.open(path)


def test_a_model_whose_spec_is_unusable_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for text, word in [("{", "not valid JSON"), ("[]", "JSON object"), ('{"schema": 9}', "spec.schema must be 1")]:
        model = make_onnx(SPECS["semantic"])
        helper.set_model_props(model, {"seginfer": text})
        onnx.save(model, path)
        with refuses(ModelFileError, "unusable ModelSpec", word, "attach a corrected one"):
            read_model(path)


CONTRADICTIONS: dict[str, tuple[ModelSpec, str]] = {
    "another input name": (make_spec(name="pixels"), "input.name is 'pixels', the graph takes ['image']"),
    "another dtype": (make_spec(dtype="float16"), "input.dtype is float16, the graph takes float32"),
    "another layout": (make_spec(layout="NHWC"), "input.color 'rgb' (NHWC) has 3 channels"),
    "gray": (make_spec(color="gray"), "input.color 'gray' (NCHW) has 1 channels"),
    "another height": (make_spec(size=(25, 32)), "input.size has height 25"),
    "another width": (make_spec(size=(24, 31)), "input.size has width 31"),
    "a dynamic size": (make_spec(size=None), "input.size is null (dynamic)"),
    "another output name": (make_spec(output={"name": "out"}), "outputs names 'out', the graph yields ['logits']"),
    "another output layout": (make_spec(output={"layout": "NHWC"}), "need 3 channels"),
    "another stride": (make_spec(output={"stride": 4}), "outputs[0].stride is 4"),
    "labels": (make_spec(output={"kind": "labels"}), "3 semantic classes of kind labels need 1 channels"),
    "two classes": (make_spec(names=("a", "b")), "2 semantic classes of kind logits need 2 channels"),
    "a binary task": (make_spec("binary"), "2 binary classes of kind logits need 1 channels"),
}


@pytest.mark.parametrize(("spec", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_spec_that_contradicts_the_graph_is_refused_when_attached_and_when_read(
    spec: ModelSpec, words: str, tmp_path: Path
) -> None:
    path, target = tmp_path / "model.onnx", tmp_path / "out.onnx"
    model = make_onnx(SPECS["semantic"])
    onnx.save(model, path)
    with refuses(ModelFileError, "contradicts its ModelSpec", words):
        attach_spec(path, spec, target)
    assert not target.exists()
    helper.set_model_props(model, {"seginfer": spec.to_json()})
    onnx.save(model, path)
    with refuses(ModelFileError, "contradicts its ModelSpec", words):
        Segmenter.open(path)


def test_a_graph_that_is_no_image_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flat.onnx"
    for shape, words in [([1, 3], "input must have 4 dimensions"), ([1, 3, 24, 32], "outputs[0] must have 4")]:
        tensors = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
            for name, dims in [("image", shape), ("logits", [1, 3])]
        ]
        graph = helper.make_graph(
            [helper.make_node("Identity", ["image"], ["logits"])], "flat", [tensors[0]], [tensors[1]]
        )
        onnx.save(helper.make_model(graph), path)
        with refuses(ModelFileError, words):
            attach_spec(path, SPECS["semantic"], path)


def test_a_network_that_the_runtime_rejects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = make_onnx(SPECS["semantic"])
    model.graph.node[0].op_type = "Convolution"
    onnx.save(model, path)
    attach_spec(path, SPECS["semantic"], path)
    with refuses(BackendError, "cannot load", "model.onnx"):
        Segmenter.open(path)


@pytest.mark.parametrize("repeated", ["graph.input", "metadata_props"])
def test_a_file_that_repeats_an_empty_field_is_given_up_soon(repeated: str, tmp_path: Path) -> None:
    model = onnx.ModelProto(opset_import=[helper.make_opsetid("", 18)], graph=onnx.GraphProto())
    fields = model.graph.input if repeated == "graph.input" else model.metadata_props
    for _ in range(300_000):
        fields.add()
    (tmp_path / "hostile.onnx").write_bytes(model.SerializeToString())
    start = time.process_time()
    with refuses(ModelFileError, "more than"):
        read_model(tmp_path / "hostile.onnx")
    assert time.process_time() - start < 5  # all of it would take longer, and gigabytes
