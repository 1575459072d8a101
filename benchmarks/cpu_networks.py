"""Networks of the CPU benchmarks, built from seeds with onnx.helper."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec, attach_spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, the usual pretraining set
CLASSES = 19  # of Cityscapes
UNET_WIDTHS = (32, 48, 96, 160, 224)  # twice those of seginfer.export.zoo.unet

_OPSET, _IR_VERSION = 17, 8  # readable by the oldest runtime among the peers, ONNX Runtime 1.15


@dataclass
class _Graph:
    """A network under construction.

    Every method appends one step and returns the name of its output.
    """

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def conv(self, x: str, channels: tuple[int, int], *, kernel: int = 3, stride: int = 1, relu: bool = True) -> str:
        """Append a padded convolution and a ReLU.

        `channels` are those of the input and of the output.
        """
        fan_in = channels[0] * kernel**2
        weight = self._weight(self.rng.normal(0, (2 / fan_in) ** 0.5, (channels[1], channels[0], kernel, kernel)))
        bias = self._weight(self.rng.normal(0, 0.1, channels[1]))
        pads = [kernel // 2] * 4
        y = self._node("Conv", x, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)
        return self._node("Relu", y) if relu else y

    def pool(self, x: str) -> str:
        """Append a 2x2 max pooling."""
        return self._node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def up(self, x: str, channels: tuple[int, int]) -> str:
        """Append a transposed convolution that doubles height and width.

        All four positions share their weights. Independent random weights make a checkerboard, unlike trained networks.
        """
        shared = self.rng.normal(0, (2 / channels[0]) ** 0.5, (*channels, 1, 1))
        weight = self._weight(np.broadcast_to(shared, (*channels, 2, 2)))
        return self._node("ConvTranspose", x, weight, kernel_shape=[2, 2], strides=[2, 2])

    def concat(self, *tensors: str) -> str:
        """Append a concatenation of channels."""
        return self._node("Concat", *tensors, axis=1)

    def save(self, path: Path, spec: ModelSpec) -> Path:
        """Write the network with its spec. The last step becomes the output."""
        (height, width), stride = spec.input.size or (0, 0), spec.output.whole_stride
        self.nodes[-1].output[0] = spec.output.name
        inputs = helper.make_tensor_value_info(spec.input.name, TensorProto.FLOAT, [1, 3, height, width])
        shape = [1, spec.num_channels, height // stride, width // stride]
        outputs = helper.make_tensor_value_info(spec.output.name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, path.stem, [inputs], [outputs], self.weights)
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        attach_spec(path, spec, path)
        return path

    def _weight(self, values: NDArray[Any]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"{op}_{len(self.nodes)}"], **attributes))
        name: str = self.nodes[-1].output[0]
        return name


def make_spec(input_hw: tuple[int, int], *, classes: int = CLASSES, stride: int = 1) -> ModelSpec:
    """Return the spec of the benchmarks.

    Stretched with torch's resampling, ImageNet mean and std, RGB, NCHW.
    """
    inputs = InputSpec(size=input_hw, name="input", resize="stretch", resampling="torch", mean=MEAN, std=STD)
    outputs = (OutputSpec(name="output", stride=stride),)
    return ModelSpec("semantic", inputs, ClassSpec(tuple(f"class {i}" for i in range(classes))), outputs)


def small_network(path: Path, input_hw: tuple[int, int]) -> Path:
    """Write a network of four convolutions.

    Logits have a quarter of the input's resolution. It takes about 3 ms at 512 x 1024 on two cores.
    """
    graph = _Graph(np.random.default_rng(1))
    x = graph.conv("input", (3, 16), stride=2)
    x = graph.conv(x, (16, 32), stride=2)
    x = graph.conv(x, (32, 32))
    graph.conv(x, (32, CLASSES), kernel=1, relu=False)
    return graph.save(path, make_spec(input_hw, stride=4))


def unet(path: Path, input_hw: tuple[int, int]) -> Path:
    """Write a U-Net with logits at its input's resolution."""
    graph, x, channels = _Graph(np.random.default_rng(2)), "input", 3
    skips: list[str] = []
    for width in UNET_WIDTHS:
        x = graph.pool(x) if skips else x
        x = graph.conv(graph.conv(x, (channels, width)), (width, width))
        skips.append(x)
        channels = width
    for width, skip in zip(UNET_WIDTHS[-2::-1], skips[-2::-1], strict=True):
        x = graph.concat(skip, graph.up(x, (channels, width)))
        x = graph.conv(graph.conv(x, (2 * width, width)), (width, width))
        channels = width
    graph.conv(x, (channels, CLASSES), kernel=1, relu=False)
    return graph.save(path, make_spec(input_hw))


def trivial_network(path: Path, input_hw: tuple[int, int]) -> Path:
    """Write a network of one 1x1 convolution, three classes."""
    graph = _Graph(np.random.default_rng(5))
    graph.conv("input", (3, 3), kernel=1, relu=False)
    return graph.save(path, make_spec(input_hw, classes=3))
