"""The key of an engine: it changes with everything that an engine depends on, and with nothing else."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_driver
import numpy as np
import onnx
import pytest
from engine_cases import needs_rtx
from models import SPECS, make_onnx, save_model
from onnx import TensorProto, helper, numpy_helper
from refusal import refuses

from seginfer import BackendUnavailableError, MissingFileError, ModelFileError, attach_spec
from seginfer._files.external import external_files
from seginfer._files.hashes import file_sha256, file_stamp
from seginfer._spec.schema import structure, unstructure
from seginfer._tensorrt.key import EngineGpu, EngineKey, engine_key, file_stamps, onnx_sha256
from seginfer._tensorrt.options import EngineOptions, EngineProfile

ORIN = EngineGpu("Orin", (8, 7), "12.6 (540.4.0)", 16)
KEY = EngineKey(
    seginfer="0.1.0",
    library="TensorRT",
    library_version="10.3.0",
    platform="linux-aarch64",
    gpu=ORIN,
    options=EngineOptions("tensorrt"),
    onnx_sha256="ab" * 32,
)


def _changed(**fields: object) -> EngineKey:
    return replace(KEY, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (_changed(seginfer="0.1.1"), "seginfer version 0.1.0, here 0.1.1"),
        (_changed(library="TensorRT for RTX"), "library TensorRT, here TensorRT for RTX"),
        (_changed(library_version="10.3.1"), "TensorRT version 10.3.0, here 10.3.1"),
        (_changed(platform="linux-x86_64"), "platform linux-aarch64, here linux-x86_64"),
        (_changed(gpu=None), "GPU Orin, compute capability 8.7, 16 multiprocessors, here none"),
        (_changed(gpu=EngineGpu("Thor", (11, 0), "12.6 (540.4.0)")), "here Thor, compute capability 11.0"),
        (
            _changed(gpu=replace(ORIN, multiprocessors=8)),
            "16 multiprocessors, here Orin, compute capability 8.7, 8 multiprocessors",
        ),
        (_changed(gpu=replace(ORIN, driver="12.6 (540.5.0)")), "driver 12.6 (540.4.0), here 12.6 (540.5.0)"),
        (_changed(options=EngineOptions("tensorrt", workspace_mb=64)), "options.workspace_mb none, here 64"),
        (_changed(options=EngineOptions("tensorrt", dla_core=0)), "options.dla_core none, here 0"),
        (_changed(options=EngineOptions("tensorrt", cuda_graph=False)), "options.cuda_graph True, here False"),
        (
            _changed(options=EngineOptions("tensorrt", (EngineProfile((1, 1, 4)),))),
            "options.profiles[0] batch 1, here batch 1..1..4",
        ),
        (
            _changed(options=EngineOptions("tensorrt", (EngineProfile(), EngineProfile.fixed(2, (64, 96))))),
            "options.profiles[1] none, here batch 2 of 64x96",
        ),
        (_changed(onnx_sha256="cd" * 32), f"onnx_sha256 {'ab' * 32}, here {'cd' * 32}"),
    ],
)
def test_every_field_changes_the_digest_and_is_named_where_it_differs(other: EngineKey, words: str) -> None:
    assert other.digest() != KEY.digest()
    assert words in KEY.mismatch(other)


def test_equal_keys_have_one_digest_and_no_difference() -> None:
    read = structure(EngineKey, unstructure(KEY), "key")
    assert read == KEY
    assert read.digest() == KEY.digest()
    assert KEY.mismatch(read) == ""


def test_a_digest_does_not_depend_on_the_process() -> None:
    code = "from test_engine_key import KEY; print(KEY.digest())"
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == KEY.digest()


def test_what_differs_first_explains_the_rest() -> None:
    other = _changed(library_version="10.16.2", gpu=None, onnx_sha256="cd" * 32, seginfer="0.2.0")
    assert KEY.mismatch(other).startswith("TensorRT version")


def test_of_many_profiles_the_first_that_differs_is_named_in_words() -> None:
    sizes = [EngineProfile(size=((32, 32), (64, 64 + i), (512, 512))) for i in range(40)]
    mine = _changed(options=EngineOptions("tensorrt", tuple(sizes)))
    sizes[30] = EngineProfile((1, 2, 8), ((32, 32), (64, 64), (512, 512)))
    said = mine.mismatch(_changed(options=EngineOptions("tensorrt", tuple(sizes))))
    assert said == (
        "options.profiles[30] batch 1 of 32x32..64x94..512x512, here batch 1..2..8 of 32x32..64x64..512x512"
    )


@needs_rtx
def test_a_wish_for_any_library_has_the_key_of_the_one_that_is_found(semantic_model: Path) -> None:
    key = engine_key(semantic_model, EngineOptions())
    assert key == engine_key(semantic_model, EngineOptions("tensorrt_rtx"))
    assert key.backend == key.options.library == "tensorrt_rtx"
    assert key.gpu is None
    with pytest.raises(BackendUnavailableError, match="GPU"):
        engine_key(semantic_model, EngineOptions("tensorrt"))


@needs_rtx
def test_where_there_is_a_gpu_the_key_is_that_of_the_gpu_chosen(semantic_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "driver"
    folder.mkdir()
    code = f"""
from seginfer import SegInferError
from seginfer._tensorrt.key import engine_key
from seginfer._tensorrt.options import EngineOptions
for index in range(3):
    try:
        print(engine_key({str(semantic_model)!r}, EngineOptions("tensorrt_rtx"), index).gpu)
    except SegInferError as error:
        print(type(error).__name__)
"""
    said = fake_driver.run(fake_driver.install(folder, GPUS=2), code).splitlines()
    assert said == [
        "First GPU, compute capability 8.6, 16 multiprocessors",
        "Second GPU, compute capability 8.9, 8 multiprocessors",
        "BackendUnavailableError",
    ]


def test_the_hash_of_one_file_is_its_sha256(semantic_model: Path) -> None:
    assert onnx_sha256(semantic_model) == hashlib.sha256(semantic_model.read_bytes()).hexdigest()


def test_the_spec_inside_counts(semantic_model: Path) -> None:
    before = onnx_sha256(semantic_model)
    attach_spec(
        semantic_model, replace(SPECS["semantic"], input=replace(SPECS["semantic"].input, scale=1.0)), semantic_model
    )
    assert onnx_sha256(semantic_model) != before


def _save_in_parts(path: Path) -> Path:
    """Save a model whose weights lie in two other files, one of them in a folder."""
    model = make_onnx(SPECS["semantic"])
    (path.parent / "more").mkdir()
    for tensor, location in zip(model.graph.initializer, ("weight.bin", "more/bias.bin"), strict=True):
        (path.parent / location).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    attach_spec(path, SPECS["semantic"], path)
    return path


def test_every_file_that_holds_weights_counts(tmp_path: Path) -> None:
    path = _save_in_parts(tmp_path / "m.onnx")
    assert external_files(path) == (tmp_path / "more" / "bias.bin", tmp_path / "weight.bin")
    hashes, stamps = {onnx_sha256(path)}, {file_stamps(path)}
    for name in ("weight.bin", "more/bias.bin"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        hashes.add(onnx_sha256(path))
        stamps.add(file_stamps(path))
    assert len(hashes) == len(stamps) == 3


def test_the_hash_does_not_depend_on_where_the_files_lie(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    assert len({onnx_sha256(_save_in_parts(folder / "m.onnx")) for folder in folders}) == 1


def test_a_file_of_weights_that_is_missing_is_named(tmp_path: Path) -> None:
    path = _save_in_parts(tmp_path / "m.onnx")
    (tmp_path / "more" / "bias.bin").unlink()
    with refuses(ModelFileError, "m.onnx", "more/bias.bin", "copy that file too"):
        onnx_sha256(path)


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_weights_outside_of_the_models_folder_are_not_read(location: str, tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    model.graph.initializer[0].external_data.add(key="location", value=location)
    path = tmp_path / "folder" / "m.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    (tmp_path / "weights").write_bytes(b"secret")
    with refuses(ModelFileError, "m.onnx", "outside its own folder", "one file"):
        onnx_sha256(path)


def _external(name: str, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _constant(location: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=_external("v", location))


def _branch(depth: int, location: str) -> onnx.GraphProto:
    inner = [_constant(location)] if depth == 0 else [_if(depth - 1, location)]
    return helper.make_graph(inner, "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])])


def _if(depth: int, location: str) -> onnx.NodeProto:
    return helper.make_node("If", ["x"], ["c"], then_branch=_branch(depth, location), else_branch=_branch(0, "e"))


def _with_node(make: Callable[[], onnx.NodeProto], *, in_function: bool = False) -> bytes:
    graph = helper.make_graph([] if in_function else [make()], "g", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if in_function:
        model.functions.append(helper.make_function("d", "f", [], ["c"], [make()], model.opset_import))
    return bytes(model.SerializeToString())


def test_constants_of_nodes_branches_and_functions_count(tmp_path: Path) -> None:
    for name in "we":
        (tmp_path / name).write_bytes(bytes(16))
    path = tmp_path / "m.onnx"
    for content, names in (
        (_with_node(lambda: _constant("w")), "w"),
        (_with_node(lambda: _if(3, "w")), "ew"),
        (_with_node(lambda: _constant("w"), in_function=True), "w"),
    ):
        path.write_bytes(content)
        assert external_files(path) == tuple(tmp_path / name for name in names)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    """The onnx package writes no such file, so this one is put together from the numbers of its fields."""
    content = b""
    for _ in range(200):
        for number in (6, 5, 1):  # a graph in an attribute in a node
            content = bytes([number << 3 | 2]) + _varint(len(content)) + content
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes([7 << 3 | 2]) + _varint(len(content)) + content)
    with refuses(ModelFileError, "more than 32 deep"):
        external_files(path)


def _varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7) if value > 0x7F else bytes([value])


def test_a_model_file_that_is_none_has_no_hash(tmp_path: Path) -> None:
    for look in (onnx_sha256, file_stamps, file_sha256, file_stamp):
        with refuses(MissingFileError, "nowhere.onnx"):
            look(tmp_path / "nowhere.onnx")
    with refuses(ModelFileError, "cannot read", "x" * 300):
        file_stamp(tmp_path / ("x" * 300))
    whole = save_model(tmp_path / "m.onnx", SPECS["semantic"]).read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
    with refuses(ModelFileError, "m.onnx"):
        onnx_sha256(tmp_path / "m.onnx")
