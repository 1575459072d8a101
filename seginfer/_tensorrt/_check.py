"""Parse and build an ONNX file in this process, and report on it; `_isolated` does so in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .._errors import ModelFileError
from .._model_file import METADATA_KEY, read_model
from .._onnx_file import read_onnx
from .._spec import ModelSpec
from ._build import BuildError, Progress, build_engine
from ._kernels import Kinds, kernels_of_engine, kernels_of_log
from ._library import RTX, Library, Message, find_library, has_gpu, message_log
from ._parse import ParsedNetwork, is_plugin, label, parse, plugin_problems
from ._report import CheckReport, EngineTensor, NodeProblem, Status
from ._shapes import with_ranges

# Layers whose operator a library may parse and be unable to build.
_LAYER_OPS = {"NMS": "NonMaxSuppression"}


def check_here(
    path: str | Path, *, on_progress: Progress | None = None, on_stage: Callable[[str], None] = lambda _: None
) -> CheckReport:
    """Parse and build a file with the library that `find_library` finds; see `check`.

    Args:
        path: the .onnx file.
        on_progress: called with phase, steps done and steps in all while the engine is built.
        on_stage: called with what comes next, such as "TensorRT 10.16.2.10, parsing".
    """
    spec = _spec(path)
    library = find_library()
    on_stage(f"{library.description}, parsing")
    parsed = parse(library, path)
    inputs = with_ranges(parsed.inputs, spec)
    if parsed.problems:
        return _report(parsed, path, inputs, parsed.problems)
    on_stage(f"{library.description}, building")
    start = time.perf_counter()
    with message_log(library).collect() as messages:
        try:
            engine = build_engine(parsed, inputs, has_details=True, on_progress=on_progress)
        except BuildError as error:
            return _report(parsed, path, inputs, _build_problems(parsed, error.reason))
    seconds = time.perf_counter() - start
    return _report(parsed, path, inputs, (), _kernels(library, engine, messages), seconds, len(engine))


def _spec(path: str | Path) -> ModelSpec | None:
    graph = read_onnx(path)
    if not graph.outputs:
        raise ModelFileError(f"{path} has no outputs, so there is nothing to build; export it again")
    return read_model(path).spec if METADATA_KEY in graph.metadata else None


def _report(
    parsed: ParsedNetwork,
    path: str | Path,
    inputs: tuple[EngineTensor, ...],
    problems: tuple[NodeProblem, ...],
    kernels: Kinds | None = None,
    build_s: float | None = None,
    engine_bytes: int | None = None,
) -> CheckReport:
    is_complete = not parsed.problems
    return CheckReport(
        path=str(path),
        status=_status(problems),
        library=parsed.library.name,
        version=parsed.library.version,
        nodes=len(parsed.nodes),
        problems=problems,
        layers=parsed.network.num_layers if is_complete else None,
        kernels=None if kernels is None else sum(kernels.values()),
        kernel_kinds=kernels or {},
        inputs=inputs,
        outputs=parsed.outputs if is_complete else (),
        build_s=build_s,
        engine_bytes=engine_bytes,
    )


def _status(problems: tuple[NodeProblem, ...]) -> Status:
    if not problems:
        return "supported"
    return "needs_plugin" if all(problem.needs_plugin for problem in problems) else "unsupported"


def _kernels(library: Library, engine: bytes, messages: list[Message]) -> Kinds | None:
    return (kernels_of_engine(library, engine) if has_gpu() else None) or kernels_of_log(messages)


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
    """Return the ONNX node that a layer came from, which TensorRT notes as "[ONNX Layer: name]"."""
    metadata = str(getattr(layer, "metadata", ""))
    return metadata.removeprefix("[ONNX Layer: ").removesuffix("]") or str(getattr(layer, "name", ""))
