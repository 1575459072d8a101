"""Activations at the end of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._spec.model_spec import ModelSpec
from .onnx_file import NodeInfo, read_nodes

# Operators that keep the meaning of the values of their first input.
_MOVING = frozenset(("DepthToSpace", "Flatten", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
_CHOOSING = frozenset(("AveragePool", "Gather", "GatherElements", "MaxPool", "ReduceMax", "ReduceMean", "Split"))
_QUANTIZING = frozenset(("QuantizeLinear", "DequantizeLinear"))
_KEEPING = (
    _MOVING
    | _CHOOSING
    | _QUANTIZING
    | frozenset(("Cast", "Clip", "Dropout", "Expand", "Identity", "Pad", "Relu", "Upsample"))
)
# Operators that join probabilities to probabilities. One of a probability and something else may yield anything.
_JOINING = frozenset(("Concat", "Max", "Mean", "Min", "Mul"))
_DEEPEST = 16  # of nested joins
_SLACK = 1e-3  # of a sum or a range
_ALL = 0.999  # of the pixels
_PROBABILITIES = frozenset(("Sigmoid", "HardSigmoid", "Softmax"))


def activation_problem(path: str | Path, spec: ModelSpec) -> str | None:
    """Compare the activation at the end of a graph with the kind of the mask output.

    LogSoftmax is right as logits of a semantic task: it subtracts one number from all classes of a pixel. So neither
    the class nor the softmax changes.

    Args:
        path: the .onnx file.
        spec: contract of the model.

    Returns:
        The contradiction and its remedy, or None.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated or is not an ONNX model.
    """
    if spec.output.kind == "labels":
        return None
    op = _last_activation(read_nodes(path), spec.output.name)
    if op in _PROBABILITIES and spec.output.kind == "logits":
        return f"outputs[0].kind is 'logits', but the graph ends in {op}: use kind='probabilities'"
    if op == "LogSoftmax" and spec.output.kind == "probabilities":
        return "outputs[0].kind is 'probabilities', but the graph ends in LogSoftmax: use kind='logits'"
    if op == "LogSoftmax" and spec.task != "semantic":
        return (
            f"outputs[0].kind is 'logits' of a {spec.task} task, but the graph ends in LogSoftmax: end it before that, "
            "or with a Sigmoid and kind='probabilities'"
        )
    return None


def value_problem(values: NDArray[Any], spec: ModelSpec) -> str | None:
    """Compare values of the mask output with its kind.

    Args:
        values: output of the network for an image.
        spec: contract of the model.

    Returns:
        The contradiction and its remedy, or None.
    """
    if spec.output.kind == "labels":
        return None
    are_shares = values.min() >= -_SLACK and values.max() <= 1 + _SLACK
    if spec.output.kind == "probabilities":
        found = f"{values.min():.3g}..{values.max():.3g}"
        return None if are_shares else f"outputs[0].kind is 'probabilities', the network yields {found}: use 'logits'"
    sums = values.sum(1 if spec.output.layout == "NCHW" else 3)
    if are_shares and spec.num_channels > 1 and np.abs(sums - 1).max() <= _SLACK:
        return "outputs[0].kind is 'logits', but all outputs lie in 0..1 and sum to 1: use kind='probabilities'"
    if are_shares and spec.task != "semantic" and (values > 0).mean() > _ALL:  # such a mask is of no use
        return (
            "outputs[0].kind is 'logits', but all outputs lie in 0..1 and every pixel is set: use "
            "kind='probabilities', or check the weights"
        )
    return None


def _last_activation(nodes: tuple[NodeInfo, ...], tensor: str) -> str:
    """Return the operator that the values of a tensor come from. It is "" for an input, and where several differ."""
    return _origin({output: node for node in nodes for output in node.outputs}, tensor, {}, 0)


def _origin(producers: Mapping[str, NodeInfo], tensor: str, known: dict[str, str], depth: int) -> str:
    if tensor not in known:
        known[tensor] = ""  # of a cycle
        known[tensor] = _find_origin(producers, tensor, known, depth)
    return known[tensor]


def _find_origin(producers: Mapping[str, NodeInfo], tensor: str, known: dict[str, str], depth: int) -> str:
    for _ in producers:  # a cycle must not hang
        node = producers.get(tensor)
        if node is None or depth > _DEEPEST:
            return ""
        inputs = node.inputs
        if node.op in _JOINING:
            origins = {_origin(producers, one, known, depth + 1) for one in dict.fromkeys(inputs)}
            return origins.pop() if len(origins) == 1 else ""
        if node.op == "Sub" and inputs and _is_constant(producers, inputs[0]):  # 1 - probability
            inputs = inputs[1:]
        elif node.op not in _KEEPING:
            return node.op
        tensor = inputs[0] if inputs else ""
    return ""


def _is_constant(producers: Mapping[str, NodeInfo], tensor: str) -> bool:
    return tensor not in producers or producers[tensor].op == "Constant"
