"""The process in which `_isolated` lets NVIDIA's library work: reads one request, writes one JSON object per line."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from .._errors import BackendUnavailableError, SegInferError
from .._spec.schema import structure, unstructure
from .build import BuildError, BuildStep
from .library import has_gpu
from .make import build_here, check_here
from .options import EngineOptions
from .report import CheckReport, EngineReport


class Request(NamedTuple):
    """What a worker is to do."""

    path: str
    has_progress: bool
    """Tell every step of the build."""
    options: dict[str, Any] | None = None
    """Those of an engine that is to be kept; None for a check."""
    target: str = ""
    timing_cache: str = ""
    """File to read and write; empty for none."""
    device_id: int = 0


def main() -> None:
    """Do what the command line asks for in JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    Thread(target=_end_with_parent, daemon=True).start()
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library prints lines of its own there

    def tell(kind: str, value: Any) -> None:
        channel.write(json.dumps({kind: value}) + "\n")
        channel.flush()

    try:
        tell("report", unstructure(_work(Request(*json.loads(sys.argv[1])), tell)))
    except SegInferError as error:
        tell("error", [type(error).__name__, str(error), error.reason if isinstance(error, BuildError) else ""])


def _end_with_parent() -> None:
    """Wait for the end of standard input, a pipe that nobody writes to, and that closes however the parent ends.

    Without it, a build whose parent was killed would go on for hours, and write beside a target that others now own.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)  # whatever the library is at in other threads


def _work(request: Request, tell: Any) -> CheckReport | EngineReport:
    def on_step(step: BuildStep) -> None:
        tell("progress", step)

    def on_stage(stage: str) -> None:
        tell("stage", stage)

    progress = on_step if request.has_progress else None
    if request.options is None:
        return check_here(request.path, on_progress=progress, on_stage=on_stage)
    _use_device(request.device_id)
    return build_here(
        request.path,
        structure(EngineOptions, request.options, "options"),
        Path(request.target),
        Path(request.timing_cache) if request.timing_cache else None,
        on_stage=on_stage,
        on_warning=lambda text: tell("warning", text),
        on_progress=progress,
    )


def _use_device(index: int) -> None:
    """Make a GPU the one that the library takes, by making its primary context current, as cudaSetDevice does."""
    if index == 0:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    driver = ctypes.CDLL("libcuda.so.1") if has_gpu() else None  # which has initialised it
    is_ok = (
        driver is not None
        and driver.cuDeviceGet(ctypes.byref(device), index) == 0
        and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        and driver.cuCtxSetCurrent(context) == 0
    )
    if not is_ok:
        raise BackendUnavailableError(f"cannot use the GPU cuda:{index}; `seginfer doctor` shows what is here")
