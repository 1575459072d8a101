"""GpuPipeline: images to results on one GPU. Only images and results cross to the host."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._cuda.arrays import DeviceArray
from .._cuda.gpu import Gpu
from .._cuda.tensors import DeviceTensor
from .._errors import BackendError, InputError
from .._geometry.geometry import Geometry, Size
from .._inputs.formats import PixelFormat
from .._spec.model_spec import ModelSpec
from .._tasks import task_of
from ..backends._protocol import DeviceBackend, Tensor
from .context import Context
from .context_pool import ContextPool
from .frame import Frame
from .layout import FrameKey
from .network import Shape
from .pipeline import BatchItem, BatchResult, NetworkIO

_log = logging.getLogger("seginfer")


class GpuPipeline:
    """See `Pipeline`.

    Its timings: preprocess_ms is the copy of the images into pinned memory, infer_ms the work on the GPU with the
    copies there and back of the first image, and postprocess_ms the copy into the results. Recording the network is in
    none of them.

    Args:
        backend: runs the network on a GPU, and is not closed with the pipeline.
        spec: contract of the model.
        color: format of the images.
        threads: a pool of the compiled core.
        contexts: number of calls that may be on the GPU at once. Further ones wait.

    Raises:
        BackendUnavailableError: if the GPU cannot be used, or packages for it are missing.
    """

    is_slow_at_first = True

    def __init__(
        self, backend: DeviceBackend, spec: ModelSpec, color: PixelFormat, threads: Any = None, *, contexts: int = 2
    ) -> None:
        if contexts < 1:
            raise InputError(f"contexts must be at least 1, got {contexts}")
        self._backend, task = backend, task_of(spec)
        self._gpu = Gpu(backend.device_index or 0)
        self._plain: dict[Shape, str] = {}
        self._lock = threading.Lock()
        self._contexts = ContextPool(
            lambda: Context(self._gpu, backend, spec.input, task, color, threads, self._note_plain), contexts
        )

    @property
    def gpu(self) -> Gpu:
        """GPU that holds all memory."""
        return self._gpu

    @property
    def description(self) -> str:
        """Device that computes pixels."""
        reasons = "; ".join(dict.fromkeys(self._plain.values()))
        how = [f"plain launches: {reasons}" if reasons else "CUDA graphs"]
        if self._gpu.is_integrated:
            how.insert(0, "in memory that host and GPU share")
        return f"pixels on the GPU: cuda:{self._gpu.info.index} {self._gpu.info.name}, {', '.join(how)}"

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the largest batch of the backend."""
        return self._backend.max_batch_size(input_hw)

    def adopt(self, tensor: Any) -> DeviceArray:
        """Return the memory of a caller's tensor. See `Gpu.adopt`."""
        return self._gpu.adopt(tensor)

    def lend(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of zeros in pinned memory. It stays valid after `close`."""
        return self._gpu.lend(shape, dtype)

    def plan(self, geometry: Geometry) -> None:
        """Keep nothing: a geometry is part of a frame's key."""
        del geometry

    def run(self, items: Sequence[BatchItem], *, keep_io: bool = False) -> BatchResult:
        """Run one batch. See `Pipeline.run`."""
        key = _key(items)
        self._gpu.use()
        with self._contexts.borrow(key, passes=InputError) as context:
            frame = self._frame(context, key)
            timings = frame.run(items, context.stream)
            return BatchResult(timings, self._io(frame, context, len(items)) if keep_io else None)

    def _frame(self, context: Context, key: FrameKey) -> Frame:
        try:
            return context.frame(key)
        except BackendError as error:
            # Memory that is kept to be fast must not be what a new frame lacks.
            has_freed = [context.clear(), self._contexts.clear_idle()]
            if not any(has_freed):
                raise
            self._gpu.trim()  # freed memory goes into a pool, which the network's library does not take from
            _log.info("freed the memory of other images, to try again after: %s", error)
        return context.frame(key)

    def _io(self, frame: Frame, context: Context, count: int) -> NetworkIO:
        execution = frame.network.execution
        outputs = {name: self._download(tensor, count, context) for name, tensor in execution.outputs.items()}
        return NetworkIO(self._download(execution.input, count, context), outputs)

    def _download(self, tensor: DeviceTensor, count: int, context: Context) -> Tensor:
        array = np.empty((count, *tensor.shape[1:]), tensor.dtype)
        self._gpu.download(self._gpu.view(tensor.address, array.nbytes), array, context.stream)
        return array

    def _note_plain(self, shape: Shape, reason: str) -> None:
        with self._lock:
            is_known = not reason or reason in self._plain.values()
            self._plain.pop(shape, None)
            if reason:
                self._plain[shape] = reason
        if not is_known:
            _log.warning("the network is started by itself, because a CUDA graph cannot hold it now: %s", reason)

    def close(self) -> None:
        """Free everything after the calls in flight. Later calls raise BackendError."""
        if self._gpu.is_forked:
            return
        with suppress(BackendError):  # of a GPU that has failed; its memory is given up all the same
            self._gpu.use()
        self._contexts.close()
        self._gpu.close()


def _key(items: Sequence[BatchItem]) -> FrameKey:
    wants = items[0].buffers.wants
    if len(items) == 1:
        return FrameKey((items[0].geometry,), (0,), wants)
    owners = {number: i for i, number in enumerate(dict.fromkeys(item.number for item in items))}
    return FrameKey(tuple(item.geometry for item in items), tuple(owners[item.number] for item in items), wants)
