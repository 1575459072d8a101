"""Parse, build, verify: what `check` and `build` share, in the process that they run it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelFileError, OutputWriteError
from .._files.model_file import METADATA_KEY, read_model
from .._files.onnx_file import read_onnx
from .._spec.model_spec import ModelSpec
from .build import BuildError, Built, Profile, Progress, build_network
from .inspect import Readback, nodes_of, read_back
from .library import RTX, find_library, has_gpu
from .options import EngineOptions
from .parse import ParsedNetwork, is_plugin, label, parse, plugin_problems
from .report import CheckReport, EngineReport, EngineTensor, NodeProblem, ShapeRange, refusal, status_of
from .shapes import profiles_of, with_ranges
from .verify import asked_layers, check_asked, verify

Stage = Callable[[str], None]
"""Called with what comes next, such as "TensorRT 10.16.2.10, parsing"."""


# Layers whose operator a library may parse and be unable to build.
_LAYER_OPS = {"NMS": "NonMaxSuppression"}


class Made(NamedTuple):
    """A verified engine."""

    built: Built
    found: Readback
    precisions: dict[str, int]
    asked: int
    """Number of layers whose precision was asked for."""


def open_network(path: str | Path, on_stage: Stage, *, library: str = "auto") -> tuple[ParsedNetwork, ModelSpec | None]:
    """Read the spec of a file, if it has one, and let the library parse the file."""
    spec = _spec(path)
    found = find_library(library)
    on_stage(f"{found.description}, parsing")
    return parse(found, path), spec


def make_engine(
    parsed: ParsedNetwork,
    spec: ModelSpec | None,
    profiles: Sequence[Profile],
    options: EngineOptions,
    *,
    on_stage: Stage,
    on_progress: Progress | None = None,
    timing_cache: bytes = b"",
) -> Made:
    """Build an engine of a network without problems, and verify it.

    Raises:
        BuildError: if it cannot be built, or is not what was asked.
    """
    asked = asked_layers(parsed)
    check_asked(asked, spec)
    on_stage(f"{parsed.library.description}, building")
    built = build_network(parsed, profiles, options, timing_cache=timing_cache, on_progress=on_progress)
    found = read_back(parsed.library, built.engine, built.messages, has_gpu=has_gpu())
    return Made(built, found, verify(parsed, asked, found, profiles), len(asked))


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
        return _check_report(parsed, path, inputs, parsed.problems)
    ranges = {t.name: ShapeRange(t.min, t.opt, t.max) for t in inputs if t.min}
    profiles = [ranges] if ranges else []
    try:
        made = make_engine(parsed, spec, profiles, EngineOptions(), on_stage=on_stage, on_progress=on_progress)
    except BuildError as error:
        return _check_report(parsed, path, inputs, _build_problems(parsed, error.reason))
    return _check_report(parsed, path, inputs, (), made)


def build_here(
    path: str | Path,
    options: EngineOptions,
    target: Path,
    timing_cache: Path | None,
    *,
    on_stage: Stage,
    on_warning: Stage,
    on_progress: Progress | None = None,
) -> EngineReport:
    """Write a verified engine to `target`, and what was measured over the file `timing_cache`; see `build_isolated`."""
    parsed, spec = open_network(path, on_stage, library=options.library)
    by = parsed.library.description
    if parsed.problems:
        raise BuildError(f"{path}: {refusal(by, parsed.problems)}", parsed.problems[0].reason)
    ranges = profiles_of(parsed.inputs, spec, options)
    (tensor,) = parsed.inputs
    profiles = [] if min(tensor.shape) >= 0 else [{tensor.name: shapes} for shapes in ranges]
    earlier = _read(timing_cache, on_warning)
    try:
        made = make_engine(
            parsed, spec, profiles, options, on_stage=on_stage, on_progress=on_progress, timing_cache=earlier
        )
    except BuildError as error:
        raise BuildError(f"{path}: {error}", error.reason) from error
    if made.built.timing_problem:
        on_warning(f"the timing cache {timing_cache} was not used and is replaced: {made.built.timing_problem}")
    if made.found.load_problem:
        on_warning(f"{by} cannot load the engine on this machine's GPU: {made.found.load_problem}; run it on another")
    if not made.precisions and made.asked:
        on_warning(f"{by} does not say which precision its layers have; the engine was not verified")
    _write(target, made.built.engine)
    if timing_cache is not None and made.built.timing_cache not in (b"", earlier):
        _write(timing_cache, made.built.timing_cache)
    return _engine_report(parsed, tuple(ranges), made)


def _check_report(
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


def _engine_report(parsed: ParsedNetwork, profiles: tuple[ShapeRange, ...], made: Made) -> EngineReport:
    kinds = made.found.kinds
    return EngineReport(
        library=parsed.library.name,
        version=parsed.library.version,
        inputs=parsed.inputs,
        outputs=parsed.outputs,
        profiles=profiles,
        layers=parsed.layers,
        kernels=None if kinds is None else sum(kinds.values()),
        kernel_kinds=kinds or {},
        precisions=made.precisions,
        weights_bytes=made.found.weights_bytes,
        activation_bytes=made.found.activation_bytes,
        engine_bytes=len(made.built.engine),
        build_s=made.built.seconds,
        evidence=made.found.evidence,
        weighted_layers=made.asked,
    )


def _read(path: Path | None, on_warning: Stage) -> bytes:
    try:
        return path.read_bytes() if path is not None and path.exists() else b""
    except OSError as error:
        on_warning(f"the timing cache {path} was not used and is replaced: {error.strerror or error}")
        return b""


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        reason = error.strerror or error
        raise OutputWriteError(f"cannot write {path}: {reason}; check the folder and its free space") from error


def _spec(path: str | Path) -> ModelSpec | None:
    graph = read_onnx(path)
    if not graph.outputs:
        raise ModelFileError(f"{path} has no outputs, so there is nothing to build; export it again")
    return read_model(path).spec if METADATA_KEY in graph.metadata else None
