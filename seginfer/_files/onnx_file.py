"""Signature, metadata and hash of an .onnx file, without the onnx package.

An .onnx file is one protobuf message. Only field headers are read. Weights are skipped and never copied.
Source of field numbers: onnx/onnx.proto (ModelProto, GraphProto, NodeProto, ValueInfoProto, TensorProto).
"""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelFileError
from .._spec.tensor_info import TensorInfo
from .._system.atomic import atomic_path
from .protobuf import (
    BYTES,
    MOST_FIELDS,
    Field,
    MalformedError,
    at_most,
    copy_bytes,
    encode_field,
    map_file,
    read_string_pair,
    read_text,
    walk_fields,
    walk_model,
    walk_nested,
)

MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 7, 8, 14
GRAPH_NODE, GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_NAME, _NODE_OP, _NODE_DOMAIN = 3, 4, 7
_TENSOR_NAME, TENSOR_EXTERNAL = 8, 13

_MOST_DIMENSIONS = 64
_MOST_NODES = 1_000_000

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
class OnnxFile:
    """Signature and metadata of an .onnx file."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str]
    opset: int
    has_external_data: bool


class NodeInfo(NamedTuple):
    """A node of a graph."""

    name: str
    """May be empty."""
    op: str
    domain: str
    """Empty for operators of ONNX."""


def read_onnx(path: str | Path) -> OnnxFile:
    """Read the signature and metadata of an .onnx file.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    with map_file(path) as data:
        try:
            fields = list(walk_model(data))
            graphs = [f for f in fields if f.number == MODEL_GRAPH and f.wire == BYTES]
            if len(graphs) != 1:
                raise MalformedError("it holds no graph")
            metadata = dict(read_string_pair(data, f) for f in fields if f.number == _MODEL_METADATA)
            return _onnx_file(data, graphs[0], metadata, _opset(data, fields))
        except (MalformedError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error


def read_nodes(path: str | Path) -> tuple[NodeInfo, ...]:
    """Read the nodes of an .onnx file.

    Nodes inside control flow and functions are left out.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    with map_file(path) as data:
        try:
            graphs = [f for f in walk_model(data) if f.number == MODEL_GRAPH]
            nodes = (node for graph in graphs for node in walk_nested(data, graph, GRAPH_NODE))
            return tuple(_node_info(data, node) for node in at_most(_MOST_NODES, nodes))
        except (MalformedError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error


def graph_sha256(path: str | Path, *, ignore: str) -> str:
    """Return the SHA-256 of an .onnx file without one metadata entry.

    It is equal before and after the entry `ignore` is attached.
    """
    digest = hashlib.sha256()
    with map_file(path) as data:
        for start, end in _spans_without(data, ignore, path):
            digest.update(memoryview(data)[start:end])
    return digest.hexdigest()


def write_metadata(source: str | Path, target: str | Path, key: str, value: str) -> None:
    """Copy an .onnx file atomically, with a metadata entry set.

    An older entry of the same key is replaced. `target` may be `source`.
    """
    entry = encode_field(1, key.encode()) + encode_field(2, value.encode())
    with atomic_path(target) as part, open(part, "wb") as out:
        with map_file(source) as data:
            for start, end in _spans_without(data, key, source):
                copy_bytes(data, start, end, out)
        out.write(encode_field(_MODEL_METADATA, entry))


def _opset(data: mmap.mmap, fields: list[Field]) -> int:
    for field in fields:
        if field.number == _MODEL_OPSET and read_text(data, field, 1) in ("", "ai.onnx"):
            return max((f.value for f in walk_nested(data, field, 2)), default=0)
    raise MalformedError("it names no operator set")


def _onnx_file(data: mmap.mmap, graph: Field, metadata: dict[str, str], opset: int) -> OnnxFile:
    weights: set[str] = set()
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    external = False
    for field in walk_fields(data, graph.value, graph.end):
        if field.number == GRAPH_INITIALIZER:
            weights.add(read_text(data, field, _TENSOR_NAME))
            external |= any(True for _ in walk_nested(data, field, TENSOR_EXTERNAL))
        elif field.number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            tensors = inputs if field.number == _GRAPH_INPUT else outputs
            tensors.append(_tensor_info(data, field))
            if len(tensors) > MOST_FIELDS:
                raise MalformedError(f"it has more than {MOST_FIELDS} inputs or outputs")
    real = tuple(info for info in inputs if info.name not in weights)  # before IR version 4, weights are inputs too
    return OnnxFile(real, tuple(outputs), metadata, opset, external)


def _tensor_info(data: mmap.mmap, field: Field) -> TensorInfo:
    shape: tuple[int | str, ...] = ()
    dtype = "unknown"
    for type_proto in walk_nested(data, field, 2):
        for tensor in walk_nested(data, type_proto, 1):
            dtype = next((_DTYPES.get(f.value, "unknown") for f in walk_nested(data, tensor, 1)), "unknown")
            for dims in walk_nested(data, tensor, 2):
                shape = tuple(_dimension(data, dim) for dim in at_most(_MOST_DIMENSIONS, walk_nested(data, dims, 1)))
    return TensorInfo(read_text(data, field, 1), shape, dtype)


def _node_info(data: mmap.mmap, field: Field) -> NodeInfo:
    name, op, domain = (read_text(data, field, number) for number in (_NODE_NAME, _NODE_OP, _NODE_DOMAIN))
    return NodeInfo(name, op, "" if domain == "ai.onnx" else domain)


def _dimension(data: mmap.mmap, field: Field) -> int | str:
    fixed = [f.value for f in walk_nested(data, field, 1)]
    return fixed[-1] if fixed else (read_text(data, field, 2) or "?")


def _spans_without(data: mmap.mmap, key: str, path: str | Path) -> list[tuple[int, int]]:
    """Return the byte ranges of the file without a metadata entry."""
    try:
        return [
            (f.start, f.end) for f in walk_model(data) if f.number != _MODEL_METADATA or read_text(data, f, 1) != key
        ]
    except (MalformedError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error
