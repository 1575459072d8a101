"""What the tests of the reference networks share: counting weights, and a spec to export with."""

from __future__ import annotations

from torch import nn

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec


def count(network: nn.Module) -> int:
    """Number of weights, batch normalization's running means and variances not among them."""
    return sum(parameter.numel() for parameter in network.parameters())


def zoo_spec(num_classes: int, size: tuple[int, int] | None, *outputs: OutputSpec, multiple_of: int = 1) -> ModelSpec:
    """Return a spec of a semantic network for pictures of about 0.45 +- 0.22."""
    names = tuple(f"class {i}" for i in range(num_classes))
    image = InputSpec(size=size, multiple_of=multiple_of, mean=(0.45,), std=(0.22,))
    return ModelSpec("semantic", image, ClassSpec(names), outputs or (OutputSpec(),))
