"""Parse, build and verify an ONNX file in this process, and report on it; `_isolated` does so in another."""

from __future__ import annotations

from pathlib import Path

from .build import BuildError, Progress
from .inspect import nodes_of
from .library import RTX
from .make import Made, Stage, make_engine, open_network
from .options import EngineOptions
from .parse import ParsedNetwork, is_plugin, label, plugin_problems
from .report import CheckReport, EngineTensor, NodeProblem, ShapeRange, status_of
from .shapes import with_ranges

# Layers whose operator a library may parse and be unable to build.
_LAYER_OPS = {"NMS": "NonMaxSuppression"}


def check_here(
    path: str | Path, *, on_progress: Progress | None = None, on_stage: Stage = lambda _: None
) -> CheckReport:
    """Parse, build and verify a file with the library that `find_library` finds; see `check`.

    Args:
        path: the .onnx file.
        on_progress: called with every step of the build.
        on_stage: called with what comes next, such as "TensorRT 10.16.2.10, parsing".
    """
    parsed, spec = open_network(path, on_stage)
    inputs = with_ranges(parsed.inputs, spec)
    if parsed.problems:
        return _report(parsed, path, inputs, parsed.problems)
    ranges = {t.name: ShapeRange(t.smallest, t.likeliest, t.largest) for t in inputs if t.smallest}
    profiles = [ranges] if ranges else []
    try:
        made = make_engine(parsed, spec, profiles, EngineOptions(), on_stage=on_stage, on_progress=on_progress)
    except BuildError as error:
        return _report(parsed, path, inputs, _build_problems(parsed, error.reason))
    return _report(parsed, path, inputs, (), made)


def _report(
    parsed: ParsedNetwork,
    path: str | Path,
    inputs: tuple[EngineTensor, ...],
    problems: tuple[NodeProblem, ...],
    made: Made | None = None,
) -> CheckReport:
    is_complete = not parsed.problems
    kernels = made.found.kinds if made else None
    return CheckReport(
        path=str(path),
        status=status_of(problems),
        library=parsed.library.name,
        version=parsed.library.version,
        nodes=len(parsed.nodes),
        problems=problems,
        layers=parsed.layers if is_complete else None,
        kernels=None if kernels is None else sum(kernels.values()),
        kernel_kinds=kernels or {},
        precisions=made.precisions if made else {},
        inputs=inputs,
        outputs=parsed.outputs if is_complete else (),
        build_s=made.built.seconds if made else None,
        engine_bytes=len(made.built.engine) if made else None,
    )


def _build_problems(parsed: ParsedNetwork, reason: str) -> tuple[NodeProblem, ...]:
    """Find the node whose layer the reason names."""
    layers = [parsed.network.get_layer(i) for i in range(parsed.network.num_layers)]
    words = set(reason.replace(":", " ").split())
    named = [layer for layer in layers if layer.name in words]
    if not named:
        return (NodeProblem("", "", reason),)
    kind = named[0].type.name
    name = _node_name(named[0])
    op = _LAYER_OPS.get(kind) or next((node.op for node in parsed.nodes if node.name == name), kind)
    if parsed.library.name == RTX and op in _LAYER_OPS.values():
        first = next(label(node, i) for i, node in enumerate(parsed.nodes) if is_plugin(node))
        return tuple(plugin_problems(parsed.nodes, {first: reason}))
    return (NodeProblem(name, op, reason),)


def _node_name(layer: object) -> str:
    """Return the ONNX node that a layer came from."""
    return next(iter(nodes_of(str(getattr(layer, "metadata", "")))), str(getattr(layer, "name", "")))
