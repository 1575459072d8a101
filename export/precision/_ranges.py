"""Ranges of activations, and multiplications of layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from ._graph import FLOAT, MULTIPLYING, Graph, attribute_of, key_of
from ._session import Session

_INT64 = onnx.TensorProto.INT64


class Ranges(NamedTuple):
    """Observations of a graph."""

    largest: dict[str, float]
    """Largest absolute value of each float32 tensor over all batches. NaN if a value was NaN."""
    macs: dict[str, int]
    """Multiplications and additions of each multiplying node for the first batch, by node key."""


def observe(graph: Graph, batches: Iterable[NDArray[Any]]) -> Ranges:
    """Run the fp32 graph on batches, and record its ranges.

    The graph computes the maxima itself, so a single number of each tensor leaves it.
    """
    names = [name for name in _float_tensors(graph) if name not in graph.constants]
    layers = [node for node in graph.computing_nodes() if node.op_type in MULTIPLYING]
    operands = list(dict.fromkeys(name for node in layers for name in (*node.input, *node.output) if name))
    session = Session(_add_observers(graph, names, operands))
    largest: NDArray[Any] = np.zeros(len(names))
    shapes: dict[str, tuple[int, ...]] = {}
    for batch in batches:
        results = session.run(batch)
        largest = np.maximum(largest, [float(results[f"{name}/largest"]) for name in names])
        if not shapes:
            shapes = {name: tuple(results[f"{name}/shape"].tolist()) for name in operands}
    macs = {key_of(node): _macs(node, shapes) for node in layers}
    return Ranges(dict(zip(names, largest.tolist(), strict=True)), macs)


def _float_tensors(graph: Graph) -> list[str]:
    produced = [name for node in graph.nodes for name in node.output if graph.types.get(name) == FLOAT]
    return [value.name for value in graph.model.graph.input if graph.types[value.name] == FLOAT] + produced


def _add_observers(graph: Graph, names: list[str], operands: list[str]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for name in names:
        result = f"{name}/largest"
        model.graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"]))
        model.graph.node.append(helper.make_node("ReduceMax", [f"{name}/abs"], [result], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info(result, FLOAT, []))
    for name in operands:
        result = f"{name}/shape"
        model.graph.node.append(helper.make_node("Shape", [name], [result]))
        model.graph.output.append(helper.make_tensor_value_info(result, _INT64, None))
    return model


def _macs(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    first, second, result = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":
        return math.prod(result) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if node.op_type == "Einsum":
        return _einsum_macs(attribute_of(node, "equation").decode(), first, second)
    inner = first[0] if attribute_of(node, "transA", 0) else first[-1]
    return math.prod(result) * inner


def _einsum_macs(equation: str, *shapes: tuple[int, ...]) -> int:
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes = {
        letter: size
        for term, shape in zip(terms, shapes, strict=False)
        for letter, size in zip(term, shape, strict=False)
    }
    return math.prod(sizes.values())
