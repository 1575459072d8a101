"""CheckReport and EngineReport: what NVIDIA's parser and builder made of an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .._spec.schema import coerce_fields

Status = Literal["supported", "needs_plugin", "unsupported"]

Evidence = Literal["engine", "build log"]


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
    min: tuple[int, ...] = ()
    """Shapes of the profile that a check builds for; empty unless an input varies."""
    opt: tuple[int, ...] = ()
    max: tuple[int, ...] = ()


@dataclass(frozen=True)
class ShapeRange:
    """Shapes of one input in a TensorRT optimization profile; kernels are tuned for `opt`."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        coerce_fields(self, "profile")

    @property
    def is_fixed(self) -> bool:
        """Whether it holds one shape only."""
        return self.min == self.max


@dataclass(frozen=True)
class EngineReport:
    """What an engine is, read back after it was built, and found to be what was asked."""

    library: str
    """TensorRT or TensorRT for RTX."""
    version: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profiles: tuple[ShapeRange, ...]
    """Shapes of the network's one input, in the order of the options; of a network without free dimensions, its own."""
    layers: int
    """Layers that the parser made of the graph."""
    kernels: int | None
    """Kernels after fusion, those of all profiles; None if the library did not say."""
    kernel_kinds: dict[str, int]
    """How many kernels of which kind, in the library's own words."""
    precisions: dict[str, int]
    """How many of the kernels with weights or matrix products compute in which data type, such as {"float16": 31}."""
    weights_bytes: int | None
    """Memory on the device for weights; None if the library did not say."""
    activation_bytes: int | None
    """Memory on the device for what one context computes, in the profile that takes most."""
    engine_bytes: int
    """Size of the file."""
    build_s: float
    evidence: Evidence
    """Where this was read: in the engine itself, on a GPU, or, without one, in the builder's list of its layers."""
    weighted_layers: int = 0
    """Layers of the graph with weights or matrix products, whose data types `precisions` is held against."""

    def __post_init__(self) -> None:
        coerce_fields(self, "report")

    @property
    def is_verified(self) -> bool:
        """Whether the library said which precision the layers have; it is then the one that was asked for."""
        return bool(self.precisions) or not self.weighted_layers


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
    precisions: dict[str, int] = field(default_factory=dict)
    """How many kernels with weights or matrix products compute in which data type; each is the one that was asked."""
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
        return refusal(by, self.problems)


def status_of(problems: Sequence[NodeProblem]) -> Status:
    """Return the verdict that problems lead to."""
    if not problems:
        return "supported"
    return "needs_plugin" if all(problem.needs_plugin for problem in problems) else "unsupported"


def refusal(by: str, problems: Sequence[NodeProblem]) -> str:
    """Say in one line what is in the way and what to do; `by` is the library."""
    names = ", ".join(_label(problem) for problem in problems[:3])
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    if status_of(problems) == "needs_plugin":
        return (
            f"needs plugins: {by} cannot build {names}{more} here, which TensorRT is documented to build; "
            "what lies behind was not checked"
        )
    return (
        f"unsupported: {by} refuses {names}{more}: {problems[0].reason}; "
        "compute it from other operators in the module that the node is named after, or write a plugin"
    )


def _label(problem: NodeProblem) -> str:
    return " ".join(f"{problem.op} {problem.name}".split()) or "the graph"  # a file may have line breaks in names
