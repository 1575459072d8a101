"""CheckReport: what NVIDIA's parser and builder made of an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .._schema import coerce_fields

Status = Literal["supported", "needs_plugin", "unsupported"]


@dataclass(frozen=True)
class NodeProblem:
    """A node that could not be parsed or built."""

    name: str
    """The ONNX node's name; "#3" is the fourth node, which has none. Empty if the problem is not one node's."""
    op: str
    """Its operator, such as "MaxPool"; empty if the problem is not one node's."""
    reason: str
    """What the library said, in one line."""
    needs_plugin: bool = False
    """TensorRT is documented to build this operator, by a plugin or a kernel that is missing here."""


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of the network as the library sees it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """-1 is a dimension that varies."""
    smallest: tuple[int, ...] = ()
    """Smallest, likeliest and largest shape that the engine was built for; empty unless an input varies."""
    likeliest: tuple[int, ...] = ()
    largest: tuple[int, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """Whether TensorRT takes a model file, node by node, and what it makes of it.

    A parser stops at its first failure of most kinds: of an unsupported file, the problems listed need not be all.
    """

    path: str
    status: Status
    """supported: an engine was built. needs_plugin: all problems are nodes that TensorRT is documented to build by a
    plugin or a kernel that is missing here; nothing behind them was checked. unsupported: anything else."""
    library: str
    """TensorRT or TensorRT for RTX."""
    version: str
    """Its version; kernel counts belong to it."""
    nodes: int
    """Nodes of the ONNX graph, without those inside of control flow."""
    problems: tuple[NodeProblem, ...] = ()
    layers: int | None = None
    """Layers that the parser made of the nodes; None if it did not get through."""
    kernels: int | None = None
    """Kernels after fusion; None if no engine was built, or the library did not say."""
    kernel_kinds: dict[str, int] = field(default_factory=dict)
    """How many kernels of which kind, in the library's own words."""
    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()
    build_s: float | None = None
    """Seconds that the build took."""
    engine_bytes: int | None = None
    """Size of the engine, which is not kept."""

    def __post_init__(self) -> None:
        coerce_fields(self, "report")

    def summary(self) -> str:
        """Return the result in one line."""
        by = f"{self.library} {self.version}"
        if self.status == "supported":
            kernels = "an unknown number of" if self.kernels is None else self.kernels
            return f"supported: {by} builds {self.nodes} nodes into {kernels} kernels"
        names = ", ".join(_label(problem) for problem in self.problems[:3])
        more = f" and {len(self.problems) - 3} more" if len(self.problems) > 3 else ""
        if self.status == "needs_plugin":
            return (
                f"needs plugins: {by} cannot build {names}{more} here, which TensorRT is documented to build; "
                "what lies behind was not checked"
            )
        return (
            f"unsupported: {by} refuses {names}{more}: {self.problems[0].reason}; "
            "compute it from other operators in the module that the node is named after, or write a plugin"
        )


def _label(problem: NodeProblem) -> str:
    return f"{problem.op} {problem.name}".strip() or "the graph"
