"""Functions of images through the graph surgery, as ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from hypothesis import strategies as st
from networks import make_spec
from torch import Tensor, nn

from seginfer.export import _graph, surgery
from seginfer.export._network import Network
from seginfer.export._program import export_program

SIDE = st.integers(1, 24)
DTYPE = st.sampled_from([torch.float32, torch.float16])


class Function(nn.Module):
    """A function as a module, behind one layer so that it has a path."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def apply_surgery(
    function: Callable[[Tensor], Tensor], size: tuple[int, int] | None, multiple_of: int = 1
) -> tuple[onnx.ModelProto, list[str]]:
    """Export a function of (N, 3, H, W) through the surgery; None leaves height and width free."""
    spec = make_spec(size=size, multiple_of=multiple_of)
    network = Network(nn.Sequential(nn.Identity(), Function(function)).eval(), spec)
    hw = size or (48, 60)
    program = export_program(network, spec, torch.rand(2, 3, *hw), None)
    rewrites = surgery.apply_rewrites(program)
    assert all(rewrite.module_path.startswith("1") for rewrite in rewrites)
    return _graph.onnx_graph(program, spec), [rewrite.what for rewrite in rewrites]


def run(model: onnx.ModelProto, x: Tensor) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(model.SerializeToString())
    result: np.ndarray[Any, Any] = session.run(None, {"image": x.numpy()})[0]
    return result


def tied(*shape: int, seed: int = 0) -> Tensor:
    """Small integers after a ReLU: every window holds equal values."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float().relu()
