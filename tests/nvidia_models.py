"""Small ONNX graphs for NVIDIA's parser: some that it takes, some that it refuses, some that crash it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Value = tuple[str, int, list[Any] | None]

F32, F16, U8, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT64
IMAGE: Value = ("x", F32, [1, 3, 32, 32])
ANY: Value = ("y", F32, None)
WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    """Return a node; names of tensors are separated by spaces, and "-" is one left out."""
    names, outs = (["" if part == "-" else part for part in text.split()] for text in (inputs, outputs))
    return helper.make_node(op, names, outs, name=name, **attributes)


def conv(inputs: str = "x", output: str = "c") -> onnx.NodeProto:
    return node("Conv", f"{inputs} w", output, "encoder.0/Conv", pads=[1, 1, 1, 1])


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[Value] = (IMAGE,),
    outputs: Sequence[Value] = (ANY,),
    opset: int = 18,
    **weights: NDArray[Any],
) -> onnx.ModelProto:
    ins, outs = ([helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs))
    tensors = [numpy_helper.from_array(array, name) for name, array in {"w": WEIGHT, **weights}.items()]
    graph = helper.make_graph(list(nodes), "graph", ins, outs, tensors)
    domains = {node.domain for node in nodes if node.domain}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def roi_align() -> onnx.ModelProto:
    roi = node("RoiAlign", "c rois batch", "y", "roi/RoiAlign", output_height=7, output_width=7, sampling_ratio=2)
    return model([conv(), roi], inputs=(IMAGE, ("rois", F32, [5, 4]), ("batch", I64, [5])))


def non_max_suppression() -> onnx.ModelProto:
    limits: dict[str, Any] = {
        "most": np.array([10]),
        "iou": np.array([0.5], np.float32),
        "score": np.array([0.1], np.float32),
    }
    nodes = [node("NonMaxSuppression", "boxes scores most iou score", name, f"{name}/NMS") for name in ("y", "z")]
    inputs: list[Value] = [("boxes", F32, [1, 100, 4]), ("scores", F32, [1, 2, 100])]
    return model(nodes, inputs=inputs, outputs=[("y", I64, None), ("z", I64, None)], **limits)


def max_pool_with_indices(*then: onnx.NodeProto) -> onnx.ModelProto:
    pool = node("MaxPool", "c", "p i", "pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    return model([conv(), pool, *then])


def half_precision() -> onnx.ModelProto:
    nodes = [node("Cast", "x", "h", to=F16), conv("h"), node("Relu", "c", "r"), node("Cast", "r", "y", to=F32)]
    return model(nodes, w=WEIGHT.astype(np.float16))


def raw_pixels() -> onnx.ModelProto:
    nodes = [
        node("Cast", "x", "f", to=F32),
        node("Transpose", "f", "t", perm=[0, 3, 1, 2]),
        conv("t"),
        node("ArgMax", "c", "a", axis=1, keepdims=0),
        node("Cast", "a", "y", to=U8),
    ]
    return model(nodes, inputs=[("x", U8, [1, 32, 32, 3])], outputs=[("y", U8, [1, 32, 32])])


def any_size() -> onnx.ModelProto:
    nodes = [conv(), node("MaxPool", "c", "y", kernel_shape=[2, 2], strides=[2, 2])]
    return model(nodes, inputs=[("x", F32, ["N", 3, "H", "W"])])


def convolution() -> onnx.ModelProto:
    return model([conv(output="c"), node("Relu", "c", "y")])


SUPPORTED: dict[str, Callable[[], onnx.ModelProto]] = {
    "convolution": convolution,
    "half precision": half_precision,
    "half precision throughout": lambda: model(
        [conv(output="y")],
        inputs=[("x", F16, [1, 3, 32, 32])],
        outputs=[("y", F16, None)],
        w=WEIGHT.astype(np.float16),
    ),
    "raw pixels": raw_pixels,
    "any size": any_size,
}

# name: (model, (node, operator, a word of the reason) of every problem)
Problems = list[tuple[str, str, str]]
UNSUPPORTED: dict[str, tuple[Callable[[], onnx.ModelProto], Problems]] = {
    "indices": (
        lambda: max_pool_with_indices(node("Cast", "i", "f", to=F32), node("Add", "p f", "y")),
        [("pool/MaxPool", "MaxPool", "outputs for MaxPool")],
    ),
    "unpooling": (
        lambda: max_pool_with_indices(node("MaxUnpool", "p i", "y", "unpool", kernel_shape=[2, 2], strides=[2, 2])),
        [("pool/MaxPool", "MaxPool", "outputs for MaxPool"), ("unpool", "MaxUnpool", "no importer")],
    ),
    "antialias": (
        lambda: model(
            [conv(), node("Resize", "c - - size", "y", "up/Resize", mode="linear", antialias=1)],
            size=np.array([1, 4, 16, 16]),
        ),
        [("up/Resize", "Resize", "Antialiasing is not supported")],
    ),
    "transposed pixels": (
        lambda: model([node("Transpose", "x", "y", "t", perm=[0, 3, 1, 2])], inputs=[("x", U8, [1, 4, 4, 3])]),
        [("t", "Transpose", "first input has type UInt8")],
    ),
    "mixed types": (
        lambda: model([conv(), node("Cast", "c", "h", to=F16), node("Add", "c h", "y", "mixed/Add")]),
        [("mixed/Add", "Add", "must have same input types")],
    ),
    "custom domain": (
        lambda: model([conv(), node("Foo", "c", "y", "my/Foo", domain="acme")]),
        [("my/Foo", "Foo", "Plugin not found")],
    ),
    "no name": (
        lambda: model([node("MaxPool", "x", "y i", kernel_shape=[2, 2])]),
        [("#0", "MaxPool", "outputs for MaxPool")],
    ),
    "too large": (
        lambda: model([node("Relu", "x", "y")], inputs=[("x", F32, [1 << 20, 3, 1 << 20, 1 << 20])]),
        [("", "", "VOLUME")],
    ),
    "too large for memory": (
        lambda: model([conv(output="y")], inputs=[("x", F32, [1, 3, 100_000, 100_000])]),
        [("", "", "OutOfMemory")],
    ),
}

NEEDS_PLUGIN: dict[str, tuple[Callable[[], onnx.ModelProto], Problems]] = {
    "RoiAlign": (roi_align, [("roi/RoiAlign", "RoiAlign", "plugin was not found")]),
    "NonZero": (
        lambda: model([conv(), node("NonZero", "c", "y", "nz/NonZero")], outputs=[("y", I64, None)]),
        [("nz/NonZero", "NonZero", "was not found")],
    ),
    "DeformConv": (
        lambda: model(
            [conv(), node("DeformConv", "c d off", "y", "dcn/DeformConv", kernel_shape=[3, 3], pads=[1] * 4)],
            inputs=[IMAGE, ("off", F32, [1, 18, 32, 32])],
            opset=19,
            d=np.ones((4, 4, 3, 3), np.float32),
        ),
        [("dcn/DeformConv", "DeformConv", "Plugin not found")],
    ),
    "NonMaxSuppression": (
        non_max_suppression,
        [("y/NMS", "NonMaxSuppression", "no runners"), ("z/NMS", "NonMaxSuppression", "not reached")],
    ),
}


def calls_itself() -> onnx.ModelProto:
    """A function that calls itself: TensorRT for RTX 1.7 expands it until its stack is full."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]
    call = node("Foo", "a", "b", domain="acme")
    function = helper.make_function("acme", "Foo", ["a"], ["b"], [call], opsets)
    result = model([node("Foo", "x", "y", domain="acme")])
    result.functions.append(function)
    return result


# Each of these ends a process that parses it with TensorRT for RTX 1.7.
CRASHING: dict[str, Callable[[], onnx.ModelProto]] = {
    "block size 0": lambda: model([node("DepthToSpace", "x", "y", blocksize=0)]),
    "eleven dimensions": lambda: model([node("Reshape", "x s", "y")], s=np.zeros(11, np.int64)),
    "no output": lambda: model([node("Relu", "x", "")]),
    "calls itself": calls_itself,
}

# name: (model, a word of the refusal)
MALFORMED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "cycle": (lambda: model([node("Relu", "b", "y"), node("Relu", "y", "b")]), "sort"),
    "dangling input": (lambda: model([node("Relu", "nowhere", "y")]), "not registered"),
    "same output twice": (lambda: model([node("Relu", "x", "y"), node("Abs", "x", "y")]), "sort"),
    "no outputs": (lambda: model([], outputs=[]), "no outputs"),
}


def save(make: Callable[[], onnx.ModelProto], path: Path) -> Path:
    onnx.save(make(), path)
    return path
