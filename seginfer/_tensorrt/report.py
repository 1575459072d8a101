"""Reports on ONNX files and engines: CheckReport and EngineReport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .._spec.schema import coerce_fields

Status = Literal["supported", "needs_plugin", "unsupported"]

Evidence = Literal["engine", "build log"]


@dataclass(frozen=True)
class NodeProblem:
    """A node that cannot be parsed or built."""

    name: str
    """Name of the ONNX node; "#3" is the fourth node, without a name. Empty if the problem is not of one node."""
    op: str
    """Operator, such as "MaxPool". Empty if the problem is not of one node."""
    reason: str
    """Reason in one line, from the library."""
    needs_plugin: bool = False
    """TensorRT is documented to build this operator, by a plugin or a kernel that is missing here."""


@dataclass(frozen=True)
class EngineTensor:
    """Input or output of a parsed network."""

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
    """Shapes of one input in an optimization profile. The engine is tuned for `opt`."""

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
    """Properties of a verified engine."""

    library: str
    """TensorRT or TensorRT for RTX."""
    version: str
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profiles: tuple[ShapeRange, ...]
    """Shapes of the network's one input, in the order of the options. A network without free dimensions has one."""
    layers: int
    """Number of layers that the parser made of the graph."""
    kernels: int | None
    """Number of kernels after fusion, in all profiles; None if unknown."""
    kernel_kinds: dict[str, int]
    """Number of kernels by kind, as the library names them."""
    precisions: dict[str, int]
    """Number of kernels with weights or matrix products by data type, such as {"float16": 31}."""
    weights_bytes: int | None
    """Device memory for weights; None if unknown."""
    activation_bytes: int | None
    """Device memory for activations of one context, in the profile that takes most; None if unknown."""
    engine_bytes: int
    """Size of the file."""
    build_s: float
    """Seconds that the build took."""
    evidence: Evidence
    """Source of these facts: the engine itself, read on a GPU, or the build log."""
    weighted_layers: int = 0
    """Number of layers of the graph with weights or matrix products, which `precisions` was compared with."""

    def __post_init__(self) -> None:
        coerce_fields(self, "report")

    @property
    def is_verified(self) -> bool:
        """Whether layers are known to have the file's precision."""
        return bool(self.precisions) or not self.weighted_layers


@dataclass(frozen=True)
class CheckReport:
    """Result of building a model file with TensorRT.

    A parser stops at its first failure of most kinds, so `problems` of an unsupported file may be incomplete.
    """

    path: str
    status: Status
    """supported: an engine was built. needs_plugin: all problems are nodes that TensorRT is documented to build by a
    plugin or a kernel that is missing here; nodes behind them were not checked. unsupported: anything else."""
    library: str
    """TensorRT or TensorRT for RTX."""
    version: str
    """Version of the library. Kernel counts depend on it."""
    nodes: int
    """Number of nodes of the ONNX graph, without those inside of control flow."""
    problems: tuple[NodeProblem, ...] = ()
    layers: int | None = None
    """Number of layers that the parser made of the nodes; None if parsing failed."""
    kernels: int | None = None
    """Number of kernels after fusion; None if no engine was built, or it is unknown."""
    kernel_kinds: dict[str, int] = field(default_factory=dict)
    """Number of kernels by kind, as the library names them."""
    precisions: dict[str, int] = field(default_factory=dict)
    """Number of kernels with weights or matrix products by data type. Each equals the type in the file."""
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
        library = f"{self.library} {self.version}"
        if self.status == "supported":
            kernels = "an unknown number of" if self.kernels is None else self.kernels
            return f"supported: {library} builds {self.nodes} nodes into {kernels} kernels"
        return format_problems(library, self.problems)


def get_status(problems: Sequence[NodeProblem]) -> Status:
    """Return the status of a file with these problems."""
    if not problems:
        return "supported"
    return "needs_plugin" if all(problem.needs_plugin for problem in problems) else "unsupported"


def format_problems(library: str, problems: Sequence[NodeProblem]) -> str:
    """Return problems and their remedy in one line."""
    # A file may have line breaks in names.
    names = ", ".join(" ".join(f"{p.op} {p.name}".split()) or "the graph" for p in problems[:3])
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    if get_status(problems) == "needs_plugin":
        return (
            f"needs plugins: {library} cannot build {names}{more} here, which TensorRT is documented to build; "
            "nodes behind them were not checked"
        )
    return (
        f"unsupported: {library} refuses {names}{more}: {problems[0].reason}; "
        "compute it from other operators in the module that the node is named after, or write a plugin"
    )
