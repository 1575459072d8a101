"""HostCalls: arrays of the host through a network on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._errors import BackendError
from .._geometry.geometry import Size
from .._spec.model_spec import Layout
from ._protocol import CLOSED, DeviceBackend, Execution, Tensor

if TYPE_CHECKING:
    from .._cuda.gpu import Gpu
    from .._cuda.tensors import TensorMemory


class _Ready(NamedTuple):
    execution: Execution
    input: Any
    outputs: Mapping[str, Any]


class HostCalls:
    """Runs arrays of the host through a backend's executions, one call at a time, for pixels that stay on the CPU.

    Args:
        backend: makes executions whose tensors lie in `TensorMemory`, as their attribute `memory`.
        gpu: where they lie.
        layout: of the batches.
    """

    _KEPT = 2  # batch shapes: a certificate asks for one image and for a pair

    def __init__(self, backend: DeviceBackend, gpu: Gpu, layout: Layout) -> None:
        self._backend, self._gpu, self._layout = backend, gpu, layout
        self._lock = threading.Lock()
        self._stream: Any = None
        self._ready: dict[tuple[int, ...], _Ready] = {}
        self._is_closed = False

    def __call__(self, batch: Tensor, out: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Run any number of images, in as many batches as it takes; see `Backend.infer`."""
        most = self._backend.most_images(self._input_hw(batch)) or len(batch)
        pieces = [self._run(batch[i : i + most]) for i in range(0, len(batch), most)]
        names = pieces[0].keys()
        arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
        if out is None:
            return arrays
        for name, array in arrays.items():
            out[name][...] = array
        return out

    def _run(self, batch: Tensor) -> dict[str, Tensor]:
        count = len(batch)
        places = self._backend.places(count, self._input_hw(batch))
        padded = np.zeros((places, *batch.shape[1:]), batch.dtype)
        padded[:count] = batch
        with self._lock:
            if self._is_closed:
                raise BackendError(CLOSED)
            self._gpu.use()
            try:
                arrays = self._through(padded)
            except BaseException:
                self._drop()  # what is in flight, and what it uses
                raise
        return {name: array[:count] for name, array in arrays.items()}

    def _through(self, batch: Tensor) -> dict[str, Tensor]:
        if self._stream is None:
            self._stream = self._gpu.new_stream()
        execution, target, sources = self._prepared(batch.shape)
        self._gpu.fill(target, batch, self._stream)
        execution.enqueue(self._stream)
        arrays = {}
        for name, tensor in execution.outputs.items():
            arrays[name] = np.empty(tensor.shape, tensor.dtype)
            self._gpu.download(sources[name], arrays[name], self._stream)
        return arrays

    def _input_hw(self, batch: Tensor) -> Size:
        height, width = batch.shape[2:] if self._layout == "NCHW" else batch.shape[1:3]
        return height, width

    def _prepared(self, shape: tuple[int, ...]) -> _Ready:
        ready = self._ready.get(shape)
        if ready is None:
            if len(self._ready) >= self._KEPT:
                self._ready.pop(next(iter(self._ready))).execution.close()
            execution: Any = self._backend.execution(shape, self._gpu)
            memory: TensorMemory = execution.memory
            outputs = {name: memory.buffer(tensor) for name, tensor in execution.outputs.items()}
            ready = self._ready[shape] = _Ready(execution, memory.buffer(execution.input), outputs)
        return ready

    def close(self) -> None:
        """Free everything, after the call in flight; calls afterwards are refused."""
        with self._lock:
            self._is_closed = True
            with suppress(BackendError):  # of a GPU that has failed
                self._gpu.use()
            self._drop()

    def _drop(self) -> None:
        if self._stream is not None:
            with suppress(Exception):  # what went wrong is on its way already
                self._stream.sync()
        while self._ready:
            self._ready.popitem()[1].execution.close()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
