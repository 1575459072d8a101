"""Build an engine from a parsed network."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from .._errors import BackendError, InputError
from .._system.driver import find_gpu, has_gpu
from .library import RTX, Library, Message, find_reason, is_out_of_memory, message_log, supports_gpu
from .options import EngineOptions
from .parse import ParsedNetwork, protect_fp32_nodes
from .report import ShapeRange


class BuildStep(NamedTuple):
    """Progress of one phase of a build. Phases are nested."""

    phase: str
    depth: int
    """0 is the whole build, 1 a part of it, and so on."""
    done: int
    """Completed steps: 0 when the phase begins, `total` when it ends."""
    total: int


Progress = Callable[[BuildStep], None]
"""Called at the start, after every step, and at the end of every phase."""

Profile = Mapping[str, ShapeRange]
"""Shapes of every input that varies."""


class BuildError(BackendError):
    """The network cannot be built, or its engine failed verification.

    Attributes:
        reason: the library's reason, or the failed comparison, in one line.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class BuiltEngine(NamedTuple):
    """A serialized engine and the log of its build."""

    engine: bytes
    messages: list[Message]
    seconds: float
    timing_cache: bytes
    """Measurements for the next build on this device; empty if the library has none."""
    timing_problem: str
    """Reason why the given timing cache was not used; empty if it was, or there was none."""


def build_network(
    parsed: ParsedNetwork,
    profiles: Sequence[Profile],
    options: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
    *,
    timing_cache: bytes = b"",
    on_progress: Progress | None = None,
) -> BuiltEngine:
    """Build the engine of a parsed network.

    Args:
        parsed: a network without problems.
        profiles: ranges of shapes to build for, none for a network without free dimensions.
        options: build options, of which profiles are ignored.
        timing_cache: measurements of an earlier build.
        on_progress: may raise, which stops the build. The exception is raised again here, as is Ctrl-C.

    Raises:
        InputError: if the options request hardware that is missing.
        BuildError: if the library has no implementation for a part of the network, or no memory.
    """
    library = parsed.library
    failures: list[BaseException] = []
    has_timings = library.name != RTX  # TensorRT for RTX keeps this part of the API without a function
    start = time.perf_counter()
    protect_fp32_nodes(library, parsed.network)
    with message_log(library).collect() as messages:
        config = create_config(parsed, profiles, options)
        timing_problem = load_timing_cache(library, config, timing_cache) if has_timings else ""
        config.progress_monitor = _create_monitor(library, on_progress, failures)
        del messages[:]  # an unreadable timing cache is no reason for a failed build
        engine = parsed.builder.build_serialized_network(parsed.network, config)
    if failures:
        raise failures[0]
    if engine is None:
        raise explain_failure(library, messages)
    seconds = time.perf_counter() - start
    timings = _serialize_timing_cache(config) if has_timings else b""
    return BuiltEngine(bytes(memoryview(engine)), messages, seconds, timings, timing_problem)


def create_config(parsed: ParsedNetwork, profiles: Sequence[Profile], options: EngineOptions) -> Any:
    """Create the builder configuration of profiles and options."""
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
    if options.cuda_graph and hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Without it, TensorRT for RTX may allocate memory during a run, which a CUDA graph cannot record.
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if parsed.library.name == RTX and has_gpu() and supports_gpu(parsed.library, find_gpu()):
        # By default engines are for many kinds of GPUs, and not for Turing.
        config.num_compute_capabilities = 1
        config.set_compute_capability(module.ComputeCapability.CURRENT, 0)
    # `inspect_engine` needs details.
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.dla_core is not None:
        available = getattr(parsed.builder, "num_DLA_cores", 0)
        if options.dla_core >= available:
            raise InputError(
                f"options.dla_core is {options.dla_core}, and {parsed.library.description} sees {available} DLA cores "
                "here; use a smaller number, or leave it out to build for the GPU"
            )
        config.default_device_type = module.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(module.BuilderFlag.GPU_FALLBACK)
    return config


def load_timing_cache(library: Library, config: Any, data: bytes) -> str:
    """Set the timing cache of a build.

    It starts empty where `data` is, or where the library refuses it. A cache belongs to one version of the library and
    one kind of GPU.

    Returns:
        Reason why `data` was not used, or "".
    """
    problem = _set_timing_cache(library, config, data) if data else ""
    if problem or not data:
        _set_timing_cache(library, config, b"")
    return problem


def explain_failure(library: Library, messages: Sequence[Message]) -> BuildError:
    """Return the error of a failed build."""
    reason = find_reason(messages)
    if is_out_of_memory(messages):
        return BuildError(
            f"{library.description} ran out of the GPU's memory ({reason}); close other processes on the GPU, "
            "build for a smaller batch or size, or set a smaller workspace_mb",
            reason,
        )
    if "REQUIRE_USER_ALLOCATION" in reason:
        return BuildError(f"{library.description} cannot build for CUDA graphs: {reason}; give --no-cuda-graph", reason)
    if "insufficient workspace" in reason:
        return BuildError(f"{library.description} needs more scratch memory: {reason}; raise workspace_mb", reason)
    return BuildError(f"{library.description} cannot build the network: {reason}; see `seginfer check`", reason)


def _create_monitor(library: Library, on_progress: Progress | None, failures: list[BaseException]) -> Any:
    """Return a monitor that reports steps.

    An exception from `on_progress` is appended to `failures` and cancels the build.
    """
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
            if phase is not None and step + 1 < phase.total:  # the last step is reported when the phase ends
                report(phase._replace(done=step + 1))
            return not failures

    return Monitor()


def _set_timing_cache(library: Library, config: Any, data: bytes) -> str:
    with message_log(library).collect() as messages, _without_deprecation():
        cache = config.create_timing_cache(data)
        is_set = cache is not None and config.set_timing_cache(cache, False)
    # A cache that cannot be read comes back empty, with a warning in the log.
    warning = next((m.text for m in messages if m.severity == "WARNING" and "timing cache" in m.text.lower()), "")
    return warning if warning or is_set else f"{library.description} refused it"


def _serialize_timing_cache(config: Any) -> bytes:
    with _without_deprecation():
        cache = config.get_timing_cache()
        data = None if cache is None else cache.serialize()
    return b"" if data is None else bytes(memoryview(data))


@contextmanager
def _without_deprecation() -> Iterator[None]:
    # TensorRT for RTX deprecates timing caches from its version 1.2 on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
