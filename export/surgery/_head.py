"""split(): leave the upsampling that ends a network to the mask step, which fuses it with its own.

A head that interpolates its logits to the input's size writes, for 19 classes at 1080 x 1920, 158 MB that the mask step
then reads back. Interpolation is linear: taking it out of the graph and composing it with the interpolation to the
image's pixels gives the same masks from a graph that stops at the small logits.
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from seginfer._spec.model_spec import ModelSpec, UpsampleSpec

from ._splice import arguments, is_known, sizes

_UPSAMPLE = torch.ops.aten.upsample_bilinear2d.vec
_MAX_FACTOR = 64  # twice the stride of the coarsest networks
_PERMUTE = torch.ops.aten.permute.default


def split(program: ExportedProgram, spec: ModelSpec) -> UpsampleSpec | None:
    """Cut the upsampling off the first output; see `split_head` of the package."""
    output_node = program.graph.output_node()
    first, *others = output_node.args[0]
    to_nhwc = first.target == _PERMUTE
    upsampling = first.args[0] if to_nhwc else first
    if upsampling.target != _UPSAMPLE or spec.output.kind == "labels":
        return None
    factor = _factor(upsampling)
    if factor is None:
        return None
    if to_nhwc:
        first.args = (upsampling.args[0], *first.args[1:])
    else:
        output_node.args = ((upsampling.args[0], *others),)
    return UpsampleSpec(factor, align_corners=bool(arguments(upsampling)["align_corners"]))


def _factor(upsampling: Node) -> int | None:
    """Return the whole number by which a node enlarges both sides, for every size that the program takes."""
    low, high = sizes(upsampling.args[0]), sizes(upsampling)  # type: ignore[arg-type]
    stated = arguments(upsampling)["scale_factors"]  # where given, positions follow it rather than the sizes
    for factor in range(2, _MAX_FACTOR + 1):
        if stated in (None, [factor, factor]) and all(
            is_known(a == factor * b) for a, b in zip(high, low, strict=True)
        ):
            return factor
    return None
