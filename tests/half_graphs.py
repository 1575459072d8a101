"""Graphs of float16 networks for the tests, and checks of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from networks import SIZE, make_spec, pictures
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

from seginfer import ModelSpec, preprocess
from seginfer.export._graph import onnx_graph
from seginfer.export._network import Network, eval_mode
from seginfer.export._program import example_batch, export_program

IMAGES = pictures((90, 120), SIZE)
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def batches(spec: ModelSpec) -> Iterator[NDArray[Any]]:
    """Return the network's input for each picture."""
    return (preprocess([image], spec)[0] for image in IMAGES)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


def assert_sound(model: onnx.ModelProto) -> None:
    """Check that a file is valid, that no cast is wasted, and that it still says what it is."""
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [18]
    assert model.ir_version == 8
    assert all(output.type.tensor_type.elem_type in (FLOAT, TensorProto.INT64) for output in model.graph.output)
    types = types_of(model)
    casts = [node for node in model.graph.node if node.op_type == "Cast" and types[node.output[0]] in (FLOAT, HALF)]
    assert len({(cast.input[0], types[cast.output[0]]) for cast in casts}) == len(casts), "a tensor is cast twice"
    assert not {cast.input[0] for cast in casts} & {cast.output[0] for cast in casts}, "a cast reads a cast"
    assert not {cast.input[0] for cast in casts} & {tensor.name for tensor in model.graph.initializer}
    assert all(types[cast.input[0]] != types[cast.output[0]] for cast in casts)
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    assert all(cast.output[0] in read for cast in casts), "a cast that nobody reads"


def fp32_graph(module: nn.Module, spec: ModelSpec | None = None) -> onnx.ModelProto:
    spec = spec or make_spec()
    network = Network(module, spec)
    with eval_mode(module):
        graph: onnx.ModelProto = onnx_graph(
            export_program(network, spec, example_batch(network, spec, None), None), spec
        )
    return graph
