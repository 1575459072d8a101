"""Execution context: a stream with its networks and frames."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress

from .._cuda.gpu import Gpu
from .._cuda.graph import CaptureError
from .._cuda.tensors import DeviceMemory
from .._inputs.formats import PixelFormat
from .._inputs.preprocess import batch_shape
from .._spec.model_spec import InputSpec
from .._tasks.task import Task
from ..backends._protocol import DeviceBackend, Execution
from .frame import Frame
from .layout import FrameKey

FRAMES_KEPT = 16
"""Frames of a context. An image of many tiles has a frame for every batch of them."""

FRAME_BYTES_KEPT = 256 << 20
"""Memory on the GPU that the frames of a context may hold. The frame used last stays however large."""

EXECUTIONS_KEPT = 4
"""Batch shapes of a context. Each network has memory of its own."""

CAPTURES_TRIED = 2
"""Captures of a network that may break before its frames run call by call. Each costs the graphs of other frames."""

# Making a frame may wait for the whole device, which would break a capture of another thread.
_MAKING = threading.Lock()

Shape = tuple[int, ...]


class Context:
    """A stream with its networks and frames. For one caller at a time.

    Args:
        gpu: holds all memory.
        backend: makes the networks.
        spec: input of the model.
        task: decodes the outputs of the network.
        color: format of the images.
        on_plain: called with the reason why a frame could not be recorded.
    """

    def __init__(
        self,
        gpu: Gpu,
        backend: DeviceBackend,
        spec: InputSpec,
        task: Task,
        color: PixelFormat,
        on_plain: Callable[[str], None],
    ) -> None:
        self._gpu, self._backend, self._spec, self._task = gpu, backend, spec, task
        self._color: PixelFormat = color
        self._on_plain = on_plain
        self._executions: OrderedDict[Shape, Execution] = OrderedDict()
        self._frames: OrderedDict[FrameKey, Frame] = OrderedDict()
        self._broken: Counter[Shape] = Counter()
        self._last: tuple[FrameKey, Frame] | None = None
        self.stream = gpu.new_stream()

    def has(self, key: FrameKey) -> bool:
        """Tell whether a frame is ready."""
        return (self._last is not None and self._last[0] == key) or key in self._frames

    def frame(self, key: FrameKey) -> Frame:
        """Return the frame of a key. A new one has run once and is recorded.

        Raises:
            InputError: if the network does not take such a batch, or an output is not what the spec says.
            BackendError: if memory runs out, or the network fails. All of the new frame is freed then.
        """
        if self._last is not None and self._last[0] == key:  # a camera: no hashing
            return self._last[1]
        frame = self._frames.get(key)
        if frame is None:
            shape = self._batch_shape(key)
            is_new = shape not in self._executions
            try:
                with _MAKING:
                    frame = self._frames[key] = self._new_frame(key, shape)
            except BaseException:
                if is_new:
                    self._drop_execution(shape)
                raise
        self._frames.move_to_end(key)
        self._executions.move_to_end(frame.execution.input.shape)
        self._evict()
        self._last = key, frame
        return frame

    def _batch_shape(self, key: FrameKey) -> Shape:
        input_hw = key.geometries[0].input_hw
        return batch_shape(self._backend.padded_batch_size(len(key.geometries), input_hw), input_hw, self._spec)

    def _new_frame(self, key: FrameKey, shape: Shape) -> Frame:
        frame = Frame(self._gpu, key, self._execution(shape), self._spec, self._task, self._color)
        try:
            frame.warm_up(self.stream)
            if self._broken[shape] < CAPTURES_TRIED:
                self._record(frame, shape)
        except BaseException:
            self._wait()
            frame.close()
            raise
        return frame

    def _record(self, frame: Frame, shape: Shape) -> None:
        try:
            frame.record(self.stream)
        except CaptureError as error:
            if not frame.execution.obstacle:  # something broke a capture, and may have left its mark
                self._broken[shape] += 1
                self._replace_stream()
            self._on_plain(str(error))

    def _replace_stream(self) -> None:
        # A network may allocate memory per stream. Captured graphs hold its addresses, so drop them with the stream.
        self._drop_frames()
        self.stream.close()
        self.stream = self._gpu.new_stream()

    def _execution(self, shape: Shape) -> Execution:
        found = self._executions.get(shape)
        if found is None:
            while len(self._executions) >= EXECUTIONS_KEPT:
                self._drop_execution(next(iter(self._executions)))
            found = self._executions[shape] = self._backend.execution(shape, DeviceMemory(self._gpu))
        return found

    def _drop_execution(self, shape: Shape) -> None:
        self._last = None
        execution = self._executions.pop(shape, None)
        if execution is not None:
            for key in [key for key, frame in self._frames.items() if frame.execution is execution]:
                self._frames.pop(key).close()
            del self._broken[shape]
            execution.close()

    def _evict(self) -> None:
        def is_too_much() -> bool:
            return len(self._frames) > FRAMES_KEPT or sum(f.nbytes for f in self._frames.values()) > FRAME_BYTES_KEPT

        self._last = None
        while len(self._frames) > 1 and is_too_much():
            _, oldest = self._frames.popitem(last=False)
            oldest.close()
            used = [frame.execution for frame in self._frames.values()]
            for shape in [s for s, execution in self._executions.items() if execution not in used]:
                self._drop_execution(shape)

    def _wait(self) -> None:
        with suppress(Exception):  # the first error is already being raised
            self.stream.sync()

    def clear(self) -> bool:
        """Free frames and networks, and return whether there were any."""
        self._wait()
        had_any = bool(self._frames or self._executions)
        self._drop_frames()
        while self._executions:
            self._drop_execution(next(iter(self._executions)))
        return had_any

    def _drop_frames(self) -> None:
        self._last = None
        while self._frames:
            self._frames.popitem()[1].close()

    def close(self) -> None:
        """Free everything, also after an error on the stream."""
        self.clear()
        with suppress(Exception):
            self.stream.close()
