"""What NVIDIA's parser asks of a graph: normalization and attention lose nothing in opset 18, raw pixels meet a Cast.

ONNX has a usable GroupNormalization from opset 21 on and Attention from 23; TensorRT 10.3, that of JetPack 6, reads up
to opset 20. What is exported instead must not cost kernels.
"""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import Tiny, make_spec, pictures
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer import MissingDependencyError
from seginfer._tensorrt import CheckReport
from seginfer.export import check_tensorrt, export_onnx

SIZE = (48, 64)


class Between(nn.Module):
    """A layer between two convolutions."""

    def __init__(self, layer: nn.Module, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.layer = layer
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.first(x)))


class ChannelsLastNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Self-attention over pixels, 4 heads of 8, at an eighth of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(32, 96, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 8)
        n, c, h, w = small.shape
        q, k, v = self.qkv(small).reshape(n, 3, 4, 8, h * w).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, c, h, w)
        return x + F.interpolate(mixed, scale_factor=8, mode="nearest")


def exported(layer: nn.Module, path: Path, width: int = 16) -> list[str]:
    """Export a layer between convolutions, and return the operators of the graph."""
    assert export_onnx(Between(layer, width), make_spec(), path, images=pictures(SIZE), batch_size=1).passed
    return [node.op_type for node in onnx.load(path).graph.node]


def checked(path: Path) -> CheckReport:
    try:
        return check_tensorrt(path)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_layer_norm_is_one_operator(tmp_path: Path) -> None:
    operators = exported(ChannelsLastNorm(), tmp_path / "m.onnx")
    assert operators == ["Conv", "Transpose", "LayerNormalization", "Transpose", "Conv"]
    assert checked(tmp_path / "m.onnx").status == "supported"


def test_group_norm_costs_no_more_kernels_than_the_one_operator_of_opset_21(tmp_path: Path) -> None:
    layer = nn.GroupNorm(4, 16)
    operators = exported(layer, tmp_path / "m.onnx")
    assert operators == ["Conv", "Reshape", "InstanceNormalization", "Reshape", "Mul", "Add", "Conv"]
    with_operator(Between(layer), tmp_path / "one.onnx")
    ours, one = checked(tmp_path / "m.onnx"), checked(tmp_path / "one.onnx")
    assert ours.kernels is not None
    assert ours.kernels == one.kernels


def test_attention_builds(tmp_path: Path) -> None:
    operators = exported(Attention(), tmp_path / "m.onnx", width=32)
    assert operators.count("Softmax") == 1
    assert operators.count("MatMul") == 2
    assert checked(tmp_path / "m.onnx").status == "supported"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_raw_pixels_go_straight_into_a_cast(layout: str, precision: str, tmp_path: Path) -> None:
    spec = make_spec(layout=layout, dtype="uint8", scale=1.0, mean=(0.0,), std=(1.0,))
    path = tmp_path / "m.onnx"
    assert export_onnx(Tiny(), spec, path, images=pictures(SIZE), precision=precision).passed
    readers = [node.op_type for node in onnx.load(path).graph.node if "image" in node.input]
    assert readers == ["Cast"]
    report = checked(path)
    assert report.status == "supported"
    assert [tensor.dtype for tensor in report.inputs] == ["uint8"]


def with_operator(network: Between, path: Path) -> None:
    """Write the network with ONNX's own GroupNormalization."""
    weights = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["image", "first.weight", "first.bias"], ["a"], pads=[1] * 4),
        helper.make_node("GroupNormalization", ["a", "layer.weight", "layer.bias"], ["b"], num_groups=4, epsilon=1e-5),
        helper.make_node("Conv", ["b", "last.weight", "last.bias"], ["logits"], pads=[1] * 4),
    ]
    tensors = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, *SIZE]) for name in ("image", "logits")
    ]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "one", tensors[:1], tensors[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
