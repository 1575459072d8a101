"""External weight files of an .onnx file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from .._errors import ModelFileError
from .onnx_file import GRAPH_INITIALIZER, GRAPH_NODE, MODEL_GRAPH, TENSOR_EXTERNAL
from .protobuf import BYTES, Field, MalformedError, map_file, read_string_pair, walk_fields, walk_model, walk_nested

# Field numbers of onnx/onnx.proto.
_MODEL_FUNCTION = 25
_NODE_ATTRIBUTE = 5
_FUNCTION_NODE = 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_MOST_GRAPHS_DEEP = 32


def external_files(path: str | Path) -> tuple[Path, ...]:
    """Return the files with external weights of an .onnx file, sorted.

    Raises:
        MissingFileError: if there is no such .onnx file.
        ModelFileError: if it is not a complete ONNX model, or a file with weights is missing or in another folder.
    """
    with map_file(path) as data:
        try:
            locations = set(_locations(data))
        except (MalformedError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{path} is not a complete ONNX model ({error}); copy or export it again") from error
    return tuple(_beside(path, location) for location in sorted(locations))


def _locations(data: mmap.mmap) -> Iterator[str]:
    """Yield the file name of every tensor with external data.

    These are weights, and constants in attributes of nodes.
    """
    for field in walk_model(data):
        if field.number == MODEL_GRAPH:
            yield from _locations_in_graph(data, field, 0)
        elif field.number == _MODEL_FUNCTION:
            for node in walk_nested(data, field, _FUNCTION_NODE):
                yield from _locations_in_node(data, node, 0)


def _locations_in_graph(data: mmap.mmap, graph: Field, depth: int) -> Iterator[str]:
    if depth > _MOST_GRAPHS_DEEP:
        raise MalformedError(f"its graphs are nested more than {_MOST_GRAPHS_DEEP} deep")
    if graph.wire != BYTES:
        raise MalformedError(f"bad field at byte {graph.start}")
    for field in walk_fields(data, graph.value, graph.end):
        if field.number == GRAPH_INITIALIZER:
            yield from _locations_of_tensor(data, field)
        elif field.number == GRAPH_NODE:
            yield from _locations_in_node(data, field, depth)


def _locations_in_node(data: mmap.mmap, node: Field, depth: int) -> Iterator[str]:
    for attribute in walk_nested(data, node, _NODE_ATTRIBUTE):
        if attribute.wire != BYTES:
            raise MalformedError(f"bad field at byte {attribute.start}")
        for field in walk_fields(data, attribute.value, attribute.end):
            if field.number in _ATTRIBUTE_TENSORS:
                yield from _locations_of_tensor(data, field)
            elif field.number in _ATTRIBUTE_GRAPHS:
                yield from _locations_in_graph(data, field, depth + 1)


def _locations_of_tensor(data: mmap.mmap, tensor: Field) -> Iterator[str]:
    pairs = (read_string_pair(data, field) for field in walk_nested(data, tensor, TENSOR_EXTERNAL))
    return (value for key, value in pairs if key == "location")


def _beside(path: str | Path, location: str) -> Path:
    """Return the path of external weights.

    ONNX allows them in the folder of the model and below.
    """
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise ModelFileError(f"{path} has weights in {location!r}, outside its own folder; save it as one file")
    file = Path(path).parent / relative
    if not file.is_file():
        raise ModelFileError(f"{path} has weights in {location}, which does not exist; copy that file too")
    return file
