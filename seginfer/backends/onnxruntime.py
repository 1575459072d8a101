"""Backend for ONNX Runtime on the CPU or on CUDA."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._cuda.recording import making
from .._errors import BackendError, BackendUnavailableError, InputError
from .._geometry.geometry import Size
from .._system.environment import parse_device, resolve_threads
from .._system.fork import hold_forks, leak_in_children
from ._onnxruntime_session import CPU, CUDA, SHRINK, STEADY, cuda_first, join_lines, load_cuda, open_session, ort
from ._protocol import CLOSED, Execution, Tensor

if TYPE_CHECKING:
    from .._cuda.tensors import DeviceMemory
    from ._onnxruntime_execution import StreamSession

_log = logging.getLogger("seginfer")


class OnnxRuntimeBackend:
    """Runs an .onnx file in ONNX Runtime.

    Args:
        path: the model.
        outputs: names of the outputs to compute. The graph may have more.
        device: "cpu", "cuda", "cuda:<index>", or "auto": CUDA if its provider loads, the CPU otherwise.
        threads: CPU threads for one inference. None takes every core that this process may use.

    Raises:
        BackendUnavailableError: if CUDA is requested by name and its provider does not load.
        BackendError: if ONNX Runtime rejects the model.
    """

    name = "onnxruntime"

    def __init__(
        self, path: str | Path, outputs: Sequence[str], *, device: str = "auto", threads: int | None = None
    ) -> None:
        self.threads = resolve_threads(threads)
        kind, index = parse_device(device)
        wants_cuda = kind == "cuda"
        has_cuda = CUDA in ort.get_available_providers()
        if has_cuda and device != "cpu":
            load_cuda()
        if wants_cuda and not has_cuda:
            raise BackendUnavailableError(
                f"device {device!r} needs ONNX Runtime's CUDA provider, got {ort.get_available_providers()}; "
                "pip install 'seginfer[gpu]', or use device='cpu'"
            )
        self._path = path
        providers = cuda_first(index) if has_cuda and device != "cpu" else [CPU]
        with making(), hold_forks():  # in this order everywhere
            self._session = open_session(path, providers, self.threads)
            leak_in_children(self._session)
        on_cuda = self._session.get_providers()[0] == CUDA
        if wants_cuda and not on_cuda:
            raise BackendUnavailableError(
                f"device {device!r} was requested, but the CUDA provider did not load; "
                "check the driver with nvidia-smi, pip install 'onnxruntime-gpu[cuda,cudnn]', or use device='cpu'"
            )
        self.device = f"cuda:{index}" if on_cuda else "cpu"
        self.device_index: int | None = index if on_cuda else None
        self.reason = _reason(device, has_cuda, on_cuda)
        self._providers = self._session.get_providers()
        self._sharing = threading.Lock()
        self._shared: StreamSession | None = None
        self._turn: AbstractContextManager[object] = nullcontext()
        self._shape: tuple[int, ...] = ()
        self._outputs = tuple(outputs)
        network_input = self._session.get_inputs()[0]
        self._input = network_input.name
        first = next(iter(network_input.shape or ()), None)  # the file may state no shape
        self.batch_size: int | None = first if isinstance(first, int) and first > 0 else None
        _log.info("%r", self)

    def max_batch_size(self, input_hw: Size) -> int | None:
        """Return the fixed batch size of the graph, or None."""
        del input_hw
        return self.batch_size

    def padded_batch_size(self, count: int, input_hw: Size) -> int:
        """Return the size of the batch that carries `count` images."""
        del input_hw
        return self.batch_size or count

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> Execution:
        """Make an execution. See `DeviceBackend.execution`."""
        if self.device_index is None:
            raise BackendUnavailableError(f"{self.description} has no GPU memory; open it with device='cuda'")
        from ._onnxruntime_execution import OnnxRuntimeExecution

        return OnnxRuntimeExecution(self._share(memory, self.device_index), self._outputs, shape, memory)

    def _share(self, memory: DeviceMemory, device_index: int) -> StreamSession:
        """Return the session of all executions. It replaces the first one, so that the GPU holds the weights once."""
        from ._onnxruntime_execution import StreamSession

        with making(), self._sharing:
            self._open_session()
            if self._shared is None:
                self._session = None
                try:
                    stream = memory.stream.device.create_stream()
                    self._shared = StreamSession(self._path, device_index, self._providers, stream)
                except BaseException:
                    self._session = open_session(self._path, cuda_first(device_index), self.threads)
                    raise
                self._session, self._turn = self._shared.session, self._shared.turn
            return self._shared

    @property
    def description(self) -> str:
        """Name, version, device and settings in one line."""
        threads = f", {self.threads} threads" if self.device == "cpu" else ""
        return f"onnxruntime {ort.__version__} on {self.device}{threads}"

    def __repr__(self) -> str:
        return f"<{self.description}; {self.reason}>"

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the network on a batch. See `Backend.infer`."""
        session = self._open_session()
        try:
            binding = session.io_binding()
            binding.bind_cpu_input(self._input, np.ascontiguousarray(batch))
            for name in self._outputs:
                _bind_output(binding, name, None if out is None else out[name])
            with self._turn:
                session.run_with_iobinding(binding, self._options(batch.shape))
            if out is None:
                return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))
            return out
        except InputError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            got = f"{batch.dtype} {batch.shape}"
            raise BackendError(f"{self.description} failed on a batch {got}: {join_lines(error)}") from error

    def _options(self, shape: tuple[int, ...]) -> Any:
        """Return the options of a run. Memory of an earlier shape is given back."""
        # ONNX Runtime keeps what the largest image ever needed. A camera has one shape and pays nothing for this.
        options = STEADY if shape == self._shape else SHRINK
        self._shape = shape
        return options

    def close(self) -> None:
        """Free the session. Calls afterwards raise BackendError."""
        with making():
            self._session = None
            if self._shared is not None:
                self._shared.close()

    def _open_session(self) -> Any:
        if self._session is None:
            raise BackendError(CLOSED)
        return self._session


def _bind_output(binding: Any, name: str, array: Tensor | None) -> None:
    """Bind an output to an array, or to new memory for None.

    ONNX Runtime checks the shape of the array.
    """
    if array is None:
        binding.bind_output(name)
    elif array.flags.c_contiguous and array.flags.writeable:
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    else:
        raise InputError(f"out[{name!r}] must be writable and contiguous; pass the result of an earlier call")


def _reason(device: str, has_cuda: bool, on_cuda: bool) -> str:
    if device != "auto":
        return f"device {device!r} was requested"
    if on_cuda:
        return "the CUDA provider loaded"
    return "the CUDA provider did not load" if has_cuda else "this ONNX Runtime has no CUDA provider"
