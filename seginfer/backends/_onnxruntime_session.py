"""Sessions of ONNX Runtime: providers and threads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from .._cuda.recording import making
from .._errors import BackendError, BackendUnavailableError
from .._system.fork import hold_forks

try:
    with hold_forks():
        import onnxruntime as ort
except ImportError as error:
    raise BackendUnavailableError(
        f"backend 'onnxruntime' is not installed ({error}); pip install 'seginfer[cpu]', "
        "or 'seginfer[gpu]' on a machine with CUDA"
    ) from error

__all__ = [
    "CPU",
    "CUDA",
    "SHRINK",
    "STEADY",
    "cuda_first",
    "join_lines",
    "load_cuda",
    "open_session",
    "ort",
    "stop_runs",
]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
STEADY, SHRINK = ort.RunOptions(), ort.RunOptions()
"""Options of a run. After one with SHRINK, free memory goes back to the system."""
SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def stop_runs() -> None:
    """Stop all runs of this process, now and later. They raise errors."""
    STEADY.terminate = SHRINK.terminate = True


def open_session(path: str | Path, providers: Sequence[Any], threads: int) -> Any:
    """Load a model.

    Raises:
        BackendError: if ONNX Runtime rejects it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads would take cores from the other processes of a robot.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # fatal ones only: users cannot act on warnings, and errors are raised too
    try:
        with making():
            return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise BackendError(f"onnxruntime {ort.__version__} cannot load {path}: {join_lines(error)}") from error


def load_cuda() -> None:
    """Load CUDA's libraries from installed Python packages."""
    # The CUDA provider does not search these packages itself.
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints missing libraries, and `open_session` reports the failure
            ort.preload_dlls()


def cuda_first(index: int, stream: int | None = None) -> list[Any]:
    """Return the providers of a session on a GPU.

    With `stream`, the handle of a CUDA stream, the session runs on that stream.
    """
    # TF32 would keep 10 bits of what the graph and its certificate call fp32.
    # The search of cuDNN that is the default takes seconds for each shape, and may choose other kernels every time.
    options: dict[str, Any] = {"device_id": index, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    if stream is not None:
        options["user_compute_stream"] = str(stream)
    return [(CUDA, options), CPU]


def join_lines(error: Exception) -> str:
    """Return the text of an error in one line."""
    return " ".join(str(error).split())
