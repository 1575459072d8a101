"""External weight files of an .onnx file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .._errors import ModelFileError
from .protobuf import BYTES, Field, FileBytes, MalformedError, read_string_pair, walk_fields, walk_model, walk_nested

# Field numbers of onnx/onnx.proto.
MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
GRAPH_NODE, GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_TENSOR_EXTERNAL = 13
_SPARSE_TENSORS = (1, 2)  # values and indices
_NODE_ATTRIBUTE = 5
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_MOST_GRAPHS_DEEP = 32


def external_files(path: str | Path) -> tuple[Path, ...]:
    """Return the files with external weights of an .onnx file, sorted.

    Raises:
        MissingFileError: if there is no such .onnx file.
        ModelFileError: if it is not a complete ONNX model, or a file with weights is missing or in another folder.
    """
    with FileBytes(path) as data:
        locations = find_locations(data)
    return tuple(beside(path, location) for location in locations)


def find_locations(data: FileBytes) -> tuple[str, ...]:
    """Return the file names of all tensors with external data, sorted.

    These are weights, and constants in attributes of nodes.
    """
    return tuple(sorted(set(_locations(data))))


def _locations(data: FileBytes) -> Iterator[str]:
    for field in walk_model(data):
        if field.number == MODEL_GRAPH:
            yield from _locations_in_graph(data, field, 0)
        elif field.number == _MODEL_FUNCTION:
            for node in walk_nested(data, field, _FUNCTION_NODE):
                yield from _locations_in_node(data, node, 0)
            for attribute in walk_nested(data, field, _FUNCTION_ATTRIBUTE):
                yield from _locations_in_attribute(data, attribute, 0)


def _locations_in_graph(data: FileBytes, graph: Field, depth: int) -> Iterator[str]:
    if depth > _MOST_GRAPHS_DEEP:
        raise MalformedError(f"its graphs are nested more than {_MOST_GRAPHS_DEEP} deep")
    if graph.wire != BYTES:
        raise MalformedError(f"bad field at byte {graph.start}")
    for field in walk_fields(data, graph.value, graph.end):
        if field.number == GRAPH_INITIALIZER:
            yield from _locations_of_tensor(data, field)
        elif field.number == _GRAPH_SPARSE:
            yield from _locations_of_sparse(data, field)
        elif field.number == GRAPH_NODE:
            yield from _locations_in_node(data, field, depth)


def _locations_in_node(data: FileBytes, node: Field, depth: int) -> Iterator[str]:
    for attribute in walk_nested(data, node, _NODE_ATTRIBUTE):
        yield from _locations_in_attribute(data, attribute, depth)


def _locations_in_attribute(data: FileBytes, attribute: Field, depth: int) -> Iterator[str]:
    if attribute.wire != BYTES:
        raise MalformedError(f"bad field at byte {attribute.start}")
    for field in walk_fields(data, attribute.value, attribute.end):
        if field.number in _ATTRIBUTE_TENSORS:
            yield from _locations_of_tensor(data, field)
        elif field.number in _ATTRIBUTE_SPARSE:
            yield from _locations_of_sparse(data, field)
        elif field.number in _ATTRIBUTE_GRAPHS:
            yield from _locations_in_graph(data, field, depth + 1)


def _locations_of_sparse(data: FileBytes, sparse: Field) -> Iterator[str]:
    for number in _SPARSE_TENSORS:
        for tensor in walk_nested(data, sparse, number):
            yield from _locations_of_tensor(data, tensor)


def _locations_of_tensor(data: FileBytes, tensor: Field) -> Iterator[str]:
    pairs = (read_string_pair(data, field) for field in walk_nested(data, tensor, _TENSOR_EXTERNAL))
    return (value for key, value in pairs if key == "location")


def beside(path: str | Path, location: str) -> Path:
    """Return the path of external weights.

    ONNX allows them in the folder of the model and below.

    Raises:
        ModelFileError: if they are elsewhere, or there is no such file.
    """
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise ModelFileError(f"{path} has weights in {location!r}, outside its own folder; save it as one file")
    file = Path(path).parent / relative
    if not file.is_file():
        raise ModelFileError(f"{path} has weights in {location}, which does not exist; copy that file too")
    return file
