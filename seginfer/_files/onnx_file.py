"""Signature, metadata and hash of an .onnx file, without the onnx package.

An .onnx file is one protobuf message. Only field headers are read. Weights are skipped and never copied.
Source of field numbers: onnx/onnx.proto (ModelProto, GraphProto, NodeProto, ValueInfoProto, TensorProto).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .._spec.tensor_info import UNKNOWN_SHAPE, TensorInfo
from .._system.atomic import atomic_path
from .external import GRAPH_INITIALIZER, GRAPH_NODE, MODEL_GRAPH, find_locations
from .protobuf import (
    BYTES,
    MOST_FIELDS,
    Field,
    FileBytes,
    MalformedError,
    at_most,
    encode_field,
    read_string_pair,
    read_text,
    walk_fields,
    walk_model,
    walk_nested,
)

_MODEL_OPSET, _MODEL_METADATA = 8, 14
_GRAPH_INPUT, _GRAPH_OUTPUT = 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_DOMAIN = 1, 2, 3, 4, 7
_NODE_TEXTS = frozenset((_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_DOMAIN))
_TENSOR_NAME = 8

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
    weight_files: tuple[str, ...]
    """Names of files with external weights, relative to the folder of the model."""


class NodeInfo(NamedTuple):
    """A node of a graph."""

    name: str
    """May be empty."""
    op: str
    domain: str
    """Empty for operators of ONNX."""
    inputs: tuple[str, ...] = ()
    """Names of tensors. A name is empty where an optional one is left out."""
    outputs: tuple[str, ...] = ()


def read_onnx(path: str | Path) -> OnnxFile:
    """Read the signature and metadata of an .onnx file.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    with FileBytes(path) as data:
        fields = list(walk_model(data))
        graphs = [f for f in fields if f.number == MODEL_GRAPH and f.wire == BYTES]
        if len(graphs) != 1:
            raise MalformedError("it holds no graph")
        metadata = dict(read_string_pair(data, f) for f in fields if f.number == _MODEL_METADATA)
        signature = _signature(data, graphs[0])
        return OnnxFile(*signature, metadata, _opset(data, fields), find_locations(data))


def read_nodes(path: str | Path) -> tuple[NodeInfo, ...]:
    """Read the nodes of an .onnx file.

    Nodes inside control flow and functions are left out.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    with FileBytes(path) as data:
        graphs = [f for f in walk_model(data) if f.number == MODEL_GRAPH]
        nodes = (node for graph in graphs for node in walk_nested(data, graph, GRAPH_NODE))
        return tuple(_node_info(data, node) for node in at_most(_MOST_NODES, nodes))


def graph_sha256(path: str | Path, *, ignore: str) -> str:
    """Return the SHA-256 of an .onnx file without one metadata entry.

    It is equal before and after the entry `ignore` is attached.
    """
    digest = hashlib.sha256()
    with FileBytes(path) as data:
        for start, end in _spans_without(data, ignore):
            for chunk in data.chunks(start, end):
                digest.update(chunk)
    return digest.hexdigest()


def write_metadata(source: str | Path, target: str | Path, key: str, value: str) -> None:
    """Copy an .onnx file atomically, with a metadata entry set.

    An older entry of the same key is replaced. `target` may be `source`.
    """
    entry = encode_field(1, key.encode()) + encode_field(2, value.encode())
    with atomic_path(target) as part, open(part, "wb") as out:
        with FileBytes(source) as data:
            for start, end in _spans_without(data, key):
                out.writelines(data.chunks(start, end))
        out.write(encode_field(_MODEL_METADATA, entry))


def _opset(data: FileBytes, fields: list[Field]) -> int:
    for field in fields:
        if field.number == _MODEL_OPSET and read_text(data, field, 1) in ("", "ai.onnx"):
            return max((f.value for f in walk_nested(data, field, 2)), default=0)
    raise MalformedError("it names no operator set")


def _signature(data: FileBytes, graph: Field) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return inputs and outputs of a graph."""
    weights: set[str] = set()
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    for field in at_most(_MOST_NODES, walk_fields(data, graph.value, graph.end)):
        if field.number == GRAPH_INITIALIZER:
            weights.add(read_text(data, field, _TENSOR_NAME))
        elif field.number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            tensors = inputs if field.number == _GRAPH_INPUT else outputs
            tensors.append(_tensor_info(data, field))
            if len(tensors) > MOST_FIELDS:
                raise MalformedError(f"it has more than {MOST_FIELDS} inputs or outputs")
    # Before IR version 4, weights are inputs too.
    return tuple(info for info in inputs if info.name not in weights), tuple(outputs)


def _tensor_info(data: FileBytes, field: Field) -> TensorInfo:
    shape: tuple[int | str, ...] = UNKNOWN_SHAPE
    dtype = "unknown"
    for type_proto in walk_nested(data, field, 2):
        for tensor in walk_nested(data, type_proto, 1):
            dtype = next((_DTYPES.get(f.value, "unknown") for f in walk_nested(data, tensor, 1)), "unknown")
            for dims in walk_nested(data, tensor, 2):
                shape = tuple(_dimension(data, dim) for dim in at_most(_MOST_DIMENSIONS, walk_nested(data, dims, 1)))
    return TensorInfo(read_text(data, field, 1), shape, dtype)


def _node_info(data: FileBytes, field: Field) -> NodeInfo:
    if field.wire != BYTES:
        raise MalformedError(f"bad field at byte {field.start}")
    texts: dict[int, list[str]] = {}
    for part in walk_fields(data, field.value, field.end):
        if part.number in _NODE_TEXTS and part.wire == BYTES:
            texts.setdefault(part.number, []).append(data.read(part.value, part.end).decode())
    name, op, domain = (texts.get(number, [""])[-1] for number in (_NODE_NAME, _NODE_OP, _NODE_DOMAIN))
    tensors = (tuple(texts.get(number, ())) for number in (_NODE_INPUT, _NODE_OUTPUT))
    return NodeInfo(name, op, "" if domain == "ai.onnx" else domain, *tensors)


def _dimension(data: FileBytes, field: Field) -> int | str:
    fixed = [f.value for f in walk_nested(data, field, 1)]
    # Some exporters write -1 or 0 for a dimension that varies. Negative numbers have their highest bit set.
    return fixed[-1] if fixed and 0 < fixed[-1] < 1 << 63 else (read_text(data, field, 2) or "?")


def _spans_without(data: FileBytes, key: str) -> list[tuple[int, int]]:
    """Return the byte ranges of the file without a metadata entry."""
    return [(f.start, f.end) for f in walk_model(data) if f.number != _MODEL_METADATA or read_text(data, f, 1) != key]
