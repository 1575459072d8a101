"""GpuPipeline: images to masks on one GPU, with nothing but images and masks crossing to the host and back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from .._cuda.gpu import Gpu
from .._cuda.tensors import DeviceTensor
from .._errors import BackendError, InputError
from .._geometry.geometry import Geometry, Size
from .._inputs.formats import PixelFormat
from .._inputs.preprocess import batch_shape
from .._spec.model_spec import ModelSpec
from .._tasks.timings import Timings
from ..backends._protocol import DeviceBackend, Tensor
from .contexts import Slot, Slots
from .frame import Frame
from .layout import FrameKey
from .pipeline import Evidence, Part

_log = logging.getLogger("seginfer")


class GpuPipeline:
    """See `Pipeline`.

    Of its timings, preprocess_ms is the images' copy into pinned memory, infer_ms everything on the GPU with the
    copies there and back, which are one graph, and postprocess_ms the copy into the results. What a first batch of a
    kind waits for besides, until its graph is recorded, is in none of them.

    Args:
        backend: runs the network on a GPU, and is not closed with the pipeline.
        spec: the model's contract.
        color: format of the images.
        slots: how many calls may be on the GPU at once; further ones wait.

    Raises:
        BackendUnavailableError: if the GPU cannot be used, or packages for it are missing.
    """

    is_slow_at_first = True

    def __init__(self, backend: DeviceBackend, spec: ModelSpec, color: PixelFormat, *, slots: int = 2) -> None:
        if slots < 1:
            raise InputError(f"slots must be at least 1, got {slots}")
        self._backend, self._spec = backend, spec
        self._color: PixelFormat = color
        self._gpu = Gpu(backend.device_index or 0)
        self._plain: list[str] = []
        self._lock = threading.Lock()
        self._slots = Slots(lambda: Slot(self._gpu, backend, spec, color, self._note_plain), slots)

    @property
    def gpu(self) -> Gpu:
        """Where everything lies."""
        return self._gpu

    @property
    def description(self) -> str:
        """What computes pixels."""
        how = f"plain launches: {'; '.join(self._plain)}" if self._plain else "CUDA graphs"
        return f"pixels on the GPU: cuda:{self._gpu.info.index} {self._gpu.info.name}, {how}"

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the most images that the backend takes."""
        return self._backend.most_images(input_hw)

    def plan(self, geometry: Geometry) -> None:
        """Keep nothing: a geometry is part of a frame's key."""
        del geometry

    def run(self, parts: Sequence[Part], evidence: list[Evidence] | None = None) -> Timings:
        """Run one batch; see `Pipeline.run`."""
        key = _key(parts)
        input_hw = parts[0].geometry.input_hw
        shape = batch_shape(self._backend.places(len(parts), input_hw), input_hw, self._spec.input)
        self._gpu.use()
        with self._slots.borrow(key, passes=InputError) as slot:
            frame = self._frame(slot, key, shape)
            taken = frame.run(parts, slot.stream)
            if evidence is not None:
                evidence.append(self._evidence(frame, slot, len(parts)))
        return taken

    def _frame(self, slot: Slot, key: FrameKey, shape: tuple[int, ...]) -> Frame:
        try:
            return slot.frame(key, shape)
        except BackendError as error:
            # Memory that is kept to be fast must not be what a new frame lacks.
            has_freed = [slot.clear(), self._slots.clear_idle()]
            if not any(has_freed):
                raise
            self._gpu.trim()  # what is freed goes into a pool, which the network's library does not take from
            _log.info("freed what was kept of other images, to try again after: %s", error)
        return slot.frame(key, shape)

    def _evidence(self, frame: Frame, slot: Slot, count: int) -> Evidence:

        output = frame.execution.outputs[self._spec.output.name]
        return Evidence(*(self._downloaded(tensor, count, slot) for tensor in (frame.execution.input, output)))

    def _downloaded(self, tensor: DeviceTensor, count: int, slot: Slot) -> Tensor:
        array = np.empty((count, *tensor.shape[1:]), tensor.dtype)
        self._gpu.download(self._gpu.view(tensor.address, array.nbytes), array, slot.stream)
        return array

    def _note_plain(self, reason: str) -> None:
        with self._lock:
            if reason in self._plain:
                return
            self._plain.append(reason)
        _log.warning(
            "frames are started call by call, which is slower, because a CUDA graph cannot hold them: %s", reason
        )

    def close(self) -> None:
        """Free everything on the GPU, after the calls in flight; calls afterwards raise BackendError."""
        with suppress(BackendError):  # of a GPU that has failed; its memory is given up all the same
            self._gpu.use()
        self._slots.close()
        self._gpu.close()


def _key(parts: Sequence[Part]) -> FrameKey:
    numbers = list(dict.fromkeys(part.number for part in parts))
    first = parts[0].results
    return FrameKey(
        tuple(part.geometry for part in parts),
        tuple(numbers.index(part.number) for part in parts),
        first.confidence is not None,
        first.margin is not None,
    )
