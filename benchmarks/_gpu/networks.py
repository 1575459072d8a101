"""Networks of the GPU benchmark, as modules and as files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from cpu_networks import CLASSES, UNET_WIDTHS, make_spec
from numpy.typing import NDArray
from torch import nn

from seginfer import ModelSpec, attach_spec, preprocess
from seginfer.export import surgery
from seginfer.export._graph import onnx_graph, write_graph
from seginfer.export._network import Network
from seginfer.export._program import example_batch, export_program
from seginfer.export.precision import PRECISIONS
from seginfer.export.zoo._parts import initialize
from seginfer.export.zoo.fastfcn import FastFCN
from seginfer.export.zoo.unet import UNet

Image = NDArray[Any]

_THIN_WIDTHS, _THIN_DIVISOR = (8, 16), 16


@dataclass(frozen=True)
class Files:
    """One network in one precision."""

    ours: Path
    """Has a spec, and no final upsampling, which export leaves to the mask step."""
    plain: Path
    """As torch.onnx.export writes it, for scripts without a spec. The same file if nothing differs."""
    fp32_nodes: dict[str, tuple[str, ...]]
    """Nodes that stay in float32, by reason."""


@dataclass(frozen=True)
class BenchNetwork:
    """One architecture at one input size, with random weights.

    Attributes:
        name: of the architecture.
        module: on the CPU, in float32 and in eval mode.
        spec: how to feed and read the module.
        files: by precision.
    """

    name: str
    module: nn.Module
    spec: ModelSpec
    files: dict[str, Files]

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the input."""
        assert self.spec.input.size is not None  # `make_spec` fixes it
        return self.spec.input.size

    def module_on(self, device: str, precision: str) -> nn.Module:
        """Return a copy of the module on a device.

        With "fp16", weights, inputs and outputs are float16.
        """
        module = copy.deepcopy(self.module).to(device)
        return module.half() if precision == "fp16" else module

    def record(self) -> dict[str, Any]:
        """Return the network's entry in the results."""
        return {
            "name": self.name,
            "input_hw": self.input_hw,
            "parameters": sum(weight.numel() for weight in self.module.parameters()),
            "fp32_nodes": {precision: files.fp32_nodes for precision, files in self.files.items()},
        }


def make_network(
    name: str, input_hw: tuple[int, int], folder: Path, image: Image, precisions: Sequence[str], *, thin: bool
) -> BenchNetwork:
    """Build a network and write its files.

    `export_onnx` would also certify each file on the CPU, which takes minutes at these sizes. The benchmark itself
    compares every backend with PyTorch before it times anything.

    Args:
        name: one of NETWORKS.
        input_hw: height and width of the input.
        folder: gets the files.
        image: calibrates the ranges of the float16 files.
        precisions: of the files.
        thin: use few channels, for a smoke test.
    """
    torch.manual_seed(2)
    module = NETWORKS[name](thin).eval()
    spec = make_spec(input_hw)
    network = Network(module, spec)
    program = export_program(network, spec, example_batch(network, spec, None), None)
    plain = onnx_graph(program, spec)
    rewrites = surgery.apply_rewrites(program)
    upsample = surgery.split_head(program, spec)
    ours = onnx_graph(program, spec) if rewrites or upsample else plain
    our_spec = replace(spec, outputs=(replace(spec.output, upsample=upsample),))
    batch, _ = preprocess([image], spec)
    files = {}
    for precision in precisions:
        stem = folder / f"{name}_{input_hw[0]}x{input_hw[1]}_{precision}"
        path, fp32_nodes = _write(ours, precision, batch, stem.with_suffix(".onnx"))
        attach_spec(path, our_spec, path)
        beside = path if ours is plain else _write(plain, precision, batch, stem.with_suffix(".plain.onnx"))[0]
        files[precision] = Files(path, beside, fp32_nodes)
    return BenchNetwork(name, module, spec, files)


def _write(
    graph: onnx.ModelProto, precision: str, batch: NDArray[Any], path: Path
) -> tuple[Path, dict[str, tuple[str, ...]]]:
    conversion = PRECISIONS[precision].convert(graph, [batch])
    write_graph(conversion.model, path)
    return path, conversion.fp32_nodes


def _unet(thin: bool) -> nn.Module:
    """U-Net, with logits at the resolution of the input.

    The four positions of a transposed convolution share their weights, as in `cpu_networks.unet`. Independent random
    weights make a checkerboard, while trained networks make regions.
    """
    module: nn.Module = UNet(3, CLASSES, _THIN_WIDTHS if thin else UNET_WIDTHS)
    initialize(module)
    for part in module.modules():
        if isinstance(part, nn.ConvTranspose2d):
            with torch.no_grad():
                part.weight.copy_(part.weight[..., :1, :1].expand_as(part.weight))
    return module


def _fastfcn(thin: bool) -> nn.Module:
    """FastFCN on a ResNet-50, with an upsampling after its logits at stride 8."""
    module: nn.Module = FastFCN(CLASSES, divisor=_THIN_DIVISOR if thin else 1)
    return module


NETWORKS: dict[str, Callable[[bool], nn.Module]] = {"unet": _unet, "fastfcn": _fastfcn}
