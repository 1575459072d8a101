"""Inference on a GPU with arrays in host memory."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .._cuda.recording import making
from .._cuda.tensors import DeviceMemory
from .._errors import BackendError, InputError
from .._geometry.geometry import Size
from .._spec.model_spec import Layout
from ._protocol import CLOSED, DeviceBackend, Execution, Tensor, fill_outputs

if TYPE_CHECKING:
    from .._cuda.gpu import Gpu


class HostCalls:
    """GPU inference on host arrays, one call at a time.

    Args:
        backend: backend that makes the executions.
        gpu: GPU of the backend.
        layout: layout of the batches.
    """

    _KEPT = 2  # batch shapes: a certificate asks for one image and for a pair

    def __init__(self, backend: DeviceBackend, gpu: Gpu, layout: Layout) -> None:
        self._backend, self._gpu, self._layout = backend, gpu, layout
        self._lock = threading.Lock()
        self._stream: Any = None
        self._executions: dict[tuple[int, ...], Execution] = {}
        self._is_closed = False

    def __call__(self, batch: Tensor, out: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Run any number of images. See `Backend.infer`.

        They are cut into batches that the backend takes.

        Raises:
            InputError: if batch or `out` are not what the network takes and returns.
        """
        if not isinstance(batch, np.ndarray) or batch.ndim != 4 or not batch.flags.c_contiguous:
            got = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
            raise InputError(f"a batch must be a contiguous NumPy array of 4 dimensions, got {got}; copy it into one")
        most = self._backend.max_batch_size(self._input_hw(batch)) or len(batch)
        pieces = [self._run(batch[i : i + most]) for i in range(0, len(batch), most)]
        names = pieces[0].keys()
        arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in names}
        return fill_outputs(arrays, out)

    def _run(self, batch: Tensor) -> dict[str, Tensor]:
        count = len(batch)
        places = self._backend.padded_batch_size(count, self._input_hw(batch))
        padded = np.zeros((places, *batch.shape[1:]), batch.dtype)
        padded[:count] = batch
        with self._lock:
            if self._is_closed:
                raise BackendError(CLOSED)
            self._gpu.use()
            try:
                arrays = self._copy_and_run(padded)
            except BaseException:
                self._drop()  # waits for work in flight before it frees
                raise
        return {name: array[:count] for name, array in arrays.items()}

    def _copy_and_run(self, batch: Tensor) -> dict[str, Tensor]:
        if self._stream is None:
            self._stream = self._gpu.new_stream()
        execution = self._execution(batch.shape)
        if batch.dtype != execution.input.dtype:
            raise InputError(f"the network takes batches of {execution.input.dtype}, got {batch.dtype}; convert them")
        self._gpu.fill(self._gpu.view(execution.input.address, batch.nbytes), batch, self._stream)
        with making():  # it is not recorded, and may allocate and wait at any time
            execution.enqueue(self._stream)
        arrays = {}
        for name, tensor in execution.outputs.items():
            array = arrays[name] = np.empty(tensor.shape, tensor.dtype)
            self._gpu.download(self._gpu.view(tensor.address, array.nbytes), array, self._stream)
        return arrays

    def _input_hw(self, batch: Tensor) -> Size:
        height, width = batch.shape[2:] if self._layout == "NCHW" else batch.shape[1:3]
        return height, width

    def _execution(self, shape: tuple[int, ...]) -> Execution:
        execution = self._executions.get(shape)
        if execution is None:
            with making():
                if len(self._executions) >= self._KEPT:
                    self._executions.pop(next(iter(self._executions))).close()
                execution = self._executions[shape] = self._backend.execution(shape, DeviceMemory(self._gpu))
        return execution

    def close(self) -> None:
        """Free everything after the call in flight. Calls afterwards raise BackendError."""
        with self._lock:
            self._is_closed = True
            if self._gpu.is_forked:
                return
            with suppress(BackendError):  # the GPU may have failed
                self._gpu.use()
            self._drop()

    def _drop(self) -> None:
        if self._stream is not None:
            with suppress(Exception):  # the first error is being raised already
                self._stream.sync()
        with making():
            while self._executions:
                self._executions.popitem()[1].close()
            if self._stream is not None:
                self._stream.close()
                self._stream = None
