"""Exact rewrites of operators that TensorRT lacks.

They work on torch's ExportedProgram, so they find operators of modules, of functions and of .pt2 files alike. Nothing
else in the program changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.fx import Node

from seginfer._errors import ExportError
from seginfer._spec.model_spec import ModelSpec, UpsampleSpec

from .._graph import module_path
from . import _adaptive_pool, _antialias, _attention, _head, _transposed, _unpool

_ATEN = torch.ops.aten

# A rule rewrites a node and returns a description. It returns None if the node can stay.
_RULES: dict[Any, Callable[[Node], str | None]] = {
    _ATEN.max_pool2d_with_indices.default: _unpool.pool_with_indices,
    _ATEN.max_pool2d.default: _unpool.pool,
    _ATEN.max_unpool2d.default: _unpool.unpool,
    _ATEN.adaptive_avg_pool2d.default: _adaptive_pool.average,
    _ATEN.adaptive_max_pool2d.default: _adaptive_pool.maximum,
    _ATEN.conv_transpose2d.input: _transposed.fill_kernel,
    _ATEN.scaled_dot_product_attention.default: _attention.add_head,
    _ATEN._upsample_bilinear2d_aa.vec: _antialias.resize,
    _ATEN._upsample_bicubic2d_aa.vec: _antialias.resize,
}


class Rewrite(NamedTuple):
    """One change to the graph."""

    module_path: str
    """The module of the operator, "" for the outermost one."""
    what: str


def apply_rewrites(program: ExportedProgram) -> list[Rewrite]:
    """Rewrite the operators of a program in place.

    Returns:
        The rewrites, in the order of the graph.
    """
    done = []
    for node in list(program.graph.nodes):
        rule = _RULES.get(node.target)
        what = _apply_rule(rule, node) if rule and node.users else None
        if what:
            done.append(Rewrite(module_path(node), what))
    if done:
        _finish(program)
    return done


def _apply_rule(rule: Callable[[Node], str | None], node: Node) -> str | None:
    """Apply a rule to a node."""
    # Rules for images handle (N, C, H, W) only, and leave (C, H, W) as it is.
    image: Any = node.args[0]
    if rule is not _attention.add_head and image.meta["val"].ndim != 4:
        return None
    try:
        return rule(node)
    except Exception as error:  # torch's tracing raises many kinds
        raise ExportError(
            f"in module {module_path(node)!r}: {node.target} could not be rewritten for TensorRT "
            f"({type(error).__name__}: {' '.join(str(error).split())}); report this with the module"
        ) from error


def split_head(program: ExportedProgram, spec: ModelSpec) -> UpsampleSpec | None:
    """Cut a final bilinear upsampling off the mask output, in place.

    Returns:
        The upsampling, which has a whole factor. None if the network does not end with one.
    """
    upsample = _head.split(program, spec)
    if upsample:
        _finish(program)
    return upsample


def _finish(program: ExportedProgram) -> None:
    """Drop dead nodes, and rename the outputs in the signature."""
    program.graph.eliminate_dead_code()
    outputs = program.graph.output_node().args[0]
    for spec, node in zip(program.graph_signature.output_specs, outputs, strict=True):
        if isinstance(spec.arg, TensorArgument):
            spec.arg = TensorArgument(name=node.name)
    program.graph.lint()
    program.graph_module.recompile()
