"""simulate_fp16(): a float32 graph that yields what a float16 graph yields on hardware that really rounds.

ONNX Runtime's CPU provider has no float16 kernels: it computes such a graph in float32 from end to end and leaves out
the roundings between its operators, overflow included (seen with 1.31, at every optimisation level). A certificate
of such a run would say nothing about a GPU. The simulate_fp16 computes each operator in float32, rounds its result to
float16 with a pair of explicit casts, which the runtime keeps, and goes on from there: what tensor cores do, which
multiply float16 and add in float32. The order of additions may differ on a GPU, and a fused kernel may round less.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, helper, numpy_helper

from ._graph import FLOAT, HALF, tensor_types

# These choose among values that are rounded already.
_CHOOSING = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Concat", "Split", "Slice", "Expand"}
    | {"Gather", "Pad", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "MaxPool", "Max", "Min", "Clip", "Where"}
)


def simulate_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float32 graph with a rounding to float16 wherever `model` holds a float16 value.

    Args:
        model: a graph of float16 and float32 parts; names, inputs and outputs stay as they are.
    """
    types = tensor_types(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:], graph.value_info[:], graph.initializer[:]
    for tensor in model.graph.initializer:
        is_half = tensor.data_type == HALF
        values = numpy_helper.to_array(tensor).astype("float32") if is_half else None
        graph.initializer.append(tensor if values is None else numpy_helper.from_array(values, tensor.name))
    inputs = {value.name for value in model.graph.input if types[value.name] == HALF}
    graph.node.extend(helper.make_node("Cast", [name], [f"{name}/wide"], to=FLOAT) for name in sorted(inputs))
    for node in model.graph.node:
        graph.node.extend(_round_outputs(node, types, inputs))
    return result


def _round_outputs(node: NodeProto, types: dict[str, int], inputs: set[str]) -> list[NodeProto]:
    """Return the node in float32, and a pair of casts for each float16 result."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for i, name in enumerate(node.input):
        if name in inputs:
            copy.input[i] = f"{name}/wide"
    casts = []
    for i, name in enumerate(node.output):
        if types.get(name) == HALF and node.op_type not in _CHOOSING:
            copy.output[i] = f"{name}/exact"
            casts.append(helper.make_node("Cast", [copy.output[i]], [f"{name}/half"], to=HALF))
            casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=FLOAT))
    for attribute in copy.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == HALF:
            attribute.i = FLOAT
    return [copy, *casts]
