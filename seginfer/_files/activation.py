"""Activations at the end of a graph."""

from __future__ import annotations

from pathlib import Path

from .._spec.model_spec import ModelSpec
from .onnx_file import NodeInfo, read_nodes

# Operators that keep the meaning of values.
_MOVING = frozenset(("DepthToSpace", "Flatten", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"))
_KEEPING = _MOVING | frozenset(("Cast", "Clip", "Dropout", "Identity", "Pad", "Upsample"))
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
    """Return the operator that the values of a tensor come from. It is "" for an input."""
    producers = {output: node for node in nodes for output in node.outputs}
    for _ in nodes:  # a cycle must not hang
        node = producers.get(tensor)
        if node is None or node.op not in _KEEPING:
            return "" if node is None else node.op
        tensor = node.inputs[0] if node.inputs else ""
    return ""
