"""Activations at the end of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .._spec.model_spec import ModelSpec
from .onnx_file import NodeInfo, read_nodes

# Operators that keep the meaning of the values of their first input.
_MOVING = frozenset(("DepthToSpace", "Flatten", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
_CHOOSING = frozenset(("AveragePool", "Gather", "GatherElements", "MaxPool", "ReduceMax", "ReduceMean", "Split"))
_KEEPING = _MOVING | _CHOOSING | frozenset(("Cast", "Clip", "Dropout", "Identity", "Pad", "Upsample"))
# Operators that join probabilities to probabilities. One of a probability and something else may yield anything.
_JOINING = frozenset(("Concat", "Max", "Min", "Mul"))
_DEEPEST = 16  # of nested joins
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


def _last_activation(nodes: tuple[NodeInfo, ...], tensor: str) -> str:
    """Return the operator that the values of a tensor come from. It is "" for an input, and where several differ."""
    return _origin({output: node for node in nodes for output in node.outputs}, tensor, 0)


def _origin(producers: Mapping[str, NodeInfo], tensor: str, depth: int) -> str:
    for _ in producers:  # a cycle must not hang
        node = producers.get(tensor)
        if node is None or depth > _DEEPEST:
            return ""
        inputs = node.inputs
        if node.op in _JOINING:
            origins = {_origin(producers, one, depth + 1) for one in dict.fromkeys(inputs)}
            return origins.pop() if len(origins) == 1 else ""
        if node.op == "Sub" and _is_constant(producers, inputs[0]):  # 1 - probability
            inputs = inputs[1:]
        elif node.op not in _KEEPING:
            return node.op
        tensor = inputs[0] if inputs else ""
    return ""


def _is_constant(producers: Mapping[str, NodeInfo], tensor: str) -> bool:
    return tensor not in producers or producers[tensor].op == "Constant"
