"""ONNX Runtime in GPU memory, on the caller's stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .._cuda.recording import making
from .._cuda.tensors import DeviceMemory, DeviceTensor
from .._errors import BackendError
from .._system.fork import hold_forks, leak_in_children
from ._onnxruntime_session import cuda_first, join_lines, open_session, ort
from ._protocol import CLOSED

_MEMORY = "cuda"  # device type of tensors in ONNX Runtime


class StreamSession:
    """The session of a model, on a stream of its own. All executions share it.

    Args:
        path: the model.
        device_index: index of the GPU.
        providers: those that the session must have.
        stream: a stream of cuda-core, which the session closes.

    Attributes:
        session: ONNX Runtime's session. None after `close`.
        turn: held by a run. Runs at once would mix on the stream.

    Raises:
        BackendError: if ONNX Runtime does not open the model on the GPU.
    """

    # A session uses one stream, fixed when it is opened. One session per stream would copy the weights each time.

    def __init__(self, path: str | Path, device_index: int, providers: Sequence[str], stream: Any) -> None:
        self.device_index, self._stream = device_index, stream
        self.turn = threading.Lock()
        try:
            with making(), hold_forks():  # in this order everywhere
                self.session: Any = open_session(path, cuda_first(device_index, int(stream.handle)), 1)
                leak_in_children(self)
        except BaseException:
            stream.close()
            raise
        if self.session.get_providers() != providers:  # ONNX Runtime falls back to others without an error
            self.close()
            raise BackendError(
                f"ONNX Runtime could not open {path} on the GPU once more; free GPU memory, or use pixels='cpu'"
            )

    @contextmanager
    def after(self, stream: Any) -> Iterator[None]:
        """Order the block on a stream: after earlier work, and before later work."""
        with self.turn:
            if self.session is None:
                raise BackendError(CLOSED)
            self._stream.wait(stream)
            try:
                yield
            except BaseException:
                with suppress(Exception):  # the first error is being raised already
                    self._stream.sync()
                raise
            stream.wait(self._stream)

    def close(self) -> None:
        """Free the session."""
        with self.turn:
            self.session = None
            with suppress(Exception):  # the GPU may have failed
                self._stream.close()


class OnnxRuntimeExecution:
    """ONNX Runtime's `Execution`."""

    obstacle = "ONNX Runtime frees and reuses host memory within a run, and a replay would use it again"

    def __init__(
        self, shared: StreamSession, outputs: Sequence[str], shape: tuple[int, ...], memory: DeviceMemory
    ) -> None:
        self._shared, self._memory = shared, memory
        self._session = shared.session  # must outlive the binding
        node = self._session.get_inputs()[0]
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            self.input = memory.tensor(shape, _numpy_type(node.type))
            self._binding: Any = self._session.io_binding()
            self._bind(self._binding.bind_input, node.name, self.input)
            self.outputs: dict[str, DeviceTensor] = {
                name: memory.tensor(value.shape(), _numpy_type(value.data_type()))
                for name, value in self._first_run(outputs).items()
            }
            for name, tensor in self.outputs.items():
                self._bind(self._binding.bind_output, name, tensor)
        except BaseException:
            self.close()
            raise

    def _first_run(self, outputs: Sequence[str]) -> dict[str, Any]:
        """Run once, wait, and return the outputs in memory of ONNX Runtime."""
        # The graph need not state the shapes of its outputs.
        for name in outputs:
            self._binding.bind_output(name, _MEMORY, self._shared.device_index)
        with self._shared.turn:
            self._run(None)
        return dict(zip(outputs, self._binding.get_outputs(), strict=True))

    def enqueue(self, stream: Any) -> None:
        """Start the network. See `Execution.enqueue`."""
        with self._shared.after(stream):
            self._run(self._options)

    def _run(self, options: Any) -> None:
        try:
            self._session.run_with_iobinding(self._binding, options)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            got = f"{self.input.dtype} {self.input.shape}"
            raise BackendError(f"onnxruntime {ort.__version__} failed on a batch {got}: {join_lines(error)}") from error

    def _bind(self, bind: Any, name: str, tensor: DeviceTensor) -> None:
        index = self._shared.device_index
        bind(name, _MEMORY, index, np.dtype(tensor.dtype), tensor.shape, tensor.address)

    def close(self) -> None:
        """Free the memory."""
        self._binding = self._session = None
        self._memory.close()


def _numpy_type(name: str) -> str:
    """Return the NumPy name of a type such as "tensor(float)"."""
    name = name.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)
