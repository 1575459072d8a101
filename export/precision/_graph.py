"""Index of an ONNX graph: types, constants, producers, consumers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, defs, inliner, shape_inference

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16

# These do nearly all arithmetic of a network. Other operators cost memory traffic.
MULTIPLYING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})
ANY_TYPE = frozenset({"Cast", "Shape", "Size"})  # their results do not depend on the precision of their inputs


class Graph:
    """Index of the top level of an fp32 graph.

    Args:
        model: not modified. Functions are inlined and float constants become initializers in a copy.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = _normalise(model)
        self._opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
        graph = self.model.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.outputs: list[str] = [value.name for value in graph.output]
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.types = tensor_types(self.model)
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.captured = {name for node in self.nodes for name in captured_names(node)}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers[name].append(node)
        self.varying = self._find_varying()

    def floats(self, names: Any) -> list[str]:
        """Return the names of float32 activations, not constants or shapes."""
        return [name for name in names if self.types.get(name) == FLOAT and name in self.varying]

    def computing_nodes(self) -> list[NodeProto]:
        """Return the nodes that compute float32 activations, in graph order."""
        return [node for node in self.nodes if self.floats(node.output) and node.op_type != "Cast"]

    def is_cast_of_pixels(self, node: NodeProto) -> bool:
        """Return whether a node only converts activations to float32."""
        return bool(node.op_type == "Cast" and self.floats(node.output))

    def takes_half(self, node: NodeProto, index: int) -> bool:
        """Return whether an input may be float16.

        The scales of a Resize, for example, may not.
        """
        return self._allows_half(node, "inputs", index)

    def yields_half(self, node: NodeProto, index: int) -> bool:
        """Return whether an output may be float16."""
        return self._allows_half(node, "outputs", index)

    def _allows_half(self, node: NodeProto, side: str, index: int) -> bool:
        if node.domain not in ("", "ai.onnx") or not defs.has(node.op_type):
            return False
        schema = defs.get_schema(node.op_type, self._opset)
        formals = getattr(schema, side)
        kind = formals[min(index, len(formals) - 1)].type_str
        constraints = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
        return "tensor(float16)" in constraints.get(kind, [kind])

    def _find_varying(self) -> set[str]:
        """Return the tensors that depend on pixels."""
        # Shape arithmetic and functions of weights alone cost nothing and stay exact.
        varying = {value.name for value in self.model.graph.input}
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and not varying.isdisjoint([*node.input, *captured_names(node)]):
                varying.update(node.output)
        return varying


def key_of(node: NodeProto) -> str:
    """Return a node's first output, which identifies it."""
    return str(node.output[0])


def label_of(node: NodeProto) -> str:
    """Return a node's name for messages."""
    return str(node.name or node.output[0])


def attribute_of(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def subgraphs(node: NodeProto) -> list[onnx.GraphProto]:
    """Return the branches or the loop body of a node."""
    return [graph for a in node.attribute for graph in ([a.g] if a.HasField("g") else a.graphs)]


def captured_names(node: NodeProto) -> Iterator[str]:
    """Yield all names that the subgraphs of a node read."""
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from inner.input
            yield from captured_names(inner)


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the known element types of top-level tensors."""
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values if value.type.HasField("tensor_type")}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _normalise(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    nodes = []
    for node in copy.graph.node:
        tensor = _float_constant(node)
        if tensor is None:
            nodes.append(node)
        else:
            copy.graph.initializer.append(tensor)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _float_constant(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant":
        return None
    tensor = TensorProto()
    values = attribute_of(node, "value_floats", attribute_of(node, "value_float"))
    if values is not None:
        shape = [len(values)] if isinstance(values, (list, tuple)) else []
        tensor.CopyFrom(onnx.helper.make_tensor(node.output[0], FLOAT, shape, values if shape else [values]))
        return tensor
    value = attribute_of(node, "value")
    if value is None or value.data_type != FLOAT:
        return None
    tensor.CopyFrom(value)
    tensor.name = node.output[0]
    return tensor
