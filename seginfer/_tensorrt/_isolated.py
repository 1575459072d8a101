"""check(): what NVIDIA's parser and builder make of an ONNX file, found out in a process of its own.

The libraries crash on some malformed files (a DepthToSpace with block size 0, a function that calls itself), never end
on others, and print to standard output; none of that may reach the caller's process.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Timer
from typing import IO

from .. import _errors
from .._errors import BackendError, InputError, SegInferError
from .._schema import structure
from ._build import Progress
from ._report import CheckReport

TIMEOUT_S = 900.0

_log = logging.getLogger("seginfer")

# The search path of this process, which may hold more than the environment says; `sys` cannot be shadowed by a file.
_START = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from seginfer._tensorrt._worker import main; main()"


def check(path: str | Path, *, on_progress: Progress | None = None, timeout_s: float = TIMEOUT_S) -> CheckReport:
    """Parse and build an ONNX file with TensorRT, where it and a GPU are there, or else with TensorRT for RTX.

    The engine is not kept. Where the file leaves dimensions open, it is built for a range of shapes: see the report's
    inputs.

    Args:
        path: the .onnx file; with a ModelSpec inside, that says which sizes the network takes.
        on_progress: called with the name of a phase, and how many of its steps are done and there are.
        timeout_s: seconds after which the work is given up.

    Returns:
        Whether the file is supported; if not, which nodes are in the way and why; if so, how many kernels it becomes.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is not a complete and valid ONNX model, or contradicts its spec.
        MissingDependencyError: if neither library is installed.
        BackendError: if the library crashed or did not end in time.
    """
    if not timeout_s > 0:
        raise InputError(f"timeout_s must be positive, got {timeout_s}")
    wishes = ["progress"] if on_progress else []
    command = [sys.executable, "-c", _START, str(path), *wishes, "\n".join(sys.path)]
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True) as worker,
    ):
        stages = ["starting"]
        overdue = Event()

        def give_up() -> None:
            overdue.set()
            worker.kill()

        timer = Timer(timeout_s, give_up)
        timer.start()
        try:
            report = _listen(worker.stdout or (), path, on_progress, stages)
            if report is None:
                worker.wait()
        finally:
            timer.cancel()
            worker.kill()
        if report is None:
            raise BackendError(_death(worker.returncode, overdue.is_set(), stages[-1], path, timeout_s, stderr))
    return report


def _listen(
    lines: Iterable[str], path: str | Path, on_progress: Progress | None, stages: list[str]
) -> CheckReport | None:
    """Follow the worker until its report; None if it ends without one."""
    for line in lines:
        if not line.endswith("\n"):  # it was ended in the middle of a word
            return None
        for kind, value in json.loads(line).items():
            if kind == "report":
                return structure(CheckReport, value, "report")
            if kind == "error":
                raise _error(*value)
            if kind == "stage":
                stages.append(value)
                _log.info("%s: %s", path, value)
            elif on_progress is not None:
                on_progress(*value)
    return None


def _error(kind: str, message: str) -> SegInferError:
    error: type[SegInferError] = getattr(_errors, kind, BackendError)
    return error(message)


def _death(code: int, is_overdue: bool, stage: str, path: str | Path, timeout_s: float, stderr: IO[bytes]) -> str:
    """Say in one line why the worker ended without a report."""
    if is_overdue:
        return f"{path} was given up after {timeout_s:g} s ({stage}); give more time, or check it with onnx.checker"
    if code == -signal.SIGKILL:
        return (
            f"{path} was given up ({stage}): the system ended the process, as it does when memory runs out; free some"
        )
    if code < 0:
        name = signal.Signals(-code).name
        return f"{path} crashed NVIDIA's library ({name}; {stage}); check it with onnx.checker, export it again"
    stderr.seek(0)
    last = (stderr.read().decode(errors="replace").splitlines() or ["no message"])[-1]
    return f"{path} could not be checked ({last}); report this with the file"
