"""Removal of the upsampling at the end of a network.

A head that interpolates its logits to the input's size writes 158 MB for 19 classes at 1080 x 1920, which the mask step
reads back. Interpolation is linear. The mask step composes it with its own interpolation to the image's pixels, and
makes the same masks from the small logits.
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
    """Cut the upsampling off the first output, see `split_head`."""
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
    """Return the whole factor of an upsampling, equal at all sizes."""
    low, high = sizes(upsampling.args[0]), sizes(upsampling)  # type: ignore[arg-type]
    stated = arguments(upsampling)["scale_factors"]  # if given, positions follow it, not the sizes
    for factor in range(2, _MAX_FACTOR + 1):
        if stated in (None, [factor, factor]) and all(
            is_known(a == factor * b) for a, b in zip(high, low, strict=True)
        ):
            return factor
    return None
