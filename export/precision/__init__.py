"""Precisions of exported graphs.

TensorRT from version 11 on takes only what the graph says, so a precision is a rewrite of the graph, never a flag of a
builder. Each one is a class that takes the fp32 graph and batches, and yields:

- `model`, the graph to ship, and `fp32_nodes`, what of it stays in float32 and why;
- `simulated`, the graph to certify on the CPU, which rounds as the precision does;
- `retry()`, which changes the graph after a certificate failed, or says that it cannot, and `suspects`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray

from seginfer._errors import InputError

from .fp16 import Half


class Conversion(Protocol):
    """An fp32 graph in another precision."""

    suspects: tuple[str, ...]
    """Names of the layers to which lost agreement was traced."""

    @property
    def model(self) -> onnx.ModelProto:
        """The graph to ship."""

    @property
    def simulated(self) -> onnx.ModelProto:
        """The graph to certify."""

    @property
    def fp32_nodes(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that stay in float32, by reason."""

    def retry(self) -> bool:
        """Change the graph in favour of agreement; False if nothing is left to change."""


class Unchanged:
    """The fp32 graph as it is."""

    suspects: tuple[str, ...] = ()

    def __init__(self, model: onnx.ModelProto, _batches: Iterable[NDArray[Any]]) -> None:
        self.model = self.simulated = model
        self.fp32_nodes: dict[str, tuple[str, ...]] = {}

    def retry(self) -> bool:
        """Return False: there is nothing to change."""
        return False


PRECISIONS: dict[str, Callable[[onnx.ModelProto, Iterable[NDArray[Any]]], Conversion]] = {
    "fp32": Unchanged,
    "fp16": Half,
}


def check_precision(precision: str) -> None:
    """Raise an InputError unless there is such a precision."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
