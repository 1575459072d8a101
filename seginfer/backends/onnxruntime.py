"""OnnxRuntimeBackend: ONNX Runtime on the CPU, or on CUDA where that is really there."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._backend import CLOSED, DeviceTensor, Tensor
from .._cuda._tensors import TensorMemory
from .._errors import BackendError, BackendUnavailableError, InputError
from .._geometry import Size
from .._machine import checked_threads, parse_device

try:
    import onnxruntime as ort
except ImportError as error:
    raise BackendUnavailableError(
        f"backend 'onnxruntime' is not installed ({error}); pip install 'seginfer[cpu]', "
        "or 'seginfer[gpu]' on a machine with CUDA"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._cuda._launch import Gpu

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_MEMORY = "cuda"  # where executions have their tensors, in ONNX Runtime's words

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
        kind, index = parse_device(device)
        wants_cuda = kind == "cuda"
        has_cuda = _CUDA in ort.get_available_providers()
        if has_cuda and device != "cpu":
            _load_cuda()
        if wants_cuda and not has_cuda:
            raise BackendUnavailableError(
                f"device {device!r} needs ONNX Runtime's CUDA provider, got {ort.get_available_providers()}; "
                "pip install 'seginfer[gpu]', or use device='cpu'"
            )
        self._path = path
        self._session = _session(path, _cuda_first(index) if has_cuda and device != "cpu" else [_CPU], self.threads)
        on_cuda = self._session.get_providers()[0] == _CUDA
        if wants_cuda and not on_cuda:
            raise BackendUnavailableError(
                f"device {device!r} was asked for, but the CUDA provider did not load; "
                "check the driver with nvidia-smi, pip install 'onnxruntime-gpu[cuda,cudnn]', or use device='cpu'"
            )
        self.device = f"cuda:{index}" if on_cuda else "cpu"
        self.device_index: int | None = index if on_cuda else None
        self.reason = _reason(device, has_cuda, on_cuda)
        self._outputs = tuple(outputs)
        network_input = self._session.get_inputs()[0]
        self._input = network_input.name
        self.batch_size: int | None = network_input.shape[0] if isinstance(network_input.shape[0], int) else None
        _log.info("%r", self)

    def most_images(self, input_hw: Size) -> int | None:
        """Return the graph's batch size, if it has only one."""
        del input_hw
        return self.batch_size

    def places(self, count: int, input_hw: Size) -> int:
        """Return how many places the batch for `count` images has."""
        del input_hw
        return self.batch_size or count

    def execution(self, shape: tuple[int, ...], gpu: Gpu) -> OnnxRuntimeExecution:
        """Return the network in the memory of a GPU; see `DeviceBackend.execution`."""
        if self._open_session() is None or self.device_index is None:
            raise BackendUnavailableError(f"{self.description} has no memory of a GPU; open it with device='cuda'")
        return OnnxRuntimeExecution(self._session, self._path, self._outputs, shape, gpu, self.device_index)

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
            raise BackendError(CLOSED)
        return self._session


class OnnxRuntimeExecution:
    """See `Execution`. ONNX Runtime keeps to one stream per session, so that every execution has a session."""

    obstacle = "ONNX Runtime frees and reuses memory of the host within a run, which a replay would do again"

    def __init__(
        self,
        session: Any,
        path: str | Path,
        outputs: Sequence[str],
        shape: tuple[int, ...],
        gpu: Gpu,
        device_index: int,
    ) -> None:
        self._path, self._index = path, device_index
        self._providers = session.get_providers()
        self._node = session.get_inputs()[0]
        self._bound: tuple[int, Any, Any, Any] | None = None  # stream, session, binding, options
        self.memory = TensorMemory(gpu)
        try:
            self.input = self.memory.tensor(shape, _numpy_type(self._node.type))
            self.outputs: dict[str, DeviceTensor] = {
                name: self.memory.tensor(value.shape(), _numpy_type(value.data_type()))
                for name, value in self._first_run(session, outputs).items()
            }
        except BaseException:
            self.memory.close()
            raise

    def _first_run(self, session: Any, outputs: Sequence[str]) -> dict[str, Any]:
        """Run once to learn the shapes of the outputs, which a graph need not state."""
        binding = session.io_binding()
        self._bind(binding.bind_input, self._node.name, self.input)
        for name in outputs:
            binding.bind_output(name, _MEMORY, self._index)
        _run_bound(session, binding, None, self.input)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def enqueue(self, stream: Any) -> None:
        """Start the network; see `Execution.enqueue`."""
        handle = int(stream.handle)
        if self._bound is None or self._bound[0] != handle:
            self._bound = handle, *self._on_stream(handle)
        _, session, binding, options = self._bound
        _run_bound(session, binding, options, self.input)

    def _on_stream(self, handle: int) -> tuple[Any, Any, Any]:
        session = _session(self._path, _cuda_first(self._index, handle), 1)
        if session.get_providers() != self._providers:  # it falls back to others by itself
            raise BackendError(
                f"ONNX Runtime could not open {self._path} on the GPU once more; free GPU memory, or use pixels='cpu'"
            )
        binding = session.io_binding()
        self._bind(binding.bind_input, self._node.name, self.input)
        for name, tensor in self.outputs.items():
            self._bind(binding.bind_output, name, tensor)
        options = ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return session, binding, options

    def _bind(self, bind: Any, name: str, tensor: DeviceTensor) -> None:
        bind(name, _MEMORY, self._index, np.dtype(tensor.dtype), tensor.shape, tensor.address)

    def close(self) -> None:
        """Free session and memory."""
        self._bound = None
        self.memory.close()


def _load_cuda() -> None:
    """Load CUDA's libraries from Python's packages, where they are; the provider finds them then, and not by itself."""
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what is missing; whether the provider loads is what counts
            ort.preload_dlls()


def _cuda_first(index: int, stream: int | None = None) -> list[Any]:
    """Return the providers of a session on a GPU; with `stream`, one that starts its work on that stream of CUDA."""
    # TF32 would keep 10 bits of what the graph and its certificate call fp32.
    options: dict[str, Any] = {"device_id": index, "use_tf32": 0}
    if stream is not None:
        options["user_compute_stream"] = str(stream)
    return [(_CUDA, options), _CPU]


def _numpy_type(name: str) -> str:
    """Return the NumPy name of "tensor(float)"."""
    name = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _run_bound(session: Any, binding: Any, options: Any, given: DeviceTensor) -> None:
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        got = f"{given.dtype} {given.shape}"
        raise BackendError(f"onnxruntime {ort.__version__} failed on a batch {got}: {_one_line(error)}") from error


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


def _reason(device: str, has_cuda: bool, on_cuda: bool) -> str:
    if device != "auto":
        return f"device {device!r} was asked for"
    if on_cuda:
        return "the CUDA provider loaded"
    return "the CUDA provider did not load" if has_cuda else "this ONNX Runtime has no CUDA provider"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
