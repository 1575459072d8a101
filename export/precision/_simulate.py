"""Simulation of float16 rounding in float32 graphs.

ONNX Runtime's CPU provider has no float16 kernels. It computes float16 graphs in float32 from end to end, without the
roundings and overflows between operators (seen with 1.31, at every optimisation level). A certificate of such a run
would not hold on a GPU.

The simulated graph computes each operator in float32 and rounds its result to float16 with a pair of explicit casts,
which the runtime keeps. Tensor cores do the same: they multiply float16 and add in float32. A GPU may add in another
order, and a fused kernel may round less.
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
    """Return a float32 graph that rounds float16 values.

    Args:
        model: a graph of float16 and float32 parts. Names, inputs and outputs stay as they are.
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
    """Return a float32 node and casts for each float16 result."""
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
