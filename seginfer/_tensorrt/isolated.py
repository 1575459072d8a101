"""Run NVIDIA's libraries in a process of their own.

The libraries crash on some malformed files (a DepthToSpace with block size 0, a function that calls itself), never end
on others, and print to standard output. None of this may reach the caller's process.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Timer
from typing import IO, Any

from .. import _errors
from .._errors import BackendError, InputError, SegInferError
from .._spec.schema import structure, unstructure
from .._system.atomic import atomic_path
from .build import BuildError, BuildStep, Progress
from .options import EngineOptions
from .report import CheckReport, EngineReport
from .worker import Request

TIMEOUT_S = 900.0
BUILD_TIMEOUT_S = 4 * 3600.0
"""A small device may need hours for a large network at the highest optimization level."""

_log = logging.getLogger("seginfer")

# Takes over the search path of this process, which may differ from the environment. No file can shadow `sys`.
_START = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from seginfer._tensorrt.worker import main; main()"


def check(path: str | Path, *, on_progress: Progress | None = None, timeout_s: float = TIMEOUT_S) -> CheckReport:
    """Check that TensorRT can build an ONNX file.

    The file is parsed, built and verified, with TensorRT where it and a GPU are present and with TensorRT for RTX
    otherwise. The engine is not kept. Where the file leaves dimensions open, it
    is built for a range of shapes: see `inputs` of the report.

    Args:
        path: the .onnx file. A ModelSpec inside names the sizes that the network takes.
        on_progress: called with every step of the build. An exception from it ends the work.
        timeout_s: seconds after which the work is stopped.

    Returns:
        Whether the file is supported, with the nodes that fail and their reasons, or the number of kernels.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is not a complete and valid ONNX model, or contradicts its spec.
        MissingDependencyError: if neither library is installed.
        BackendError: if the library crashed or did not end in time.
    """
    found = _run(Request(str(path), on_progress is not None), on_progress, timeout_s)
    return structure(CheckReport, found, "report")


def build_isolated(
    path: str | Path,
    options: EngineOptions,
    target: Path,
    *,
    timing_cache: Path | None = None,
    device_id: int = 0,
    on_progress: Progress | None = None,
    timeout_s: float = BUILD_TIMEOUT_S,
) -> EngineReport:
    """Build, verify and write the engine of an ONNX file.

    Args:
        path: the .onnx file. A ModelSpec inside names the sizes that the network takes.
        options: how to build it.
        target: file to write. On any failure it stays as it was.
        timing_cache: file with measurements of earlier builds on this device, read and then written. One that the
            library refuses is replaced, with a warning in the log.
        device_id: the GPU to build on and for.
        on_progress: called with every step of the build. An exception from it ends the work.
        timeout_s: seconds after which the work is stopped.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is not a complete and valid ONNX model, or contradicts its spec.
        InputError: if the options contradict the file, or request hardware that is missing.
        MissingDependencyError: if the library is not installed, or there is no GPU.
        BuildError: if the network cannot be built, or the engine fails verification.
        BackendError: if the library crashed or did not end in time.
        OutputWriteError: if the engine could not be written.
    """
    with atomic_path(target) as part, scratch_copy(timing_cache, part) as timing:
        request = Request(
            str(path),
            on_progress is not None,
            unstructure(options),
            str(part),
            "" if timing is None else str(timing),
            device_id,
        )
        return structure(EngineReport, _run(request, on_progress, timeout_s), "report")


@contextmanager
def scratch_copy(kept: Path | None, beside: Path) -> Iterator[Path | None]:
    """Yield a copy of the timing cache.

    A worker may be killed while it writes the copy. One that was written is kept when the block ends. A cache that
    cannot be read or kept makes the next build slower, and is no error.

    Args:
        kept: the timing cache, or None.
        beside: path whose folder holds the copy.
    """
    if kept is None:
        yield None
        return
    scratch = beside.with_name(f"{beside.name}.timing")
    try:
        with _logged_errors(kept), suppress(FileNotFoundError):
            shutil.copyfile(kept, scratch)
        yield scratch
        if scratch.exists():
            with _logged_errors(kept), atomic_path(kept) as part:
                shutil.copyfile(scratch, part)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _logged_errors(kept: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # OutputWriteError is one
        _log.warning("the timing cache %s cannot be used: %s", kept, error)


def _run(request: Request, on_progress: Progress | None, timeout_s: float) -> Any:
    """Run a request in a worker, and return its report."""
    if not timeout_s > 0:
        raise InputError(f"timeout_s must be positive, got {timeout_s}; leave it out for the default")
    path = request.path
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name {path!r} is not UTF-8, as NVIDIA's libraries need it; rename it") from error
    command = [sys.executable, "-c", _START, json.dumps(request), "\n".join(sys.path)]
    with (
        tempfile.TemporaryFile() as stderr,
        # Its input is closed when this process ends, however it does, and so ends the worker.
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True) as worker,
    ):
        stages = ["starting"]
        overdue = Event()

        def stop() -> None:
            overdue.set()
            worker.kill()

        timer = Timer(timeout_s, stop)
        timer.start()
        try:
            report = _read_report(worker.stdout or (), path, on_progress, stages)
            if report is None:
                worker.wait()
        finally:
            timer.cancel()
            worker.kill()
        if report is None:
            limit_s = timeout_s if overdue.is_set() else None
            raise BackendError(_explain_exit(worker.returncode, limit_s, stages[-1], request, stderr))
    return report


def _read_report(lines: Iterable[str], path: str, on_progress: Progress | None, stages: list[str]) -> Any:
    """Read messages up to the report. None if there is none."""
    for line in lines:
        if not line.endswith("\n"):  # the worker ended in the middle of a line
            return None
        for kind, value in json.loads(line).items():
            if kind == "report":
                return value
            if kind == "error":
                raise _make_error(*value)
            if kind == "warning":
                _log.warning("%s: %s", path, value)
            elif kind == "stage":
                stages.append(value)
                _log.info("%s: %s", path, value)
            elif on_progress is not None:
                on_progress(BuildStep(*value))
    return None


def _make_error(kind: str, message: str, reason: str) -> SegInferError:
    if kind == BuildError.__name__:
        return BuildError(message, reason)
    error: type[SegInferError] = getattr(_errors, kind, BackendError)
    return error(message)


def _explain_exit(code: int, limit_s: float | None, stage: str, request: Request, stderr: IO[bytes]) -> str:
    """Explain why a worker ended without a report.

    `limit_s` is the time limit if it was exceeded.
    """
    path, is_check = request.path, request.options is None
    if limit_s is not None:
        remedy = "give more time" if is_check else "ask for fewer profiles or a lower optimization level"
        return f"{path} was given up after {limit_s:g} s ({stage}); {remedy}, or check it with onnx.checker"
    if code == -signal.SIGKILL:
        return f"{path} was given up ({stage}): the system ended the process, probably for lack of memory; free some"
    if code < 0:
        name = signal.Signals(-code).name
        return f"{path} crashed NVIDIA's library ({name}; {stage}); check it with onnx.checker, export it again"
    stderr.seek(0)
    last = (stderr.read().decode(errors="replace").splitlines() or ["no message"])[-1]
    return f"{path} could not be {'checked' if is_check else 'built'} ({last}); report this with the file"
