"""Parse an ONNX file into a TensorRT network, and say which nodes cannot be parsed and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._errors import ModelFileError
from .._files.onnx_file import NodeInfo, read_nodes
from .library import RTX, Library, Message, first_error, message_log, reason_of, start
from .report import EngineTensor, NodeProblem

# Operators that TensorRT's documentation (onnx-tensorrt, docs/operators.md) lists as supported, and that TensorRT for
# RTX 1.7 cannot build without a GPU: it lacks the plugin, the plugin needs the driver, or there is no kernel.
PLUGIN_OPS = frozenset({"DeformConv", "NonMaxSuppression", "NonZero", "RoiAlign"})

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
WEIGHTED = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"})
"""Layers that multiply by weights, or two tensors with each other."""

# What the builder moves or merges into the product before it: an addition may be a bias.
_TRANSPARENT = frozenset({"ELEMENTWISE", "SHUFFLE", "IDENTITY", "SCALE", "SQUEEZE", "UNSQUEEZE"})
_SMALL_FLOATS = ("HALF", "BF16")
_KEEP_FLOAT32 = "seginfer: keep float32"
_MALFORMED = ("MODEL_DESERIALIZE_FAILED", "INVALID_GRAPH")
_UNOPENED = "Failed to open file: "


class _ParserError(NamedTuple):
    code: str
    position: int
    name: str
    op: str
    text: str


@dataclass(frozen=True)
class ParsedNetwork:
    """A network, and what owns it: TensorRT's builder must outlive it, and so must the parser with its weights."""

    library: Library
    builder: Any
    parser: Any
    network: Any
    nodes: tuple[NodeInfo, ...]
    problems: tuple[NodeProblem, ...]
    """Why it is not complete; empty if it is."""
    layers: int
    """Layers that the parser made of the nodes."""

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Inputs of the network."""
        return tuple(_tensor(self.network.get_input(i)) for i in range(self.network.num_inputs))

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Outputs of the network."""
        return tuple(_tensor(self.network.get_output(i)) for i in range(self.network.num_outputs))


def parse(library: Library, path: str | Path) -> ParsedNetwork:
    """Parse an ONNX file into a strongly typed network: every tensor keeps the type that the file gives it.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is no complete and valid ONNX model.
        BackendUnavailableError: if the library does not start.
    """
    nodes = read_nodes(path)
    log = message_log(library)
    with log.collect() as messages:
        builder = start(library, "Builder", log)
        network, parser = _network(library, builder)
        is_parsed = parser.parse_from_file(str(path))
        errors = [] if is_parsed else _errors(parser)
        _refuse_malformed(errors, messages, path)
        if errors:
            errors += _capability_errors(library, builder, path)
        problems = _problems(library, errors, nodes, messages)
    return ParsedNetwork(library, builder, parser, network, nodes, problems, network.num_layers)


def protect_islands(library: Library, network: Any) -> None:
    """Put an operator that changes nothing between every float32 product and the cast of it to a smaller float.

    A leaky ReLU with slope 1 returns every number, infinity and NaN as it is, and costs no kernel: it is computed
    where the cast is.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    casts = [layer for layer in layers if layer.type.name == "CAST" and _is_narrowing(layer)]
    for cast in casts:
        if _is_of_product(cast, producers):
            same = network.add_activation(cast.get_input(0), library.module.ActivationType.LEAKY_RELU)
            same.alpha = 1.0
            same.name = f"{_KEEP_FLOAT32} before {cast.name}"
            cast.set_input(0, same.get_output(0))


def plugin_problems(nodes: tuple[NodeInfo, ...], said: dict[str, str]) -> list[NodeProblem]:
    """Return a problem for every node whose operator needs a plugin; `said` are reasons by node label."""
    default = "not reached: the parser or builder stops at the first of these"
    found = [(label(node, i), node.op) for i, node in enumerate(nodes) if is_plugin(node)]
    return [NodeProblem(name, op, said.get(name, default), needs_plugin=True) for name, op in found]


def is_plugin(node: NodeInfo) -> bool:
    """Tell whether the operator of a node is one that TensorRT builds and TensorRT for RTX does not."""
    return not node.domain and node.op in PLUGIN_OPS


def label(node: NodeInfo, index: int) -> str:
    """Return the name of a node, or its number."""
    return node.name or f"#{index}"


def dtype_name(dtype: Any) -> str:
    """Return the name that ONNX and NumPy have for one of the library's data types."""
    name = str(dtype.name)
    return _DTYPES.get(name, name.lower())


def _network(library: Library, builder: Any) -> tuple[Any, Any]:
    # Explicit batch is the only kind of network since TensorRT 10; strong typing, the only kind since 11.
    network = builder.create_network(1 << int(library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return network, library.module.OnnxParser(network, message_log(library).logger)


def _errors(parser: Any) -> list[_ParserError]:
    """Copy the parser's errors, which die with it."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return [_ParserError(e.code().name, e.node(), e.node_name(), e.node_operator(), e.desc()) for e in errors]


def _capability_errors(library: Library, builder: Any, path: str | Path) -> list[_ParserError]:
    """Ask for the capability report, which in some versions names more nodes than a failed parse."""
    network, parser = _network(library, builder)
    parser.supports_model_v2(Path(path).read_bytes(), str(path))
    errors = _errors(parser)
    del parser, network  # in this order: the parser refers to its network
    return errors


def _refuse_malformed(errors: list[_ParserError], messages: list[Message], path: str | Path) -> None:
    malformed = next((error for error in errors if error.code in _MALFORMED), None)
    if malformed is None:
        return
    unopened = next((message.text for message in messages if _UNOPENED in message.text), "")
    if unopened:
        file = unopened.partition(_UNOPENED)[2]
        raise ModelFileError(f"{path} keeps weights in {file}, which cannot be read; copy that file too")
    reason = reason_of(malformed.text) or malformed.code
    raise ModelFileError(f"{path} is not a valid ONNX graph ({reason}); check it with onnx.checker, or export it again")


def _problems(
    library: Library, errors: list[_ParserError], nodes: tuple[NodeInfo, ...], messages: list[Message]
) -> tuple[NodeProblem, ...]:
    problems = {(p.name, p.op): p for p in (_problem(error, nodes, messages) for error in errors)}
    if problems and library.name == RTX:
        said = {problem.name: problem.reason for problem in problems.values()}
        problems |= {(p.name, p.op): p for p in plugin_problems(nodes, said)}
    return tuple(problems.values())


def _problem(error: _ParserError, nodes: tuple[NodeInfo, ...], messages: list[Message]) -> NodeProblem:
    name = error.name
    if not name and 0 <= error.position < len(nodes):
        name = label(nodes[error.position], error.position)
    said, cause = reason_of(error.text), first_error(messages, parser=False)
    # What the parser says of an input is that it failed; the network said why.
    reason = (said or cause) if error.op else (cause or said)
    return NodeProblem(name, error.op, reason or _bare(error))


def _bare(error: _ParserError) -> str:
    """Say what little the parser said: its checks of operators that it does not know end in a mere "false"."""
    said = error.text.strip().partition("\n")[0]
    return f"the parser has no importer for {error.op}" if said == "false" else said or error.code


def _tensor(tensor: Any) -> EngineTensor:
    return EngineTensor(tensor.name, dtype_name(tensor.dtype), tuple(tensor.shape))


def _is_narrowing(cast: Any) -> bool:
    return cast.get_input(0).dtype.name == "FLOAT" and cast.get_output(0).dtype.name in _SMALL_FLOATS


def _is_of_product(cast: Any, producers: dict[str, Any]) -> bool:
    """Tell whether what is cast is a product, perhaps with something added or in another shape."""
    waiting, seen = [cast], set()
    while waiting:
        layer = waiting.pop()
        for i in range(layer.num_inputs):
            tensor = layer.get_input(i)
            source = producers.get(tensor.name) if tensor is not None else None
            if source is None or source.name in seen:
                continue
            seen.add(source.name)
            if source.type.name in WEIGHTED:
                return True
            if source.type.name in _TRANSPARENT:
                waiting.append(source)
    return False
