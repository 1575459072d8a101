"""Worker process of `isolated`. It reads one request and writes one JSON object per line."""

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
from .._system.driver import has_gpu
from .build import BuildError, BuildStep
from .make import build_in_process, check_in_process
from .options import EngineOptions
from .report import CheckReport, EngineReport


class Request(NamedTuple):
    """Work for a worker."""

    path: str
    has_progress: bool
    """Report every step of the build."""
    options: dict[str, Any] | None = None
    """Options of an engine to build; None for a check."""
    target: str = ""
    timing_cache: str = ""
    """File to read and write; empty for none."""
    device_id: int = 0


def main() -> None:
    """Run the request on the command line, in JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    Thread(target=_end_with_parent, daemon=True).start()
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library prints lines of its own there

    def send(kind: str, value: Any) -> None:
        channel.write(json.dumps({kind: value}) + "\n")
        channel.flush()

    try:
        send("report", unstructure(_run(Request(*json.loads(sys.argv[1])), send)))
    except SegInferError as error:
        send("error", [type(error).__name__, str(error), error.reason if isinstance(error, BuildError) else ""])


def _end_with_parent() -> None:
    """End this process when standard input closes."""
    # It is a pipe that nobody writes to, and that closes however the parent ends. Without this, a build whose parent
    # was killed would go on for hours, and write beside a target that others now own.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)  # other threads may be inside the library


def _run(request: Request, send: Any) -> CheckReport | EngineReport:
    def on_step(step: BuildStep) -> None:
        send("progress", step)

    def on_stage(stage: str) -> None:
        send("stage", stage)

    progress = on_step if request.has_progress else None
    if request.options is None:
        return check_in_process(request.path, on_progress=progress, on_stage=on_stage)
    _use_device(request.device_id)
    return build_in_process(
        request.path,
        structure(EngineOptions, request.options, "options"),
        Path(request.target),
        Path(request.timing_cache) if request.timing_cache else None,
        on_stage=on_stage,
        on_warning=lambda text: send("warning", text),
        on_progress=progress,
    )


def _use_device(index: int) -> None:
    """Make a GPU current, as cudaSetDevice does."""
    if index == 0:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    driver = ctypes.CDLL("libcuda.so.1") if has_gpu() else None  # `has_gpu` has initialised it
    is_ok = (
        driver is not None
        and driver.cuDeviceGet(ctypes.byref(device), index) == 0
        and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
        and driver.cuCtxSetCurrent(context) == 0
    )
    if not is_ok:
        raise BackendUnavailableError(f"cannot use the GPU cuda:{index}; `seginfer doctor` shows what is here")
