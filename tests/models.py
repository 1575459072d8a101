"""Builders of tiny ONNX files, written with onnx.helper, whose masks can be told from the image's colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec, attach_spec

SIZE = (24, 32)
NAMES = {
    "semantic": ("red", "green", "blue"),
    "binary": ("other", "redder than green"),
    "multilabel": ("bright red", "bright green"),
}

# Weights of 0, 1 and -1 leave no room for rounding: the semantic logits are the input itself.
_WEIGHTS = {
    "semantic": np.eye(3, dtype=np.float32),
    "binary": np.array([[1, -1, 0]], np.float32),
    "multilabel": np.array([[1, 0, 0], [0, 1, 0]], np.float32),
}
_BIAS = {"semantic": 0.0, "binary": 0.0, "multilabel": -0.5}
_DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def make_spec(
    task: Any = "semantic",
    *,
    size: tuple[int, int] | None = SIZE,
    output: dict[str, Any] | None = None,
    ignore_index: int | None = 255,
    names: tuple[str, ...] | None = None,
    **input_fields: Any,
) -> ModelSpec:
    """Return a spec that `make_onnx` can build; `input_fields` are those of InputSpec, `output` those of OutputSpec."""
    classes = ClassSpec(names or NAMES[task], ignore_index=ignore_index)
    return ModelSpec(task, InputSpec(size=size, **input_fields), classes, (OutputSpec(**output or {}),))


SPECS = {
    "semantic": make_spec(),
    "binary": make_spec("binary"),
    "multilabel": make_spec("multilabel"),
    "labels": make_spec(output={"kind": "labels", "name": "labels"}),
    "probabilities": make_spec(output={"kind": "probabilities"}),
    "stride 4": make_spec(output={"stride": 4}),
    "letterbox": make_spec(resize="letterbox", pad_value=(114.0,)),
    "tiles": make_spec(resize="tile", tile_margin=5, multiple_of=2),
    "channels last": make_spec(layout="NHWC", output={"layout": "NHWC"}),
    "half precision": make_spec(dtype="float16"),
    "raw pixels": make_spec(dtype="uint8", scale=1.0),
    "dynamic size": make_spec(size=None, multiple_of=8, resize="pad"),
}


def logits_of(batch: NDArray[Any], task: str) -> NDArray[np.float32]:
    """Return what the network of `make_onnx` yields for an (N, 3, h, w) batch at stride 1."""
    planes = batch.astype(np.float32)
    logits: NDArray[np.float32] = np.einsum("cd,ndhw->nchw", _WEIGHTS[task], planes) + np.float32(_BIAS[task])
    return logits


def make_onnx(spec: ModelSpec, *, batch: int | str = "N") -> onnx.ModelProto:
    """Build a network of one 1x1 convolution that has the signature `spec` describes."""
    nodes: list[onnx.NodeProto] = []
    dtype = np.float16 if spec.input.dtype == "float16" else np.float32

    def then(op: str, tensor: str, *weights: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, [tensor, *weights], [f"{op}_{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    x = spec.input.name
    if spec.input.layout == "NHWC":
        x = then("Transpose", x, perm=_TO_FIRST)
    if spec.input.dtype == "uint8":
        x = then("Cast", x, to=TensorProto.FLOAT)
    if spec.output.whole_stride > 1:
        x = then("AveragePool", x, kernel_shape=[spec.output.whole_stride] * 2, strides=[spec.output.whole_stride] * 2)
    x = then("Conv", x, "weight", "bias")
    if spec.output.kind == "probabilities":
        x = then("Softmax", x, axis=1) if spec.task == "semantic" else then("Sigmoid", x)
    if spec.output.kind == "labels":
        x = then("ArgMax", x, axis=1, keepdims=0)
    elif spec.output.layout == "NHWC":
        x = then("Transpose", x, perm=_TO_LAST)
    nodes[-1].output[0] = spec.output.name
    weight = _WEIGHTS[spec.task].astype(dtype)[:, :, None, None]
    bias = np.full(len(weight), _BIAS[spec.task], dtype)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(spec.input.name, _DTYPES[spec.input.dtype], _input_shape(spec, batch))],
        [helper.make_tensor_value_info(spec.output.name, _output_dtype(spec), _output_shape(spec, batch))],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def save_model(path: Path, spec: ModelSpec, *, batch: int | str = "N") -> Path:
    """Build the network of `spec`, write it to `path` with the spec inside, and return the path."""
    onnx.save(make_onnx(spec, batch=batch), path)
    attach_spec(path, spec, path)
    return path


def _input_shape(spec: ModelSpec, batch: int | str) -> list[int | str]:
    height, width = spec.input.size or ("height", "width")
    return [batch, 3, height, width] if spec.input.layout == "NCHW" else [batch, height, width, 3]


def _output_shape(spec: ModelSpec, batch: int | str) -> list[int | str]:
    height, width = (n // spec.output.whole_stride for n in spec.input.size) if spec.input.size else ("height", "width")
    if spec.output.kind == "labels":
        return [batch, height, width]
    channels = spec.num_channels
    return [batch, channels, height, width] if spec.output.layout == "NCHW" else [batch, height, width, channels]


def _output_dtype(spec: ModelSpec) -> int:
    if spec.output.kind == "labels":
        return TensorProto.INT64
    return TensorProto.FLOAT16 if spec.input.dtype == "float16" else TensorProto.FLOAT
