"""Precision: conversion of graphs, and limits of certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray

from .limits import Limits


class Conversion(Protocol):
    """A graph that was converted to another precision."""

    suspects: tuple[str, ...]
    """Names of the layers that lose agreement with PyTorch."""

    @property
    def model(self) -> onnx.ModelProto:
        """The graph to ship."""

    @property
    def simulated(self) -> onnx.ModelProto:
        """The graph to certify on a CPU. It rounds values as the precision does."""

    @property
    def fp32_nodes(self) -> dict[str, tuple[str, ...]]:
        """Names of the nodes that stay in float32, by reason."""

    def retry(self) -> bool:
        """Change the graph in favour of agreement. Return False if nothing is left to change."""


@dataclass(frozen=True)
class Precision:
    """A precision of exported graphs.

    From version 11 on, TensorRT builds networks in the types of the graph alone. A precision is therefore a rewrite of
    the graph, not a flag of the builder.
    """

    name: str
    convert: Callable[[onnx.ModelProto, Iterable[NDArray[Any]]], Conversion]
    """Convert an fp32 graph. The batches hold one image each, and are those to learn ranges from."""
    limits: Limits
    simulated: bool = False
    """Certificates are measured on a graph that rounds explicitly, not on the graph that ships."""
    needs_calibration: bool = False
    """The conversion learns ranges from images. It gets no batch otherwise."""
