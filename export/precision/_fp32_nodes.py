"""Choice of nodes that must stay in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from ._graph import ANY_TYPE, FLOAT, MULTIPLYING, Graph, attribute_of, key_of, subgraphs
from ._ranges import Ranges

# Reasons, as they appear in the provenance.
HEAD = "head"
SUMS = "sums, exponentials, divisions"
LARGE = "values near the end of float16's range"
SMALL = "values so small that float16 loses digits"
CONSTANTS = "weights that float16 cannot hold"
POSITIONS = "positions"
FOREIGN = "no float16 operator"
SUBGRAPH = "control flow"
BETWEEN = "between float32 nodes"

# An eighth of the range: other images reach other values, and partial sums exceed their result.
_LARGEST = float(np.finfo(np.float16).max) / 8
# Below 2**-14 float16 has a fixed step of 2**-24. A tensor whose largest value is 2**-12 just keeps ten bits.
_SMALLEST = 2.0**-12
# Rounding to eleven bits leaves a relative error below 2**-11 in normal numbers. A larger one means subnormal numbers.
_CONSTANT_ERROR = 2.0**-10
_WINDOW = 64  # pixels that an average may sum in float16

_SUMMING = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"}
    | {"MeanVarianceNormalization", "GlobalAveragePool", "GlobalLpPool", "LpPool", "CumSum", "Softplus"}
    | {"ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "ReduceLogSum"}
    | {"ReduceLogSumExp", "Exp", "Log", "Pow", "Sqrt", "Reciprocal"}
)
_POSITIONS = frozenset({"GridSample", "RoiAlign", "AffineGrid"})


def choose_fp32_nodes(graph: Graph, ranges: Ranges) -> dict[str, str]:
    """Return the reasons of nodes that must stay in float32, by node key."""
    head = _head(graph)
    fp32_nodes = {}
    for node in graph.computing_nodes():
        reason = _reason(node, graph, ranges, head)
        if reason:
            fp32_nodes[key_of(node)] = reason
    return fill_gaps(graph, fp32_nodes)


def fill_gaps(graph: Graph, fp32_nodes: Mapping[str, str]) -> dict[str, str]:
    """Add the cheap nodes between float32 nodes.

    Casts to float16 and back around them would cost time and precision for nothing.
    """
    fp32_nodes = dict(fp32_nodes)
    cheap = [node for node in reversed(graph.computing_nodes()) if node.op_type not in MULTIPLYING]
    half = {key_of(node) for node in graph.computing_nodes()} - fp32_nodes.keys()
    size = -1
    while size != len(half):
        size = len(half)
        for node in cheap:
            if key_of(node) in half and _is_between(node, graph, half):
                half.remove(key_of(node))
                fp32_nodes[key_of(node)] = BETWEEN
    return fp32_nodes


def _reason(node: NodeProto, graph: Graph, ranges: Ranges, head: set[str]) -> str:
    op = node.op_type
    if subgraphs(node) or not graph.captured.isdisjoint(node.output):
        return SUBGRAPH
    if not _has_half(node, graph):
        return FOREIGN
    if op in _SUMMING or _sums_window(node) or (op == "Div" and node.input[1] in graph.varying):
        return SUMS
    if op in _POSITIONS:
        return POSITIONS
    values = [ranges.largest[name] for name in (*node.input, *node.output) if name in ranges.largest]
    if not all(value <= _LARGEST for value in values):  # NaN too
        return LARGE
    if any(0 < value < _SMALLEST for value in values):
        return SMALL
    if not all(_holds(graph, node, i) for i in range(len(node.input))):
        return CONSTANTS
    return HEAD if key_of(node) in head else ""


def _head(graph: Graph) -> set[str]:
    """Return the nodes from the last multiplying layers on.

    They decide near-ties.
    """
    head: set[str] = set()
    names = list(graph.outputs)
    while names:
        node = graph.producers.get(names.pop())
        if node is None or key_of(node) in head:
            continue
        head.add(key_of(node))
        if node.op_type not in MULTIPLYING:
            names += [name for name in node.input if name in graph.varying]
    return head


def _is_between(node: NodeProto, graph: Graph, half: set[str]) -> bool:
    """Return whether the readers and an input of a node are float32."""

    def float32_readers(names: Iterable[str]) -> list[bool]:
        readers = (reader for name in names for reader in graph.consumers[name])
        return [key_of(r) not in half for r in readers if r.op_type not in ANY_TYPE and key_of(r) != key_of(node)]

    def is_wide(name: str) -> bool:
        producer = graph.producers.get(name)
        return producer is None or key_of(producer) not in half or any(float32_readers([name]))

    after = float32_readers(node.output)
    return bool(after) and all(after) and any(is_wide(name) for name in graph.floats(node.input))


def _has_half(node: NodeProto, graph: Graph) -> bool:
    """Return whether the operator takes and yields float16 activations.

    It is False if a type around the node is unknown.
    """
    if attribute_of(node, "dtype") is not None or not all(
        name in graph.types for name in (*node.input, *node.output) if name
    ):
        return False
    activations = {*graph.floats(node.input), *graph.floats(node.output)}
    return all(graph.takes_half(node, i) for i, name in enumerate(node.input) if name in activations) and all(
        graph.yields_half(node, i) for i, name in enumerate(node.output) if name in activations
    )


def _sums_window(node: NodeProto) -> bool:
    return node.op_type == "AveragePool" and int(np.prod(attribute_of(node, "kernel_shape"))) > _WINDOW


def _holds(graph: Graph, node: NodeProto, index: int) -> bool:
    """Return whether float16 holds a constant input."""
    tensor = graph.constants.get(node.input[index])
    if tensor is None or tensor.data_type != FLOAT or not graph.takes_half(node, index):
        return True
    values = numpy_helper.to_array(tensor)
    rounded = to_half(values, saturate=node.op_type == "Clip").astype(np.float64)
    # A bound of Clip outside of the range bounds nothing, so it may saturate.
    if node.op_type == "Clip" and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        return True
    finite = np.isfinite(values)
    if not np.isfinite(rounded[finite]).all():
        return False
    error = np.linalg.norm(rounded[finite] - values[finite])
    return bool(error <= _CONSTANT_ERROR * np.linalg.norm(values[finite].astype(np.float64)))


def to_half(values: NDArray[np.float32], *, saturate: bool = False) -> NDArray[np.float16]:
    """Round to float16. Values beyond its range become infinite, or saturate."""
    limit = np.finfo(np.float16).max
    with np.errstate(over="ignore"):
        return (np.clip(values, -limit, limit) if saturate else values).astype(np.float16)
