"""ONNX Runtime in GPU memory, on the caller's stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._cuda.tensors import DeviceMemory, DeviceTensor
from .._errors import BackendError
from ._onnxruntime_session import cuda_first, join_lines, open_session, ort

_MEMORY = "cuda"  # device type of tensors in ONNX Runtime


class OnnxRuntimeExecution:
    """ONNX Runtime's `Execution`."""

    # A session of ONNX Runtime uses one stream. Every execution therefore has its own session.

    obstacle = "ONNX Runtime frees and reuses host memory within a run, and a replay would use it again"

    def __init__(
        self,
        session: Any,
        path: str | Path,
        outputs: Sequence[str],
        shape: tuple[int, ...],
        memory: DeviceMemory,
        device_index: int,
    ) -> None:
        self._path, self._index = path, device_index
        self._providers = session.get_providers()
        self._node = session.get_inputs()[0]
        self._bound: tuple[int, Any, Any, Any] | None = None  # stream, session, binding, options
        self._memory = memory
        try:
            self.input = self._memory.tensor(shape, _numpy_type(self._node.type))
            self.outputs: dict[str, DeviceTensor] = {
                name: self._memory.tensor(value.shape(), _numpy_type(value.data_type()))
                for name, value in self._first_run(session, outputs).items()
            }
        except BaseException:
            self._memory.close()
            raise

    def _first_run(self, session: Any, outputs: Sequence[str]) -> dict[str, Any]:
        """Run once and return the outputs."""
        # The graph need not state the shapes of its outputs.
        binding = session.io_binding()
        self._bind(binding.bind_input, self._node.name, self.input)
        for name in outputs:
            binding.bind_output(name, _MEMORY, self._index)
        _run_bound(session, binding, None, self.input)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

    def enqueue(self, stream: Any) -> None:
        """Start the network. See `Execution.enqueue`."""
        handle = int(stream.handle)
        if self._bound is None or self._bound[0] != handle:
            self._bound = handle, *self._open_on_stream(handle)
        _, session, binding, options = self._bound
        _run_bound(session, binding, options, self.input)

    def _open_on_stream(self, handle: int) -> tuple[Any, Any, Any]:
        session = open_session(self._path, cuda_first(self._index, handle), 1)
        if session.get_providers() != self._providers:  # ONNX Runtime falls back to others without an error
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
        self._memory.close()


def _numpy_type(name: str) -> str:
    """Return the NumPy name of a type such as "tensor(float)"."""
    name = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _run_bound(session: Any, binding: Any, options: Any, given: DeviceTensor) -> None:
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        got = f"{given.dtype} {given.shape}"
        raise BackendError(f"onnxruntime {ort.__version__} failed on a batch {got}: {join_lines(error)}") from error
