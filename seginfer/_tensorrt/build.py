"""Build an engine from a parsed network: profiles, options, timing cache, progress, and a clean end on Ctrl-C."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from .._errors import BackendError, InputError
from .library import RTX, Library, Message, first_error, is_out_of_memory, message_log
from .options import EngineOptions
from .parse import ParsedNetwork, protect_islands
from .report import ShapeRange


class BuildStep(NamedTuple):
    """How far one phase of a build is; phases lie inside of phases."""

    phase: str
    depth: int
    """0 is the whole build; 1, a part of it, and so on."""
    done: int
    """Steps that are done: 0 when the phase begins, `total` when it ends."""
    total: int


Progress = Callable[[BuildStep], None]
"""Called at the start, after every step, and at the end of every phase."""

Profile = Mapping[str, ShapeRange]
"""Shapes of every input that varies."""


class BuildError(BackendError):
    """The library cannot build the network, or what it built is not what was asked.

    Attributes:
        reason: what the library said, or what is wrong, in one line.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class Built(NamedTuple):
    """An engine, and what the library said while it was built."""

    engine: bytes
    messages: list[Message]
    seconds: float
    timing_cache: bytes
    """What the next build on this device starts from; empty if the library has none."""
    timing_problem: str
    """Why the old timing cache was not used; empty if it was, or there was none."""


def build_network(
    parsed: ParsedNetwork,
    profiles: Sequence[Profile],
    options: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
    *,
    timing_cache: bytes = b"",
    on_progress: Progress | None = None,
) -> Built:
    """Build an engine.

    Args:
        parsed: a network without problems.
        profiles: the ranges of shapes to build for; none for a network without free dimensions.
        options: all but its profiles is used.
        timing_cache: what an earlier build measured.
        on_progress: may raise, which stops the build and comes out of this call, as does Ctrl-C.

    Raises:
        InputError: if the options ask for hardware that is not there.
        BuildError: if the library has no implementation for a part of the network, or no memory.
    """
    library = parsed.library
    failures: list[BaseException] = []
    has_timings = library.name != RTX  # which keeps that part of the API, and nothing behind it
    start = time.perf_counter()
    protect_islands(library, parsed.network)
    with message_log(library).collect() as messages:
        config = create_config(parsed, profiles, options)
        timing_problem = load_timing_cache(library, config, timing_cache) if has_timings else ""
        config.progress_monitor = _monitor(library, on_progress, failures)
        del messages[:]  # an unreadable timing cache is no reason for a failed build
        engine = parsed.builder.build_serialized_network(parsed.network, config)
    if failures:
        raise failures[0]
    if engine is None:
        raise explain_failure(library, messages)
    seconds = time.perf_counter() - start
    timings = saved_timing_cache(config) if has_timings else b""
    return Built(bytes(memoryview(engine)), messages, seconds, timings, timing_problem)


def load_timing_cache(library: Library, config: Any, data: bytes) -> str:
    """Give a build an earlier cache, or an empty one if there is none, and return why it could not be used.

    A cache belongs to one version of the library and one kind of GPU; one of another is refused by the library.
    """
    problem = _set_timing_cache(library, config, data) if data else ""
    if problem or not data:
        _set_timing_cache(library, config, b"")
    return problem


def saved_timing_cache(config: Any) -> bytes:
    """Return the cache of a build that is done; empty if the library has none."""
    with _without_deprecation():
        cache = config.get_timing_cache()
        data = None if cache is None else cache.serialize()
    return b"" if data is None else bytes(memoryview(data))


def create_config(parsed: ParsedNetwork, profiles: Sequence[Profile], options: EngineOptions) -> Any:
    module = parsed.library.module
    config = parsed.builder.create_builder_config()
    for ranges in profiles:
        profile = parsed.builder.create_optimization_profile()
        for name, shapes in ranges.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    if hasattr(module.BuilderFlag, "TF32"):
        # TF32 would keep 10 bits of what the graph and its certificate call fp32.
        config.clear_flag(module.BuilderFlag.TF32)
    # Without details, nobody could read back what was built.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.dla_core is not None:
        _use_dla(parsed, config, options.dla_core)
    return config


def _use_dla(parsed: ParsedNetwork, config: Any, core: int) -> None:
    there = getattr(parsed.builder, "num_DLA_cores", 0)
    if core >= there:
        raise InputError(
            f"options.dla_core is {core}, and {parsed.library.description} sees {there} DLA cores here; "
            "use a smaller number, or leave it out to build for the GPU"
        )
    config.default_device_type = parsed.library.module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(parsed.library.module.BuilderFlag.GPU_FALLBACK)


def explain_failure(library: Library, messages: Sequence[Message]) -> BuildError:
    reason = first_error(messages, parser=True) or "no reason given"
    if is_out_of_memory(messages):
        return BuildError(
            f"{library.description} ran out of the GPU's memory ({reason}); close other processes on the GPU, "
            "build for a smaller batch or size, or set a smaller workspace_mb",
            reason,
        )
    if "insufficient workspace" in reason:
        return BuildError(f"{library.description} needs more scratch memory: {reason}; raise workspace_mb", reason)
    return BuildError(f"{library.description} cannot build the network: {reason}; see `seginfer check`", reason)


def _monitor(library: Library, on_progress: Progress | None, failures: list[BaseException]) -> Any:
    """Return a monitor that reports steps, and that cancels the build after the first exception."""
    open_phases: dict[str, BuildStep] = {}

    def report(step: BuildStep) -> None:
        try:
            if on_progress is not None and not failures:
                on_progress(step)
        except BaseException as failure:  # Ctrl-C too: it must not unwind through NVIDIA's C++
            failures.append(failure)

    class Monitor(library.module.IProgressMonitor):  # type: ignore[misc, name-defined]  # known when the program runs
        def __init__(self) -> None:
            library.module.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            depth = open_phases[parent].depth + 1 if parent in open_phases else 0
            open_phases[name] = BuildStep(name, depth, 0, steps)
            report(open_phases[name])

        def phase_finish(self, name: str) -> None:
            phase = open_phases.pop(name, None)
            if phase is not None:
                report(phase._replace(done=phase.total))

        def step_complete(self, name: str, step: int) -> bool:
            phase = open_phases.get(name)
            if phase is not None and step + 1 < phase.total:  # the last step is told when the phase ends
                report(phase._replace(done=step + 1))
            return not failures

    return Monitor()


def _set_timing_cache(library: Library, config: Any, data: bytes) -> str:
    with message_log(library).collect() as messages, _without_deprecation():
        cache = config.create_timing_cache(data)
        is_set = cache is not None and config.set_timing_cache(cache, False)
    # A cache that cannot be read comes back empty, with a warning in the log.
    said = next((m.text for m in messages if m.severity == "WARNING" and "timing cache" in m.text.lower()), "")
    return said if said or is_set else f"{library.description} refused it"


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """TensorRT for RTX keeps this part of the API, does nothing in it, and warns of it from its version 1.2 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
