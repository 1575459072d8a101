"""OnnxRuntimeBackend: ONNX Runtime on the CPU, or on CUDA where that is really there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import BackendError, BackendUnavailableError, InputError
from .._machine import checked_threads
from . import Tensor

try:
    import onnxruntime as ort
except ImportError as error:
    raise BackendUnavailableError(
        f"backend 'onnxruntime' is not installed ({error}); pip install 'seginfer[cpu]', "
        "or 'seginfer[gpu]' on a machine with CUDA"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"

_log = logging.getLogger("seginfer")


class OnnxRuntimeBackend:
    """Runs an .onnx file in ONNX Runtime.

    Args:
        path: the model.
        outputs: names of the outputs to compute; the graph may have more.
        device: "cpu", "cuda", "cuda:<index>", or "auto": CUDA if its provider loads, the CPU otherwise.
        threads: CPU threads for one inference; None takes every core that this process may use.

    Raises:
        BackendUnavailableError: if CUDA was asked for by name and its provider does not load.
        BackendError: if ONNX Runtime rejects the model.
    """

    name = "onnxruntime"

    def __init__(
        self, path: str | Path, outputs: Sequence[str], *, device: str = "auto", threads: int | None = None
    ) -> None:
        self.threads = checked_threads(threads)
        wants_cuda, index = _parse_device(device)
        has_cuda = _CUDA in ort.get_available_providers()
        if wants_cuda and not has_cuda:
            raise BackendUnavailableError(
                f"device {device!r} needs ONNX Runtime's CUDA provider, got {ort.get_available_providers()}; "
                "pip install 'seginfer[gpu]', or use device='cpu'"
            )
        # TF32 would keep 10 bits of what the graph and its certificate call fp32.
        cuda = [(_CUDA, {"device_id": index, "use_tf32": 0})] if has_cuda and device != "cpu" else []
        self._session = _session(path, [*cuda, _CPU], self.threads)
        on_cuda = self._session.get_providers()[0] == _CUDA
        if wants_cuda and not on_cuda:
            raise BackendUnavailableError(
                f"device {device!r} was asked for, but the CUDA provider did not load; "
                "check the driver with nvidia-smi, or use device='cpu'"
            )
        self.device = f"cuda:{index}" if on_cuda else "cpu"
        self.reason = _reason(device, has_cuda, on_cuda)
        self._outputs = tuple(outputs)
        network_input = self._session.get_inputs()[0]
        self._input = network_input.name
        self.batch_size: int | None = network_input.shape[0] if isinstance(network_input.shape[0], int) else None
        _log.info("%r", self)

    @property
    def description(self) -> str:
        """Name, version, device and settings in one line."""
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return f"onnxruntime {ort.__version__} on {self.device}{threads}"

    def __repr__(self) -> str:
        return f"<{self.description}; {self.reason}>"

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the network on a batch; see `Backend.infer`."""
        session = self._open_session()
        try:
            binding = session.io_binding()
            binding.bind_cpu_input(self._input, np.ascontiguousarray(batch))
            for name in self._outputs:
                _bind_output(binding, name, None if out is None else out[name])
            session.run_with_iobinding(binding)
            if out is None:
                return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))
            return out
        except InputError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            got = f"{batch.dtype} {batch.shape}"
            raise BackendError(f"{self.description} failed on a batch {got}: {_one_line(error)}") from error

    def close(self) -> None:
        """Free the session; it cannot run afterwards."""
        self._session = None

    def _open_session(self) -> Any:
        if self._session is None:
            raise BackendError("the model is closed; open it again")
        return self._session


def _bind_output(binding: Any, name: str, array: Tensor | None) -> None:
    """Let the runtime write into an array of an earlier run, whose shape it checks, or into memory of its own."""
    if array is None:
        binding.bind_output(name)
    elif array.flags.c_contiguous and array.flags.writeable:
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    else:
        raise InputError(f"out[{name!r}] must be writable and contiguous; hand back what an earlier call returned")


def _session(path: str | Path, providers: Sequence[Any], threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Waiting threads that spin take the cores from the robot's other processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # warnings of the optimiser are not for the user
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise BackendError(f"onnxruntime {ort.__version__} cannot load {path}: {_one_line(error)}") from error


def _parse_device(device: str) -> tuple[bool, int]:
    """Return (CUDA was asked for by name, device index)."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise InputError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>', got {device!r}")
    return kind == "cuda", int(index or 0)


def _reason(device: str, has_cuda: bool, on_cuda: bool) -> str:
    if device != "auto":
        return f"device {device!r} was asked for"
    if on_cuda:
        return "the CUDA provider loaded"
    return "the CUDA provider did not load" if has_cuda else "this ONNX Runtime has no CUDA provider"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
