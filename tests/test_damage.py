"""Files that were damaged, replaced, cut or moved: refused by name, and the process goes on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import SPECS, make_onnx, save_model
from onnx import TensorProto
from refusal import refuses

from seginfer import MissingFileError, ModelFileError, Segmenter, SpecError, attach_spec, read_model
from seginfer._cli import main
from seginfer._files.external import external_files
from seginfer._files.hashes import with_weights_sha256
from seginfer._files.model_file import METADATA_KEY, certificate_matches, pipeline_sha256
from seginfer._files.onnx_file import graph_sha256, read_nodes, read_onnx, write_metadata
from seginfer._tensorrt.engines import build_engine

SOCCER = Path(__file__).parent.parent / "seginfer" / "assets" / "soccer" / "pitch.onnx"


def certify(path: Path) -> None:
    """Give a file a certificate of its own."""
    spec = read_model(path).spec
    certificate = read_model(SOCCER).spec.provenance.certificate
    assert certificate is not None
    certificate = dataclasses.replace(certificate, pipeline_sha256=pipeline_sha256(path, spec))
    spec = dataclasses.replace(spec, provenance=dataclasses.replace(spec.provenance, certificate=certificate))
    attach_spec(path, spec, path)
    assert certificate_matches(path, spec)


def save_outside(path: Path) -> Path:
    """Save a model whose weights lie in weights.bin beside it, and certify it."""
    model = make_onnx(SPECS["semantic"])
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    attach_spec(path, SPECS["semantic"], path)
    certify(path)
    return path


def test_a_bit_that_flipped_is_seen_when_the_model_is_opened(tmp_path: Path) -> None:
    content = SOCCER.read_bytes()
    path = tmp_path / "m.onnx"
    random = np.random.default_rng(3)
    for position in random.integers(len(content) // 10, len(content) * 9 // 10, 5).tolist():
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with refuses(ModelFileError, "m.onnx", "certificate", "copy or export it again"):
            Segmenter.open(path, device="cpu")
        with refuses(ModelFileError, "m.onnx", "certificate"):
            build_engine(path)
    assert main(["run", str(path), str(SOCCER.parent / "samples"), "-o", str(tmp_path / "out")]) == 2


def test_who_insists_opens_a_file_that_its_certificate_does_not_cover(tmp_path: Path) -> None:
    path = save_outside(tmp_path / "m.onnx")
    weights = np.fromfile(tmp_path / "weights.bin", np.float32)
    (-weights).tofile(tmp_path / "weights.bin")
    with refuses(ModelFileError, "m.onnx", "certificate", "verify=False"):
        Segmenter.open(path, device="cpu")
    with Segmenter.open(path, device="cpu", verify=False) as segmenter:
        assert segmenter(np.full((24, 32, 3), 9, np.uint8)).mask.shape == (24, 32)
    assert main(["info", str(path), "--json"]) == 0
    assert not certificate_matches(path, read_model(path).spec)


def test_a_file_without_a_certificate_is_opened(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model, device="cpu"):
        pass


def test_weights_elsewhere_or_missing_are_refused_before_the_runtime_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_outside(folder / "m.onnx")
    shutil.move(folder / "weights.bin", tmp_path / "weights.bin")
    with refuses(ModelFileError, "weights.bin", "does not exist", "copy that file too"):
        read_model(path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    for read in (read_model, Segmenter.open):
        with refuses(ModelFileError, "../weights.bin", "outside its own folder"):
            read(path)


def test_a_constant_with_weights_elsewhere_counts_for_every_reader(tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    weight = next(t for t in model.graph.initializer if t.name == "weight")
    constant = onnx.helper.make_node("Constant", [], ["weight"], value=weight)
    model.graph.initializer.remove(weight)
    model.graph.node.insert(0, constant)
    tensor = model.graph.node[0].attribute[0].t
    (tmp_path / "constant.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="constant.bin")
    path, elsewhere = tmp_path / "m.onnx", tmp_path / "elsewhere"
    path.write_bytes(model.SerializeToString())
    elsewhere.mkdir()
    assert read_onnx(path).weight_files == ("constant.bin",)
    with refuses(ModelFileError, "into the same folder"):
        attach_spec(path, SPECS["semantic"], elsewhere / "m.onnx")
    assert not list(elsewhere.iterdir())
    before = with_weights_sha256("", path, external_files(path))
    (tmp_path / "constant.bin").write_bytes(bytes(len(weight.raw_data)))
    assert with_weights_sha256("", path, external_files(path)) != before


@contextmanager
def cut_and_grown(path: Path) -> Iterator[None]:
    """Cut a file in place and write it again, over and over, as `cp` and `rsync --inplace` do."""
    content, stop = path.read_bytes(), threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            with open(path, "r+b") as file:
                file.truncate(len(content) // 3)
                file.seek(0)
                file.write(content)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


SCRIPT = """
import sys
from pathlib import Path
import test_damage
test_damage.read_while_it_is_cut(Path(sys.argv[1]))
"""


def read_while_it_is_cut(path: Path) -> None:
    """Read a file that changes meanwhile: right, or a ModelFileError, and no signal."""
    refused = 0
    with cut_and_grown(path):
        for _ in range(40):
            for read in (
                read_onnx,
                read_nodes,
                lambda path: graph_sha256(path, ignore=METADATA_KEY),
                lambda path: write_metadata(path, path.with_name("copy.onnx"), "a", "b"),
            ):
                try:
                    read(path)
                except ModelFileError:
                    refused += 1
    assert refused, "the file was never cut while it was read"


def test_a_file_that_is_cut_while_it_is_read_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    shutil.copyfile(SOCCER, path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["pipe.onnx", "folder.onnx", "a" * 5000, "null\0byte"])
def test_what_is_no_regular_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "pipe.onnx":
        os.mkfifo(path)
    elif name == "folder.onnx":
        path.mkdir()
    with pytest.raises((ModelFileError, MissingFileError)):
        read_model(path)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", SOCCER / "none.onnx"):
        with refuses(MissingFileError, "none.onnx"):
            read_model(path)


def test_a_graph_of_endless_fields_is_refused_soon(tmp_path: Path) -> None:
    """Two-byte fields: a file of a few megabytes would take a minute, and one of a gigabyte hours."""
    content = b"\x40\x00" * 1_500_000  # field 8 of a graph, a number
    path = tmp_path / "m.onnx"
    path.write_bytes(
        b"\x3a"
        + bytes(
            [
                len(content) & 127 | 128,
                len(content) >> 7 & 127 | 128,
                len(content) >> 14 & 127 | 128,
                len(content) >> 21,
            ]
        )
        + content
    )
    with refuses(ModelFileError, "more than 1000000"):
        read_onnx(path)


def test_a_spec_that_is_no_text_is_refused() -> None:
    with refuses(SpecError, "JSON"):
        type(SPECS["semantic"]).from_json("{")


def test_one_spec_cannot_vouch_for_another(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", SPECS["semantic"])
    certify(path)
    spec = read_model(path).spec
    other = dataclasses.replace(spec, input=dataclasses.replace(spec.input, scale=1.0))
    write_metadata(path, path, METADATA_KEY, other.to_json())
    with refuses(ModelFileError, "certificate"):
        Segmenter.open(path, device="cpu")


def sparse_bias(tensor: TensorProto) -> onnx.SparseTensorProto:
    """Return a sparse tensor of one value, which is kept in values.bin."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="values.bin")
    indices = onnx.helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    return onnx.helper.make_sparse_tensor(tensor, indices, [1])


@pytest.mark.parametrize("place", ["initializer", "attribute", "function"])
def test_external_values_of_any_kind_are_found(place: str, tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    tensor = TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[1])
    if place == "initializer":
        model.graph.sparse_initializer.append(sparse_bias(tensor))
    elif place == "attribute":
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["x"], sparse_value=sparse_bias(tensor)))
    else:
        sparse_bias(tensor)
        opsets = [onnx.helper.make_opsetid("", 18)]
        function = onnx.helper.make_function("own", "Act", ["x"], ["y"], [], opsets)
        function.attribute_proto.append(onnx.helper.make_attribute("value", tensor))
        model.functions.append(function)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "values.bin").write_bytes(bytes(4))
    assert read_onnx(path).weight_files == ("values.bin",)
