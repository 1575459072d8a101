"""Error that each layer causes in float16."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._convert import to_float16
from ._graph import MULTIPLYING, Graph, key_of
from ._session import Session
from ._simulate import simulate_fp16

# Each trial converts, loads and runs the graph once, which takes seconds for hundreds of megabytes.
_FEWEST_GROUPS, _MOST_GROUPS = 8, 32
_TRIAL_BYTES = 4e9
_OVERFLOWN = 1e30


class Loss(NamedTuple):
    """Error that one group of neighbouring nodes causes in float16."""

    keys: tuple[str, ...]
    error: float
    """Sum over the outputs of the mean squared error, as a share of the output's largest square."""


def measure_losses(graph: Graph, fp32_nodes: Collection[str], batch: NDArray[Any]) -> list[Loss]:
    """Measure every group of nodes alone in float16.

    Rounding errors of different layers are nearly independent, so their squares add up.

    Returns:
        The losses, the worst first.
    """
    everything = {key_of(node) for node in graph.computing_nodes()}
    expected = _outputs(graph, everything, batch)
    losses = []
    for keys in _groups(graph, fp32_nodes):
        results = _outputs(graph, everything - set(keys), batch)
        losses.append(Loss(keys, sum(_error(a, b) for a, b in zip(expected, results, strict=True))))
    return sorted(losses, key=lambda loss: -loss.error)


def _groups(graph: Graph, fp32_nodes: Collection[str]) -> list[tuple[str, ...]]:
    """Group the float16 nodes, each from a multiplying layer on.

    Neighbours share a group if there are too many.
    """
    groups: list[list[str]] = []
    for node in graph.computing_nodes():
        if key_of(node) in fp32_nodes:
            continue
        if node.op_type in MULTIPLYING or not groups:
            groups.append([])
        groups[-1].append(key_of(node))
    affordable = int(_TRIAL_BYTES / max(graph.model.ByteSize(), 1))
    step = -(-len(groups) // min(max(affordable, _FEWEST_GROUPS), _MOST_GROUPS)) or 1
    return [tuple(key for group in groups[i : i + step] for key in group) for i in range(0, len(groups), step)]


def _outputs(graph: Graph, fp32_nodes: Collection[str], batch: NDArray[Any]) -> Sequence[NDArray[Any]]:
    results = Session(simulate_fp16(to_float16(graph, fp32_nodes))).run(batch)
    return [results[name].astype(np.float64) for name in graph.outputs]


def _error(expected: NDArray[Any], result: NDArray[Any]) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.mean((result - expected) ** 2) / max(np.max(expected**2), np.finfo(np.float64).tiny))
    return error if np.isfinite(error) else _OVERFLOWN
