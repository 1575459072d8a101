"""Slots: who may use the GPU now. A slot is a stream with the networks and frames that run on it."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from .._cuda.gpu import Gpu
from .._cuda.graph import CaptureError
from .._errors import BackendError
from .._inputs.formats import PixelFormat
from .._spec.model_spec import ModelSpec
from ..backends._protocol import CLOSED, DeviceBackend, Execution
from .frame import Frame
from .layout import FrameKey

FRAMES_KEPT = 16
"""Of a slot: an image of many tiles has a frame for every batch of them."""

FRAME_BYTES_KEPT = 256 << 20
"""Of a slot, in memory of the GPU; the frame used last stays however large."""

EXECUTIONS_KEPT = 4
"""Of a slot: batch shapes, whose networks have memory of their own."""

CAPTURES_TRIED = 2
"""Of a network, that may break before all its frames are started call by call: each costs the other frames' graphs."""

_MAKING = threading.Lock()
"""One frame is made at a time: libraries may wait for the whole device then, which breaks what others are recording."""

Shape = tuple[int, ...]


class Slot:
    """A stream, the networks by batch shape, and the frames used last. For one caller at a time.

    Args:
        gpu: where everything lies.
        backend: makes the networks.
        spec: the model's contract.
        color: format of the images.
        on_plain: is told why a frame could not be recorded.
    """

    def __init__(
        self,
        gpu: Gpu,
        backend: DeviceBackend,
        spec: ModelSpec,
        color: PixelFormat,
        on_plain: Callable[[str], None],
    ) -> None:
        self._gpu, self._backend, self._spec = gpu, backend, spec
        self._color: PixelFormat = color
        self._on_plain = on_plain
        self._executions: OrderedDict[Shape, Execution] = OrderedDict()
        self._frames: OrderedDict[FrameKey, Frame] = OrderedDict()
        self._broken: Counter[Shape] = Counter()
        self.stream = gpu.new_stream()

    def has(self, key: FrameKey) -> bool:
        """Tell whether a frame is ready."""
        return key in self._frames

    def frame(self, key: FrameKey, shape: Shape) -> Frame:
        """Return the frame of a key, whose batch has `shape`; a new one has run once and is recorded.

        Raises:
            InputError: if the network does not take this shape, or yields what the spec does not say.
            BackendError: if memory runs out, or the network fails; all of the new frame is freed then.
        """
        frame = self._frames.get(key)
        if frame is None:
            is_new = shape not in self._executions
            try:
                with _MAKING:
                    frame = self._frames[key] = self._new_frame(key, shape)
            except BaseException:
                if is_new:
                    self._drop_execution(shape)
                raise
        self._frames.move_to_end(key)
        self._executions.move_to_end(shape)
        self._evict()
        return frame

    def _new_frame(self, key: FrameKey, shape: Shape) -> Frame:
        frame = Frame(self._gpu, key, self._execution(shape), self._spec, self._color)
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
        # Networks may have memory by stream, which goes with it, and which other frames' graphs name.
        self._drop_frames()
        self.stream.close()
        self.stream = self._gpu.new_stream()

    def _execution(self, shape: Shape) -> Execution:
        found = self._executions.get(shape)
        if found is None:
            while len(self._executions) >= EXECUTIONS_KEPT:
                self._drop_execution(next(iter(self._executions)))
            found = self._executions[shape] = self._backend.execution(shape, self._gpu)
        return found

    def _drop_execution(self, shape: Shape) -> None:
        execution = self._executions.pop(shape, None)
        if execution is not None:
            for key in [key for key, frame in self._frames.items() if frame.execution is execution]:
                self._frames.pop(key).close()
            del self._broken[shape]
            execution.close()

    def _evict(self) -> None:
        def is_too_much() -> bool:
            return len(self._frames) > FRAMES_KEPT or sum(f.nbytes for f in self._frames.values()) > FRAME_BYTES_KEPT

        while len(self._frames) > 1 and is_too_much():
            _, oldest = self._frames.popitem(last=False)
            oldest.close()
            used = [frame.execution for frame in self._frames.values()]
            for shape in [s for s, execution in self._executions.items() if execution not in used]:
                self._drop_execution(shape)

    def _wait(self) -> None:
        with suppress(Exception):  # what went wrong is on its way already
            self.stream.sync()

    def clear(self) -> bool:
        """Free frames and networks; return whether there were any."""
        self._wait()
        had_any = bool(self._frames or self._executions)
        self._drop_frames()
        while self._executions:
            self._drop_execution(next(iter(self._executions)))
        return had_any

    def _drop_frames(self) -> None:
        while self._frames:
            self._frames.popitem()[1].close()

    def close(self) -> None:
        """Free everything; a stream that has failed is no hindrance."""
        self.clear()
        with suppress(Exception):
            self.stream.close()


class Slots:
    """A fixed number of slots, made when they are needed; further callers wait, so that memory does not grow with them.

    Args:
        make: makes a slot.
        count: the most slots.
    """

    def __init__(self, make: Callable[[], Slot], count: int) -> None:
        self._make = make
        self._count = count
        self._changed = threading.Condition()
        self._free: list[Slot] = []
        self._lent = 0
        self._is_closed = False

    @contextmanager
    def borrow(self, key: FrameKey, passes: type[Exception]) -> Iterator[Slot]:
        """Lend a slot, if possible one that has the frame; one in which anything fails is given up.

        Args:
            key: the frame that is wanted.
            passes: errors that say nothing against the slot.

        Raises:
            BackendError: if the slots are closed.
        """
        slot = self._take(key) or self._made()
        is_sound = False
        try:
            yield slot
            is_sound = True
        except passes:
            is_sound = True
            raise
        finally:
            try:
                if not is_sound:
                    slot.close()
            finally:
                self._give_back(slot if is_sound else None)

    def _take(self, key: FrameKey) -> Slot | None:
        """Return a free slot; None if there is none yet and one may be made."""
        with self._changed:
            while not self._is_closed and not self._free and self._lent >= self._count:
                self._changed.wait()
            if self._is_closed:
                raise BackendError(CLOSED)
            self._lent += 1
            fit = [i for i, slot in enumerate(self._free) if slot.has(key)]
            return self._free.pop(fit[-1] if fit else -1) if self._free else None

    def _made(self) -> Slot:
        try:
            return self._make()
        except BaseException:
            self._give_back(None)
            raise

    def _give_back(self, slot: Slot | None) -> None:
        with self._changed:
            self._lent -= 1
            if slot is not None:
                self._free.append(slot)
            self._changed.notify_all()

    def clear_idle(self) -> bool:
        """Free what idle slots keep; return whether there was anything."""
        with self._changed:
            had_any = [slot.clear() for slot in self._free]
        return any(had_any)

    def close(self) -> None:
        """Wait for the calls in flight and free every slot; calls that wait are refused. Once more does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            while self._lent:
                self._changed.wait()
            slots, self._free = self._free, []
        with ExitStack() as stack:  # whatever happens, each is closed
            for slot in slots:
                stack.callback(slot.close)
