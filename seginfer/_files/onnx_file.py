"""Read and write what seginfer needs of an .onnx file without the onnx package: signature, metadata, graph hash.

An .onnx file is one protobuf message. Only field headers are walked; weights are skipped, never copied.
Source of field numbers: onnx/onnx.proto (ModelProto, GraphProto, NodeProto, ValueInfoProto, TensorProto).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelFileError
from .._system.atomic import atomic_path
from .protobuf import (
    _BYTES,
    _MOST_FIELDS,
    _at_most,
    _copy,
    _Field,
    _fields,
    _MalformedError,
    _mapped,
    _nested,
    _string_pair,
    _tag,
    _text,
    _top_level,
)

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA, _MODEL_FUNCTION = 7, 8, 14, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 3, 4, 5, 7
_FUNCTION_NODE = 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13

_MOST_DIMENSIONS = 64
_MOST_NODES = 1_000_000
_MOST_GRAPHS_DEEP = 32

# TensorProto.DataType
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and element type of a graph input or output; a dimension is a number or, if it varies, a name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class OnnxFile:
    """What an .onnx file says about itself."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    opset: int
    has_external_data: bool


class NodeInfo(NamedTuple):
    """A node of the graph: its name, which may be empty, its operator, and the operator's domain, empty for ONNX."""

    name: str
    op: str
    domain: str


def read_onnx(path: str | Path) -> OnnxFile:
    """Read signature and metadata of an .onnx file.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    with _mapped(path) as data:
        try:
            fields = list(_top_level(data))
            graphs = [f for f in fields if f.number == _MODEL_GRAPH and f.wire == _BYTES]
            if len(graphs) != 1:
                raise _MalformedError("it holds no graph")
            metadata = dict(_string_pair(data, f) for f in fields if f.number == _MODEL_METADATA)
            return _onnx_file(data, graphs[0], metadata, _opset(data, fields))
        except (_MalformedError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error


def read_nodes(path: str | Path) -> tuple[NodeInfo, ...]:
    """Read name and operator of every node of an .onnx file, without those inside of control flow and functions.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    with _mapped(path) as data:
        try:
            graphs = [f for f in _top_level(data) if f.number == _MODEL_GRAPH]
            nodes = (node for graph in graphs for node in _nested(data, graph, _GRAPH_NODE))
            return tuple(_node_info(data, node) for node in _at_most(_MOST_NODES, nodes))
        except (_MalformedError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error


def external_files(path: str | Path) -> tuple[Path, ...]:
    """Return the files beside an .onnx file that hold weights of it, in the order of their names.

    Raises:
        MissingFileError: if there is no such .onnx file.
        ModelFileError: if it is truncated or is not an ONNX model, or one of these files is missing or elsewhere.
    """
    with _mapped(path) as data:
        try:
            locations = set(_locations(data))
        except (_MalformedError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error
    return tuple(_beside(path, location) for location in sorted(locations))


def graph_sha256(path: str | Path, *, ignore: str) -> str:
    """Return the hash of an .onnx file without the metadata entry `ignore`: equal before and after it is attached."""
    digest = hashlib.sha256()
    with _mapped(path) as data:
        for start, end in _spans_without(data, ignore, path):
            digest.update(memoryview(data)[start:end])
    return digest.hexdigest()


def write_metadata(source: str | Path, target: str | Path, key: str, value: str) -> None:
    """Copy an .onnx file with one metadata entry set; an older entry of that key is replaced. `target` may be `source`.

    The write is atomic: on any failure the old target is intact and nothing half-written is left.
    """
    entry = _tag(1, key.encode()) + _tag(2, value.encode())
    with atomic_path(target) as part, open(part, "wb") as out:
        with _mapped(source) as data:
            for start, end in _spans_without(data, key, source):
                _copy(data, start, end, out)
        out.write(_tag(_MODEL_METADATA, entry))


def _locations(data: mmap.mmap) -> Iterator[str]:
    """Yield the file name of every tensor that lies in another file: weights, and constants of nodes."""
    for field in _top_level(data):
        if field.number == _MODEL_GRAPH:
            yield from _locations_in_graph(data, field, 0)
        elif field.number == _MODEL_FUNCTION:
            for node in _nested(data, field, _FUNCTION_NODE):
                yield from _locations_in_node(data, node, 0)


def _locations_in_graph(data: mmap.mmap, graph: _Field, depth: int) -> Iterator[str]:
    if depth > _MOST_GRAPHS_DEEP:
        raise _MalformedError(f"its graphs lie inside of each other more than {_MOST_GRAPHS_DEEP} deep")
    if graph.wire != _BYTES:
        raise _MalformedError(f"bad field at byte {graph.start}")
    for field in _fields(data, graph.value, graph.end):
        if field.number == _GRAPH_INITIALIZER:
            yield from _locations_of_tensor(data, field)
        elif field.number == _GRAPH_NODE:
            yield from _locations_in_node(data, field, depth)


def _locations_in_node(data: mmap.mmap, node: _Field, depth: int) -> Iterator[str]:
    for attribute in _nested(data, node, _NODE_ATTRIBUTE):
        if attribute.wire != _BYTES:
            raise _MalformedError(f"bad field at byte {attribute.start}")
        for field in _fields(data, attribute.value, attribute.end):
            if field.number in _ATTRIBUTE_TENSORS:
                yield from _locations_of_tensor(data, field)
            elif field.number in _ATTRIBUTE_GRAPHS:
                yield from _locations_in_graph(data, field, depth + 1)


def _locations_of_tensor(data: mmap.mmap, tensor: _Field) -> Iterator[str]:
    pairs = (_string_pair(data, field) for field in _nested(data, tensor, _TENSOR_EXTERNAL))
    return (value for key, value in pairs if key == "location")


def _beside(path: str | Path, location: str) -> Path:
    """Return where weights lie: by the rules of ONNX in the model's own folder or below, never elsewhere."""
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise ModelFileError(f"{path} keeps weights in {location!r}, outside of its own folder; save it as one file")
    file = Path(path).parent / relative
    if not file.is_file():
        raise ModelFileError(f"{path} keeps weights in {location}, which is not there; copy that file too")
    return file


def _opset(data: mmap.mmap, fields: list[_Field]) -> int:
    for field in fields:
        if field.number == _MODEL_OPSET and _text(data, field, 1) in ("", "ai.onnx"):
            return max((f.value for f in _nested(data, field, 2)), default=0)
    raise _MalformedError("it names no operator set")


def _onnx_file(data: mmap.mmap, graph: _Field, metadata: dict[str, str], opset: int) -> OnnxFile:
    weights: set[str] = set()
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    external = False
    for field in _fields(data, graph.value, graph.end):
        if field.number == _GRAPH_INITIALIZER:
            weights.add(_text(data, field, _TENSOR_NAME))
            external |= any(True for _ in _nested(data, field, _TENSOR_EXTERNAL))
        elif field.number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            tensors = inputs if field.number == _GRAPH_INPUT else outputs
            tensors.append(_tensor_info(data, field))
            if len(tensors) > _MOST_FIELDS:
                raise _MalformedError(f"it has more than {_MOST_FIELDS} inputs or outputs")
    real = tuple(info for info in inputs if info.name not in weights)  # IR versions before 4 list weights as inputs
    return OnnxFile(real, tuple(outputs), metadata, opset, external)


def _tensor_info(data: mmap.mmap, field: _Field) -> TensorInfo:
    shape: tuple[int | str, ...] = ()
    dtype = "unknown"
    for type_proto in _nested(data, field, 2):
        for tensor in _nested(data, type_proto, 1):
            dtype = next((_DTYPES.get(f.value, "unknown") for f in _nested(data, tensor, 1)), "unknown")
            for dims in _nested(data, tensor, 2):
                shape = tuple(_dimension(data, dim) for dim in _at_most(_MOST_DIMENSIONS, _nested(data, dims, 1)))
    return TensorInfo(_text(data, field, 1), shape, dtype)


def _node_info(data: mmap.mmap, field: _Field) -> NodeInfo:
    name, op, domain = (_text(data, field, number) for number in (_NODE_NAME, _NODE_OP, _NODE_DOMAIN))
    return NodeInfo(name, op, "" if domain == "ai.onnx" else domain)


def _dimension(data: mmap.mmap, field: _Field) -> int | str:
    fixed = [f.value for f in _nested(data, field, 1)]
    return fixed[-1] if fixed else (_text(data, field, 2) or "?")


def _spans_without(data: mmap.mmap, key: str, path: str | Path) -> list[tuple[int, int]]:
    """Return the byte ranges of the top-level fields, without the metadata entry of `key`."""
    try:
        return [(f.start, f.end) for f in _top_level(data) if f.number != _MODEL_METADATA or _text(data, f, 1) != key]
    except (_MalformedError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error
