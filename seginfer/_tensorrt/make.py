"""Parse, build, verify: what `check` and `build` share, in the process that they run it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .._errors import ModelFileError, OutputWriteError
from .._files.model_file import METADATA_KEY, read_model
from .._files.onnx_file import read_onnx
from .._spec.model_spec import ModelSpec
from .build import BuildError, Built, Profile, Progress, build_engine
from .inspect import Readback, read_back
from .library import find_library, has_gpu
from .options import EngineOptions
from .parse import ParsedNetwork, parse
from .report import EngineReport, ShapeRange, refusal
from .shapes import profiles_of
from .verify import asked_layers, check_asked, verify

Stage = Callable[[str], None]
"""Called with what comes next, such as "TensorRT 10.16.2.10, parsing"."""


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
    built = build_engine(parsed, profiles, options, timing_cache=timing_cache, on_progress=on_progress)
    found = read_back(parsed.library, built.engine, built.messages, has_gpu=has_gpu())
    return Made(built, found, verify(parsed, asked, found, profiles), len(asked))


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
    """Write a verified engine to `target`, and what was measured over the file `timing_cache`; see `build`."""
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
    return _report(parsed, tuple(ranges), made)


def _report(parsed: ParsedNetwork, profiles: tuple[ShapeRange, ...], made: Made) -> EngineReport:
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
        asked_layers=made.asked,
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
