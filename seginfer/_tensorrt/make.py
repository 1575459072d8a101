"""Check or build an ONNX file in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelFileError, OutputWriteError
from .._files.model_file import METADATA_KEY, read_model
from .._files.onnx_file import read_onnx
from .._spec.model_spec import ModelSpec
from .._system.driver import has_gpu
from .build import BuildError, BuiltEngine, Profile, Progress, build_network
from .inspect import EngineInfo, inspect_engine, parse_nodes
from .library import RTX, find_library
from .options import EngineOptions
from .parse import ParsedNetwork, find_plugin_problems, is_plugin, node_label, parse
from .report import CheckReport, EngineReport, EngineTensor, NodeProblem, ShapeRange, format_problems, get_status
from .shapes import add_ranges, resolve_profiles
from .verify import check_spec_precision, list_expected_layers, verify

OnText = Callable[[str], None]
"""Called with a stage, such as "TensorRT 10.16.2.10, parsing", or a warning."""

# Layers whose operator a library may parse and be unable to build.
_LAYER_OPS = {"NMS": "NonMaxSuppression"}


class VerifiedEngine(NamedTuple):
    """An engine that matches its network."""

    built: BuiltEngine
    info: EngineInfo
    precisions: dict[str, int]
    weighted_layers: int
    """Number of layers that the precisions were compared with."""


def check_in_process(
    path: str | Path, *, on_progress: Progress | None = None, on_stage: OnText = lambda _: None
) -> CheckReport:
    """Check a file with the library that `find_library` finds. See `check`.

    Args:
        path: the .onnx file.
        on_progress: called with every step of the build.
        on_stage: called at the beginning of every stage.
    """
    parsed, spec = _open_network(path, on_stage)
    inputs = add_ranges(parsed.inputs, spec)
    if parsed.problems:
        return _report_check(parsed, path, inputs, parsed.problems)
    ranges = {t.name: ShapeRange(t.min, t.opt, t.max) for t in inputs if t.min}
    profiles = [ranges] if ranges else []
    options = EngineOptions(cuda_graph=False)  # TensorRT builds what TensorRT for RTX refuses for CUDA graphs
    try:
        engine = _make_engine(parsed, spec, profiles, options, on_stage=on_stage, on_progress=on_progress)
    except BuildError as error:
        return _report_check(parsed, path, inputs, _find_build_problems(parsed, error.reason))
    return _report_check(parsed, path, inputs, (), engine)


def build_in_process(
    path: str | Path,
    options: EngineOptions,
    target: Path,
    timing_cache: Path | None,
    *,
    on_stage: OnText,
    on_warning: OnText,
    on_progress: Progress | None = None,
) -> EngineReport:
    """Build, verify and write an engine. See `build_isolated`.

    The file `timing_cache` is read, and overwritten with the measurements of this build.
    """
    parsed, spec = _open_network(path, on_stage, library=options.library)
    library = parsed.library.description
    if parsed.problems:
        raise BuildError(f"{path}: {format_problems(library, parsed.problems)}", parsed.problems[0].reason)
    ranges = resolve_profiles(parsed.inputs, spec, options)
    (tensor,) = parsed.inputs
    profiles = [] if min(tensor.shape) >= 0 else [{tensor.name: shapes} for shapes in ranges]
    earlier = _read_timing_cache(timing_cache, on_warning)
    try:
        engine = _make_engine(
            parsed, spec, profiles, options, on_stage=on_stage, on_progress=on_progress, timing_cache=earlier
        )
    except BuildError as error:
        raise BuildError(f"{path}: {error}", error.reason) from error
    if engine.built.timing_problem:
        on_warning(f"the timing cache {timing_cache} was not used and is replaced: {engine.built.timing_problem}")
    if engine.info.load_problem:
        on_warning(
            f"{library} cannot load the engine on this machine's GPU: {engine.info.load_problem}; run it on another"
        )
    if not engine.precisions and engine.weighted_layers:
        on_warning(f"{library} does not report the precision of its layers; the engine was not verified")
    _write(target, engine.built.engine)
    if timing_cache is not None and engine.built.timing_cache not in (b"", earlier):
        _write(timing_cache, engine.built.timing_cache)
    return _report_engine(parsed, tuple(ranges), engine)


def _open_network(
    path: str | Path, on_stage: OnText, *, library: str = "auto"
) -> tuple[ParsedNetwork, ModelSpec | None]:
    """Read the spec of a file, if any, and parse the file."""
    graph = read_onnx(path)
    if not graph.outputs:
        raise ModelFileError(f"{path} has no outputs, so there is nothing to build; export it again")
    spec = read_model(path).spec if METADATA_KEY in graph.metadata else None
    found = find_library(library)
    on_stage(f"{found.description}, parsing")
    return parse(found, path), spec


def _make_engine(
    parsed: ParsedNetwork,
    spec: ModelSpec | None,
    profiles: Sequence[Profile],
    options: EngineOptions,
    *,
    on_stage: OnText,
    on_progress: Progress | None,
    timing_cache: bytes = b"",
) -> VerifiedEngine:
    """Build and verify the engine of a complete network.

    Raises:
        BuildError: if it cannot be built, or fails verification.
    """
    expected = list_expected_layers(parsed)
    check_spec_precision(expected, spec)
    on_stage(f"{parsed.library.description}, building")
    built = build_network(parsed, profiles, options, timing_cache=timing_cache, on_progress=on_progress)
    info = inspect_engine(parsed.library, built.engine, built.messages, has_gpu=has_gpu())
    return VerifiedEngine(built, info, verify(parsed, expected, info, profiles), len(expected))


def _find_build_problems(parsed: ParsedNetwork, reason: str) -> tuple[NodeProblem, ...]:
    """Find the node whose layer a reason names."""
    layers = [parsed.network.get_layer(i) for i in range(parsed.network.num_layers)]
    words = set(reason.replace(":", " ").split())
    named = [layer for layer in layers if layer.name in words]
    if not named:
        return (NodeProblem("", "", reason),)
    kind = named[0].type.name
    name = next(iter(parse_nodes(str(named[0].metadata))), str(named[0].name))
    op = _LAYER_OPS.get(kind) or next((node.op for node in parsed.nodes if node.name == name), kind)
    if parsed.library.name == RTX and op in _LAYER_OPS.values():
        first = next(node_label(node, i) for i, node in enumerate(parsed.nodes) if is_plugin(node))
        return tuple(find_plugin_problems(parsed.nodes, {first: reason}))
    return (NodeProblem(name, op, reason),)


def _report_check(
    parsed: ParsedNetwork,
    path: str | Path,
    inputs: tuple[EngineTensor, ...],
    problems: tuple[NodeProblem, ...],
    engine: VerifiedEngine | None = None,
) -> CheckReport:
    is_complete = not parsed.problems
    kinds = engine.info.kernel_kinds if engine else None
    return CheckReport(
        path=str(path),
        status=get_status(problems),
        library=parsed.library.name,
        version=parsed.library.version,
        nodes=len(parsed.nodes),
        problems=problems,
        layers=parsed.layers if is_complete else None,
        kernels=None if kinds is None else sum(kinds.values()),
        kernel_kinds=kinds or {},
        precisions=engine.precisions if engine else {},
        inputs=inputs,
        outputs=parsed.outputs if is_complete else (),
        build_s=engine.built.seconds if engine else None,
        engine_bytes=len(engine.built.engine) if engine else None,
    )


def _report_engine(parsed: ParsedNetwork, profiles: tuple[ShapeRange, ...], engine: VerifiedEngine) -> EngineReport:
    kinds = engine.info.kernel_kinds
    return EngineReport(
        library=parsed.library.name,
        version=parsed.library.version,
        inputs=parsed.inputs,
        outputs=parsed.outputs,
        profiles=profiles,
        layers=parsed.layers,
        kernels=None if kinds is None else sum(kinds.values()),
        kernel_kinds=kinds or {},
        precisions=engine.precisions,
        weights_bytes=engine.info.weights_bytes,
        activation_bytes=engine.info.activation_bytes,
        engine_bytes=len(engine.built.engine),
        build_s=engine.built.seconds,
        evidence=engine.info.evidence,
        weighted_layers=engine.weighted_layers,
    )


def _read_timing_cache(path: Path | None, on_warning: OnText) -> bytes:
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
