"""Float16 graphs: the casts between their parts, their sizes, and how they are simulated."""

from __future__ import annotations

from typing import Any

import half_networks as networks
import numpy as np
import onnx
import torch
from half_graphs import FLOAT, HALF, assert_sound, batches, fp32_graph, types_of
from networks import make_spec
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from seginfer.export.precision._graph import Graph
from seginfer.export.precision._ranges import observe
from seginfer.export.precision._session import Session
from seginfer.export.precision._simulate import simulate_fp16
from seginfer.export.precision.fp16 import Half


def test_a_plain_network_has_two_casts() -> None:
    model = Half(fp32_graph(networks.Body(nn.Identity())), batches(make_spec())).model
    assert [node.op_type for node in model.graph.node].count("Cast") == 2  # into the body, out of it


def test_cheap_operators_between_float32_nodes_join_them() -> None:
    half = Half(fp32_graph(networks.Body(networks.WrittenNorm())), batches(make_spec()))
    assert [node.op_type for node in half.model.graph.node].count("Cast") == 4  # two more around the whole norm
    assert_sound(half.model)


SHAPES = """
<ir_version: 8, opset_import: ["": 18]>
half (float[N, 3, H, W] image) => (float[N, 3, h, w] logits) {
    first = Conv <pads = [1, 1, 1, 1]> (image, w1)
    body = Relu (first)
    batch = Shape <start = 0, end = 2> (body)
    size = Shape <start = 2> (body)
    sizes = Cast <to = 1> (size)
    scaled = Mul (sizes, factor)
    floor = Floor (scaled)
    whole = Cast <to = 7> (floor)
    target = Concat <axis = 0> (batch, whole)
    up = Resize <mode = "linear"> (body, , , target)
    second = Conv <pads = [1, 1, 1, 1]> (up, w2)
    other = Conv (up, w3)
    twice = Exp (second)
    again = Softmax <axis = 1> (second)
    joined = Concat <axis = 1> (twice, again, other)
    logits = Conv (joined, w4)
}
"""


def test_shape_arithmetic_stays_float32_and_casts_are_shared() -> None:
    model = onnx.parser.parse_model(SHAPES)
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 3, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 1, 1), "w4": (3, 48, 1, 1)}
    weights = {name: 0.1 * rng.normal(size=shape) for name, shape in shapes.items()} | {"factor": np.array(1.3)}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    model.graph.initializer.extend(tensors)
    half = Half(model, [rng.normal(size=(1, 3, 100, 31)).astype(np.float32)])
    assert_sound(half.model)
    types = types_of(half.model)
    assert {types[name] for name in ("sizes", "scaled", "floor", "logits")} == {FLOAT}
    assert {types[name] for name in ("body", "up", "second", "other")} == {HALF}
    nodes = {node.output[0]: node for node in half.model.graph.node}
    assert nodes["batch"].input[0] == nodes["size"].input[0] == "body"
    batch = rng.normal(size=(1, 3, 100, 31)).astype(np.float32)
    assert Session(half.simulated).run(batch)["logits"].shape == Session(model).run(batch)["logits"].shape


def test_multiplications_are_counted_as_torch_counts_them() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    middle = nn.Sequential(
        nn.Conv2d(16, 8, 3, groups=4, stride=2, padding=1), nn.ConvTranspose2d(8, 16, 2, stride=2), networks.Attention()
    )
    module, batch = networks.Body(middle).eval(), next(batches(make_spec()))
    with FlopCounterMode(display=False) as counter:
        module(torch.from_numpy(batch))
    counted = observe(Graph(fp32_graph(module)), [batch]).macs
    assert len(counted) == 8
    assert 2 * sum(counted.values()) == counter.get_total_flops()


def halves(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def test_the_simulation_rounds_where_the_cpu_provider_does_not() -> None:
    """The same float16 graph, x -> x * k -> / k: computed with NumPy's float16, it overflows."""
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["x"], ["h"], to=HALF),
        make("Mul", ["h", "k"], ["m"]),
        make("Div", ["m", "k"], ["d"]),
        make("Cast", ["d"], ["y"], to=FLOAT),
    ]
    value = onnx.helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.float16(300), "k")
    graph = onnx.helper.make_graph(nodes, "g", [value("x", FLOAT, [1, 4])], [value("y", FLOAT, [1, 4])], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    x = np.array([[0.1234567, 1.0, -77.7, 300.0]], np.float32)
    expected = halves(halves(halves(x) * np.float32(300)) / np.float32(300))
    assert np.array_equal(Session(simulate_fp16(model)).run(x)["y"], expected)
    assert np.isinf(expected[0, 3])
    assert np.isfinite(Session(model).run(x)["y"]).all()  # why the simulation exists
