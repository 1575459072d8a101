"""Activations that a graph hides, and what `seginfer attach` makes of their values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from models import SPECS, make_onnx
from onnx import helper, numpy_helper

from seginfer import ModelFileError, ModelSpec, attach_spec
from seginfer._cli import main

SPEC = SPECS["binary"]
OUT = SPEC.output.name
NODE = helper.make_node
CONSTANTS = {
    "one": np.float32(1), "half": np.float32(0.5), "small": np.float32(1e-7), "scale": np.float32(1 / 255),
    "zero": np.uint8(0), "shape": np.ones(4, np.int64),
}  # fmt: skip
SIGMOID = NODE("Sigmoid", ["raw"], ["s"])
BRANCH = helper.make_graph(
    [NODE("Sigmoid", ["raw"], ["t"])], "branch", [], [helper.make_tensor_value_info("t", 1, None)]
)

IN_GRAPH: dict[str, Sequence[onnx.NodeProto]] = {
    "quantized": (
        SIGMOID, NODE("QuantizeLinear", ["s", "scale", "zero"], ["q"]),
        NODE("DequantizeLinear", ["q", "scale", "zero"], [OUT]),
    ),
    "mean": (SIGMOID, NODE("Sigmoid", ["raw"], ["t"]), NODE("Mean", ["s", "t"], [OUT])),
    "relu": (SIGMOID, NODE("Relu", ["s"], [OUT])),
    "expand": (SIGMOID, NODE("Expand", ["s", "shape"], [OUT])),
}  # fmt: skip
IN_VALUES: dict[str, Sequence[onnx.NodeProto]] = {
    "times one": (SIGMOID, NODE("Mul", ["s", "one"], [OUT])),
    "plus little": (SIGMOID, NODE("Add", ["s", "small"], [OUT])),
    "half of two": (
        SIGMOID, NODE("Sigmoid", ["raw"], ["t"]), NODE("Add", ["s", "t"], ["sum"]), NODE("Mul", ["sum", "half"], [OUT]),
    ),
    "by hand": (
        NODE("Neg", ["raw"], ["n"]), NODE("Exp", ["n"], ["e"]), NODE("Add", ["e", "one"], ["d"]),
        NODE("Reciprocal", ["d"], [OUT]),
    ),
    "tanh": (NODE("Tanh", ["raw"], ["t"]), NODE("Mul", ["t", "half"], ["u"]), NODE("Add", ["u", "half"], [OUT])),
    "root": (SIGMOID, NODE("Sqrt", ["s"], [OUT])),
    "branch": (
        NODE("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        NODE("If", ["yes"], [OUT], then_branch=BRANCH, else_branch=BRANCH),
    ),
}  # fmt: skip


def save(path: Path, nodes: Sequence[onnx.NodeProto]) -> Path:
    """Write a binary model whose logits, "raw", go through some nodes."""
    model = make_onnx(SPEC)
    for node in model.graph.node:
        node.output[:] = ["raw" if name == OUT else name for name in node.output]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in CONSTANTS.items())
    onnx.save(model, path)
    return path


def attach(path: Path, spec: ModelSpec) -> int:
    (path.parent / "spec.json").write_text(spec.to_json())
    return main(["attach", str(path), str(path.parent / "spec.json"), "-o", str(path.parent / "out.onnx")])


@pytest.mark.parametrize("nodes", IN_GRAPH.values(), ids=IN_GRAPH)
def test_an_activation_is_seen_in_the_graph(nodes: Any, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", nodes)
    with pytest.raises(ModelFileError, match="use kind='probabilities'"):
        attach_spec(path, SPEC, tmp_path / "out.onnx")


@pytest.mark.parametrize("nodes", IN_VALUES.values(), ids=IN_VALUES)
def test_an_activation_is_seen_in_the_values(nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "m.onnx", nodes)
    assert attach(path, SPEC) == 2
    assert "use kind='probabilities'" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()
    probabilities = replace(SPEC, outputs=(replace(SPEC.output, kind="probabilities"),))
    assert attach(path, probabilities) == 0


def test_logits_called_probabilities_are_seen_in_the_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "m.onnx", [NODE("Identity", ["raw"], [OUT])])
    assert attach(path, SPEC) == 0
    capsys.readouterr()
    assert attach(path, replace(SPEC, outputs=(replace(SPEC.output, kind="probabilities"),))) == 2
    assert "use 'logits'" in capsys.readouterr().err


def test_a_tower_of_joins_is_read_soon(tmp_path: Path) -> None:
    nodes, last = [], "raw"
    for depth in range(14):
        names = [f"{depth}_{i}" for i in range(8)]
        nodes += [NODE("Identity", [last], [name]) for name in names] + [NODE("Max", names, [f"max{depth}"])]
        last = f"max{depth}"
    path = save(tmp_path / "m.onnx", [*nodes, NODE("Sigmoid", [last], ["s"]), NODE("Identity", ["s"], [OUT])])
    start = time.monotonic()
    with pytest.raises(ModelFileError, match="ends in Sigmoid"):
        attach_spec(path, SPEC, tmp_path / "out.onnx")
    assert time.monotonic() - start < 5


def test_a_node_without_inputs_is_no_crash(tmp_path: Path) -> None:
    attach_spec(save(tmp_path / "m.onnx", [NODE("Sub", [], [OUT])]), SPEC, tmp_path / "out.onnx")


def test_a_graph_for_another_runtime_is_attached_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path / "m.onnx", [NODE("Plugin", ["raw"], [OUT], domain="of.tensorrt")])
    assert attach(path, SPEC) == 0
    assert "values of the network were not checked" in caplog.text
