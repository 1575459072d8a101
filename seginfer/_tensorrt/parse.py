"""Parse ONNX files into TensorRT networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._errors import ModelFileError
from .._files.onnx_file import NodeInfo, read_nodes
from .library import RTX, Library, Message, create, extract_reason, find_error, message_log
from .report import EngineTensor, NodeProblem

# Operators that TensorRT's documentation (onnx-tensorrt, docs/operators.md) lists as supported, and that TensorRT for
# RTX 1.7 cannot build without a GPU: it lacks the plugin, the plugin needs the driver, or there is no kernel.
PLUGIN_OPS = frozenset({"DeformConv", "NonMaxSuppression", "NonZero", "RoiAlign"})

WEIGHTED = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"})
"""Types of layers that multiply by weights, or two tensors with each other."""

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
_MALFORMED = ("MODEL_DESERIALIZE_FAILED", "INVALID_GRAPH")
_UNOPENED = "Failed to open file: "
# Layers that the builder moves or merges into the product before them: an addition may be a bias.
_TRANSPARENT = frozenset({"ELEMENTWISE", "SHUFFLE", "IDENTITY", "SCALE", "SQUEEZE", "UNSQUEEZE"})


class _ParserError(NamedTuple):
    code: str
    position: int
    name: str
    op: str
    text: str


@dataclass(frozen=True)
class ParsedNetwork:
    """A parsed network. Its builder and parser must outlive it."""

    library: Library
    builder: Any
    parser: Any
    network: Any
    nodes: tuple[NodeInfo, ...]
    problems: tuple[NodeProblem, ...]
    """Nodes that could not be parsed; empty if the network is complete."""
    layers: int
    """Number of layers that the parser made of the nodes."""

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Inputs of the network."""
        return tuple(_read_tensor(self.network.get_input(i)) for i in range(self.network.num_inputs))

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Outputs of the network."""
        return tuple(_read_tensor(self.network.get_output(i)) for i in range(self.network.num_outputs))


def parse(library: Library, path: str | Path) -> ParsedNetwork:
    """Parse an ONNX file into a strongly typed network.

    Every tensor keeps the data type that it has in the file.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is not a complete and valid ONNX model.
        BackendUnavailableError: if the library does not start.
    """
    nodes = read_nodes(path)
    log = message_log(library)
    with log.collect() as messages:
        builder = create(library, "Builder", log)
        network, parser = _create_network(library, builder)
        is_parsed = parser.parse_from_file(str(path))
        errors = [] if is_parsed else _copy_errors(parser)
        _refuse_malformed(errors, messages, path)
        if errors:
            errors += _find_capability_errors(library, builder, path)
        problems = _find_problems(library, errors, nodes, messages)
    return ParsedNetwork(library, builder, parser, network, nodes, problems, network.num_layers)


def protect_fp32_nodes(library: Library, network: Any) -> None:
    """Keep float32 products of a float16 network in float32.

    Inserts a leaky ReLU with slope 1 between every float32 product and the cast of it to a smaller float. It returns
    every number, infinity and NaN unchanged, and costs no kernel: it is fused with the cast.
    """
    # TensorRT for RTX 1.7 builds a float32 convolution or matrix product between two casts from and to float16 in
    # float16, weights included, although the network is strongly typed. Weights beyond 65504, a reason to keep a node
    # in float32, become infinite. No flag or optimization level prevents this; an operator before the cast does.
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    casts = [layer for layer in layers if layer.type.name == "CAST" and _is_narrowing(layer)]
    for cast in casts:
        if _has_product(cast, producers):
            same = network.add_activation(cast.get_input(0), library.module.ActivationType.LEAKY_RELU)
            same.alpha = 1.0
            same.name = f"seginfer: keep float32 before {cast.name}"
            cast.set_input(0, same.get_output(0))


def find_plugin_problems(nodes: tuple[NodeInfo, ...], reasons: dict[str, str]) -> list[NodeProblem]:
    """Find nodes whose operators need a plugin.

    Args:
        nodes: nodes of the graph.
        reasons: known reasons by node label.
    """
    default = "not reached: the parser or builder stops at the first of these"
    found = [(node_label(node, i), node.op) for i, node in enumerate(nodes) if is_plugin(node)]
    return [NodeProblem(name, op, reasons.get(name, default), needs_plugin=True) for name, op in found]


def is_plugin(node: NodeInfo) -> bool:
    """Tell whether TensorRT for RTX lacks a node's operator, unlike TensorRT."""
    return not node.domain and node.op in PLUGIN_OPS


def node_label(node: NodeInfo, index: int) -> str:
    """Return the name of a node, or else "#3" for index 3."""
    return node.name or f"#{index}"


def dtype_name(dtype: Any) -> str:
    """Return the NumPy name of a TensorRT data type."""
    name = str(dtype.name)
    return _DTYPES.get(name, name.lower())


def _create_network(library: Library, builder: Any) -> tuple[Any, Any]:
    # Explicit batch is the only kind of network since TensorRT 10; strong typing, the only kind since 11.
    network = builder.create_network(1 << int(library.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return network, library.module.OnnxParser(network, message_log(library).logger)


def _copy_errors(parser: Any) -> list[_ParserError]:
    """Copy the parser's errors, which it owns."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return [_ParserError(e.code().name, e.node(), e.node_name(), e.node_operator(), e.desc()) for e in errors]


def _find_capability_errors(library: Library, builder: Any, path: str | Path) -> list[_ParserError]:
    """Return the errors of a capability check.

    In some versions it names more nodes than a failed parse.
    """
    network, parser = _create_network(library, builder)
    parser.supports_model_v2(Path(path).read_bytes(), str(path))
    errors = _copy_errors(parser)
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
    reason = extract_reason(malformed.text) or malformed.code
    raise ModelFileError(f"{path} is not a valid ONNX graph ({reason}); check it with onnx.checker, or export it again")


def _find_problems(
    library: Library, errors: list[_ParserError], nodes: tuple[NodeInfo, ...], messages: list[Message]
) -> tuple[NodeProblem, ...]:
    problems = {(p.name, p.op): p for p in (_describe(error, nodes, messages) for error in errors)}
    if problems and library.name == RTX:
        reasons = {problem.name: problem.reason for problem in problems.values()}
        problems |= {(p.name, p.op): p for p in find_plugin_problems(nodes, reasons)}
    return tuple(problems.values())


def _describe(error: _ParserError, nodes: tuple[NodeInfo, ...], messages: list[Message]) -> NodeProblem:
    name = error.name
    if not name and 0 <= error.position < len(nodes):
        name = node_label(nodes[error.position], error.position)
    reason, cause = extract_reason(error.text), find_error(messages, skip_parser=True)
    if not error.op:  # of an input, where the parser reports the failure and the network its cause
        reason, cause = cause, reason
    if reason or cause:
        return NodeProblem(name, error.op, reason or cause)
    # For operators without an importer, the parser's message is a mere "false".
    text = error.text.strip().partition("\n")[0]
    text = f"the parser has no importer for {error.op}" if text == "false" else text or error.code
    return NodeProblem(name, error.op, text)


def _read_tensor(tensor: Any) -> EngineTensor:
    return EngineTensor(tensor.name, dtype_name(tensor.dtype), tuple(tensor.shape))


def _is_narrowing(cast: Any) -> bool:
    return cast.get_input(0).dtype.name == "FLOAT" and cast.get_output(0).dtype.name in ("HALF", "BF16")


def _has_product(cast: Any, producers: dict[str, Any]) -> bool:
    """Tell whether a product is cast, perhaps shifted, scaled or reshaped."""
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
