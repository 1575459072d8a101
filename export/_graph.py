"""Translation of exported programs to ONNX graphs, and their files."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch.export import ExportedProgram

from seginfer._errors import ExportError
from seginfer._files.model_file import METADATA_KEY
from seginfer._spec.model_spec import InputSpec, ModelSpec

from ._program import export_error, locals_of, quiet

OPSET = 18
IR_VERSION = 8  # enough for opset 18; older runtimes on devices refuse newer ones

_SCOPES = "pkg.torch.onnx.name_scopes"  # what torch calls the path of modules to a node
_WRAPPER = "module."  # Network holds the user's module under this name


def onnx_graph(program: ExportedProgram, spec: ModelSpec) -> onnx.ModelProto:
    """Translate a program to ONNX.

    Nodes are called `<module path>/<operator>`, initializers as in the module's state dict.

    Raises:
        ExportError: if an operator has no ONNX form. The message names it and the module that calls it.
    """
    try:
        with quiet():
            result = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.input.name],
                output_names=[output.name for output in spec.outputs],
                verbose=False,
            )
    except Exception as error:  # torch.onnx wraps every failure in its own kinds
        raise _translation_error(error) from error
    if result is None:
        raise ExportError("torch.onnx.export returned no program; update torch")
    model: onnx.ModelProto = result.model_proto
    _name_initializers(model.graph)
    _name_nodes(model.graph)
    _name_dimensions(model.graph, spec.input)
    _strip(model)
    model.producer_name = "seginfer"
    model.ir_version = IR_VERSION
    return model


def write_graph(model: onnx.ModelProto, path: Path) -> int:
    """Check a graph and write it as one file.

    Returns:
        The size of the file in bytes.

    Raises:
        ExportError: if it is not valid ONNX, or larger than the 2 GB that one file may hold.
    """
    try:
        data = model.SerializeToString()
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ExportError(
            f"the exported graph is not valid ONNX of opset {OPSET}: {' '.join(str(error).split())}; "
            "use other operators in the module, or report this with it"
        ) from error
    return path.write_bytes(data)


def append_spec(path: Path, graph_size: int, spec: ModelSpec) -> None:
    """Write a spec behind a graph, or replace it.

    Args:
        path: a file of `write_graph`. It is changed in place, so it must be a temporary one.
        graph_size: as `write_graph` returned it.
        spec: the model's contract.
    """
    # Fields of a protobuf message may come in any order: the metadata can follow a graph that is not written again.
    entry = onnx.ModelProto()
    entry.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
    with open(path, "r+b") as file:
        file.truncate(graph_size)
        file.seek(graph_size)
        file.write(entry.SerializeToString())


def module_path(node: torch.fx.Node) -> str:
    """Return the path of a node's module, "" for the outermost."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(next(reversed(stack.values()))[0]) if stack else ""
    return _without_wrapper(path)


def _without_wrapper(path: str) -> str:
    return f"{path}.".removeprefix(_WRAPPER).rstrip(".")


def _translation_error(error: Exception) -> ExportError:
    """Return an error that names the operator and its module."""
    nodes = [node for node in locals_of(error, "node") if isinstance(node, torch.fx.Node)]
    if not nodes:
        return export_error(error, "")
    return export_error(
        error, module_path(nodes[0]), f"{nodes[0].target} has no ONNX form: use other operators in that module"
    )


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name nodes `<module path>/<operator>`, numbered where names would repeat."""
    weights = {tensor.name for tensor in graph.initializer}
    seen: Counter[str] = Counter()
    for node in graph.node:
        # A convolution that absorbed its normalization has that module's path. Its weight has the right one.
        own = [name.removesuffix(".weight") for name in node.input if name in weights and name.endswith(".weight")]
        path = own[0] if own else _scope(node)
        name = f"{path}/{node.op_type}" if path else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _scope(node: onnx.NodeProto) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    modules = ["", *ast.literal_eval(scopes)[:-1]]  # outermost first; the last entry is the operator itself
    return _without_wrapper(modules[-1])


def _name_dimensions(graph: onnx.GraphProto, spec: InputSpec) -> None:
    """Replace torch's symbols of dynamic sizes (s40) by names."""
    k = spec.multiple_of
    height, width = ("height", "width") if k == 1 else (f"height_{k}", f"width_{k}")
    names = ("batch", "channels", height, width) if spec.layout == "NCHW" else ("batch", height, width, "channels")
    shape = graph.input[0].type.tensor_type.shape.dim
    symbols = {s: name for dim, name in zip(shape, names, strict=True) for s in re.findall(r"s\d+", dim.dim_param)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\bs\d+\b", lambda found: symbols.get(found[0], found[0]), dim.dim_param)


def _name_initializers(graph: onnx.GraphProto) -> None:
    """Drop the wrapper's name from the weights' names."""
    taken = {value.name for value in (*graph.input, *graph.output)}
    taken |= {name for nested in _walk_graphs(graph) for node in nested.node for name in node.output}
    names = {tensor.name: tensor.name.removeprefix(_WRAPPER) for tensor in graph.initializer}
    names = {old: new for old, new in names.items() if new not in taken}
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)
    for nested in _walk_graphs(graph):
        for node in nested.node:
            node.input[:] = [names.get(name, name) for name in node.input]


def _walk_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs inside its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _walk_graphs(attribute.g)


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and other notes of the exporter."""
    # They hold paths of the machine that exported.
    for graph in (*_walk_graphs(model.graph), *model.functions):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for name in ("input", "output", "value_info", "initializer"):
            for value in getattr(graph, name, ()):
                if not isinstance(value, str):  # a function lists its inputs and outputs by name
                    value.doc_string = ""
                    del value.metadata_props[:]
    model.doc_string = ""
    del model.metadata_props[:]
