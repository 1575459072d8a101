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
    stride: int | None = 1
    """Input height over output height, rounded either way: 4 for logits at a quarter of the input size.

    With `upsample`, the output is the upsampled one. None is for any other ratio, of an output that covers the whole
    input: larger than it, two thirds of it, or with another ratio for the width.
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
        if self.stride is not None and self.stride < 1:
            raise SpecError(f"outputs.stride must be at least 1, got {self.stride}")
        check_max("outputs.stride", self.stride or 1)
        if not 0 < self.threshold < 1:
            raise SpecError(f"outputs.threshold is a probability between 0 and 1, got {self.threshold}")
        if self.kind == "labels" and self.upsample:
            raise SpecError("outputs.upsample cannot interpolate class ids; use kind 'logits' or null")

    @property
    def whole_stride(self) -> int:
        """`stride`, and 1 for None."""
        return self.stride or 1

    @property
    def graph_stride(self) -> int:
        """Input height over the height of the graph's output."""
        return self.whole_stride * (self.upsample.factor if self.upsample else 1)

    def stride_problem(
        self, input_hw: tuple[int, int], output_hw: tuple[int, int], *, of_module: bool = False
    ) -> str | None:
        """Compare the size of the graph's output, or of the module's, with the stride.

        Sizes are (height, width). Returns an error text, or None if they agree.
        """
        stride = self.whole_stride if of_module else self.graph_stride
        sizes = zip(input_hw, output_hw, strict=True)
        if self.stride is None or all(got in (full // stride, -(-full // stride)) for full, got in sizes):
            return None
        upsampled = f" with upsample.factor {self.upsample.factor}" if self.upsample and not of_module else ""
        return (
            f"outputs[0].stride is {self.stride}{upsampled}, and the network maps {input_hw} to {output_hw}; correct "
            "it, or set it to null for another ratio of an output that covers the whole input"
        )
