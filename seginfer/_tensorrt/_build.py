"""Build an engine from a parsed network: ranges of shapes, progress, and a clean end on Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .._errors import BackendError
from ._library import Library, message_log
from ._parse import ParsedNetwork
from ._report import EngineTensor
from ._words import first_error

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, and how many of its steps are done and there are."""


class BuildError(BackendError):
    """The library parsed the network and cannot build it.

    Attributes:
        reason: what the library said, in one line.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def build_engine(
    parsed: ParsedNetwork,
    inputs: Iterable[EngineTensor],
    *,
    has_details: bool = False,
    on_progress: Progress | None = None,
) -> bytes:
    """Build an engine and return it serialized.

    Args:
        parsed: a network without problems.
        inputs: its inputs; those that vary name the range of shapes to build for.
        has_details: keep names and kinds of all kernels in the engine, for its inspector and the log.
        on_progress: may raise, which stops the build and comes out of this call, as does Ctrl-C.

    Raises:
        BuildError: if the library has no implementation for a part of the network, or no memory.
    """
    library = parsed.library
    config = parsed.builder.create_builder_config()
    _use_ranges(parsed, config, inputs)
    if hasattr(library.module.BuilderFlag, "TF32"):
        # TF32 would keep 10 bits of what the graph and its certificate call fp32.
        config.clear_flag(library.module.BuilderFlag.TF32)
    if has_details:
        config.profiling_verbosity = library.module.ProfilingVerbosity.DETAILED
    failures: list[BaseException] = []
    config.progress_monitor = _monitor(library, on_progress, failures)
    with message_log(library).collect() as messages:
        engine = parsed.builder.build_serialized_network(parsed.network, config)
    if failures:
        raise failures[0]
    if engine is None:
        reason = first_error(messages, parser=True) or "no reason given"
        raise BuildError(f"{library.description} cannot build the network: {reason}; see `seginfer check`", reason)
    return bytes(memoryview(engine))


def _use_ranges(parsed: ParsedNetwork, config: Any, inputs: Iterable[EngineTensor]) -> None:
    varying = [tensor for tensor in inputs if tensor.smallest]
    if not varying:
        return
    profile = parsed.builder.create_optimization_profile()
    for tensor in varying:
        profile.set_shape(tensor.name, tensor.smallest, tensor.likeliest, tensor.largest)
    config.add_optimization_profile(profile)


def _monitor(library: Library, on_progress: Progress | None, failures: list[BaseException]) -> Any:
    """Return a monitor that reports steps, and that cancels the build after the first exception."""
    totals: dict[str, int] = {}

    class Monitor(library.module.IProgressMonitor):  # type: ignore[misc, name-defined]  # known when the program runs
        def __init__(self) -> None:
            library.module.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, _parent: str | None, steps: int) -> None:
            totals[name] = steps

        def phase_finish(self, name: str) -> None:
            totals.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            try:
                if on_progress is not None and not failures:
                    on_progress(name, step + 1, totals.get(name, step + 1))
            except BaseException as failure:  # Ctrl-C too: it must not unwind through NVIDIA's C++
                failures.append(failure)
            return not failures

    return Monitor()
