"""Ring 1: what seginfer reads from an .onnx file by itself, against the onnx package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import SPECS, make_onnx, save_model
from onnx import TensorProto, helper, numpy_helper

from seginfer import ModelSpec, read_model
from seginfer._files.onnx_file import graph_sha256, read_onnx, write_metadata
from seginfer._spec.tensor_info import TensorInfo

NUMPY_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
}


def info_of(value: onnx.ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
    return TensorInfo(value.name, shape, NUMPY_NAMES[tensor.elem_type])


def assert_same_reading(path: Path) -> None:
    """Compare every part that seginfer reads with what the onnx package says."""
    ours, theirs = read_onnx(path), onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in theirs.graph.initializer}
    assert ours.inputs == tuple(info_of(value) for value in theirs.graph.input if value.name not in weights)
    assert ours.outputs == tuple(info_of(value) for value in theirs.graph.output)
    assert ours.metadata == {entry.key: entry.value for entry in theirs.metadata_props}
    assert ours.opset == next(o.version for o in theirs.opset_import if o.domain in ("", "ai.onnx"))
    external = [t for t in theirs.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert ours.weight_files == tuple(
        sorted({e.value for t in external for e in t.external_data if e.key == "location"})
    )


def identity_model(dtype: int, shape: list[int | str | None], path: Path) -> Path:
    tensors = [helper.make_tensor_value_info(name, dtype, shape) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "identity", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_signature_and_metadata_of_every_kind_of_network(
    any_spec: ModelSpec, batch: int | str, make_model: Callable[..., Path]
) -> None:
    path = make_model(any_spec, batch=batch)
    assert_same_reading(path)
    assert read_model(path).spec == any_spec


@pytest.mark.parametrize("dtype", NUMPY_NAMES)
def test_every_element_type(dtype: int, tmp_path: Path) -> None:
    assert_same_reading(identity_model(dtype, [1, 3, 4, 5], tmp_path / "model.onnx"))


@pytest.mark.parametrize("shape", [[1, 3, 480, 640], ["N", 3, None, "width"], [2**40, 127, 128, 300], [], [7]], ids=str)
def test_every_kind_of_dimension(shape: list[int | str | None], tmp_path: Path) -> None:
    assert_same_reading(identity_model(TensorProto.FLOAT, shape, tmp_path / "model.onnx"))


def test_weights_that_old_models_list_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    for tensor in model.graph.initializer:
        model.graph.input.insert(0, helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, tmp_path / "old.onnx")
    assert_same_reading(tmp_path / "old.onnx")
    assert [info.name for info in read_onnx(tmp_path / "old.onnx").inputs] == ["image"]


def test_several_outputs_operator_sets_and_entries_are_read_in_order(tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    model.graph.output.append(helper.make_tensor_value_info("aux", TensorProto.FLOAT, ["N", 3, 24, 32]))
    model.graph.node.append(helper.make_node("Identity", ["logits"], ["aux"]))
    model.opset_import.insert(0, helper.make_opsetid("com.microsoft", 1))
    helper.set_model_props(model, {"author": "Ångström 分割", "empty": "", "long": "x" * 100_000})
    model.doc_string = "a description"
    onnx.save(model, tmp_path / "model.onnx")
    assert_same_reading(tmp_path / "model.onnx")


def test_weights_in_another_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(make_onnx(SPECS["semantic"]), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert_same_reading(path)
    assert read_onnx(path).weight_files == ("weights.bin",)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=300), max_size=4),
    st.text(min_size=1, max_size=8),
    st.text(max_size=20_000),
)
def test_one_entry_is_set_and_the_others_stay(tmp_path: Path, before: dict[str, str], key: str, value: str) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    model = make_onnx(SPECS["semantic"])
    helper.set_model_props(model, before)
    onnx.save(model, source)
    write_metadata(source, target, key, value)
    written = onnx.load(target)
    assert {entry.key: entry.value for entry in written.metadata_props} == {**before, key: value}
    assert len(written.metadata_props) == len({**before, key: value})
    assert written.graph == model.graph
    assert graph_sha256(target, ignore=key) == graph_sha256(source, ignore=key)
    assert_same_reading(target)


def test_the_hash_is_that_of_the_graph_and_of_nothing_else(tmp_path: Path) -> None:
    path = save_model(tmp_path / "a.onnx", SPECS["semantic"])
    bare = tmp_path / "bare.onnx"
    onnx.save(make_onnx(SPECS["semantic"]), bare)
    assert graph_sha256(path, ignore="seginfer") == graph_sha256(bare, ignore="seginfer")
    assert graph_sha256(path, ignore="another") != graph_sha256(bare, ignore="another")
    model = make_onnx(SPECS["semantic"])
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = np.nextafter(weight[0, 0], 2)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    onnx.save(model, bare)
    assert graph_sha256(path, ignore="seginfer") != graph_sha256(bare, ignore="seginfer")


def test_a_copy_larger_than_one_step_is_complete(tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    big = np.random.default_rng(0).integers(0, 256, (1 << 24) + 12_345, dtype=np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(big, "unused"))
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model, source)
    write_metadata(source, target, "seginfer", "text")
    assert target.read_bytes().startswith(source.read_bytes())
