"""OutputSpec: meaning and scale of a network output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._errors import SpecError
from .input_spec import Layout, check_max
from .schema import coerce_fields

OutputKind = Literal["logits", "probabilities", "labels"]


@dataclass(frozen=True)
class UpsampleSpec:
    """Final bilinear upsampling that the exported graph leaves out.

    The network in PyTorch ends with it. In the pipeline, the mask step does it.
    """

    factor: int
    """Height of the upsampled output over the height of the graph's output."""
    align_corners: bool = False
    """Value in the network's code."""

    def __post_init__(self) -> None:
        coerce_fields(self, "outputs.upsample")
        if self.factor < 2:
            raise SpecError(f"outputs.upsample.factor must be at least 2, got {self.factor}; null leaves it out")
        check_max("outputs.upsample.factor", self.factor)


@dataclass(frozen=True)
class OutputSpec:
    """One output tensor of the network."""

    name: str = "logits"
    kind: OutputKind = "logits"
    """Values before the activation, values after it, or class ids."""
    layout: Layout = "NCHW"
    stride: int = 1
    """Input height over output height: 4 for logits at a quarter of the input size.

    With `upsample`, the output is the upsampled one.
    """
    align_corners: bool = False
    """Argument with which the network's code interpolates this output to the image's size."""
    threshold: float = 0.5
    """Probability above which a binary or multilabel pixel is set."""
    upsample: UpsampleSpec | None = None
    """Final upsampling that the graph leaves out. `seginfer export` sets it.

    The mask step does both interpolations at once, with the same result.
    """

    def __post_init__(self) -> None:
        coerce_fields(self, "outputs")
        if self.stride < 1:
            raise SpecError(f"outputs.stride must be at least 1, got {self.stride}")
        check_max("outputs.stride", self.stride)
        if not 0 < self.threshold < 1:
            raise SpecError(f"outputs.threshold is a probability between 0 and 1, got {self.threshold}")
        if self.kind == "labels" and self.upsample:
            raise SpecError("outputs.upsample cannot interpolate class ids; use kind 'logits' or null")

    @property
    def graph_stride(self) -> int:
        """Input height over the height of the graph's output."""
        return self.stride * (self.upsample.factor if self.upsample else 1)
