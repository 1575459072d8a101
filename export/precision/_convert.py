"""Rewrite of an fp32 graph to float16."""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ._fp32_nodes import to_half
from ._graph import ANY_TYPE, FLOAT, HALF, Graph, key_of

_SUFFIX: dict[int, str] = {FLOAT: "float32", HALF: "float16"}


def to_float16(graph: Graph, fp32_nodes: Collection[str]) -> onnx.ModelProto:
    """Return a graph with float16 weights and activations.

    Every tensor keeps its name in the type that its producer yields. One Cast serves all nodes that need another type.
    A Cast of the fp32 graph is made anew from its source, so that no Cast follows another.

    Args:
        graph: the fp32 graph, not modified.
        fp32_nodes: keys of nodes that stay in float32. All producers of graph outputs must be among them.
    """
    return _Converter(graph, fp32_nodes).convert()


class _Converter:
    def __init__(self, graph: Graph, fp32_nodes: Collection[str]) -> None:
        self._graph = graph
        self._half = {key_of(node) for node in graph.computing_nodes()} - set(fp32_nodes)
        self._types = dict(graph.types)
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._casts: dict[tuple[str, int], str] = {}

    def convert(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._graph.model)
        needed = {*self._graph.outputs, *self._graph.captured}
        for node in self._graph.nodes:
            if not (self._graph.is_cast_of_pixels(node) and needed.isdisjoint(node.output)):
                self._add(node)
        del model.graph.node[:]
        model.graph.node.extend(self._nodes)
        self._replace_constants(model.graph)
        self._retype(model.graph)
        return model

    def _add(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        is_half = key_of(node) in self._half
        for i, name in enumerate(node.input):
            if node.op_type in ANY_TYPE:
                copy.input[i] = self._source(name)
            elif self._graph.types.get(name) == FLOAT:
                copy.input[i] = self._as_type(
                    name, HALF if is_half and self._graph.takes_half(node, i) else FLOAT, node
                )
        if is_half:
            self._types.update({name: HALF for name in node.output if self._types.get(name) == FLOAT})
        self._nodes.append(copy)

    def _as_type(self, name: str, wanted: int, node: NodeProto) -> str:
        if name in self._graph.constants:
            return self._constant(name, wanted, node)
        source = self._source(name)
        if self._types[source] == wanted:
            return source
        if (source, wanted) not in self._casts:
            result = f"{source}/{_SUFFIX[wanted]}"
            self._nodes.append(helper.make_node("Cast", [source], [result], name=f"{result}/Cast", to=wanted))
            self._casts[source, wanted] = result
        return self._casts[source, wanted]

    def _source(self, name: str) -> str:
        node = self._graph.producers.get(name)
        return self._source(node.input[0]) if node is not None and self._graph.is_cast_of_pixels(node) else name

    def _constant(self, name: str, wanted: int, node: NodeProto) -> str:
        if wanted == FLOAT:
            return name
        saturates = node.op_type == "Clip"
        result = f"{name}/{'bound' if saturates else _SUFFIX[HALF]}"
        if result not in self._constants:
            values = numpy_helper.to_array(self._graph.constants[name])
            self._constants[result] = numpy_helper.from_array(to_half(values, saturate=saturates), result)
        return result

    def _replace_constants(self, graph: onnx.GraphProto) -> None:
        """Add float16 weights, and drop weights that no node reads."""
        graph.initializer.extend(self._constants.values())
        read = {name for node in graph.node for name in node.input} | self._graph.captured | set(self._graph.outputs)
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _retype(self, graph: onnx.GraphProto) -> None:
        """Correct the types in the graph's value_info."""
        made = {name for node in graph.node for name in node.output}
        kept = [value for value in graph.value_info if value.name in made]
        for value in kept:
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.elem_type = self._types[value.name]
        del graph.value_info[:]
        graph.value_info.extend(kept)
