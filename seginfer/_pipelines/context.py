"""Execution context: a stream with its networks and frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._cuda.gpu import Gpu
from .._cuda.recording import making
from .._inputs.formats import PixelFormat
from .._inputs.preprocess import batch_shape
from .._spec.model_spec import InputSpec
from .._tasks.task import Task
from ..backends._protocol import DeviceBackend
from .frame import Frame
from .layout import FrameKey
from .network import Network, Shape

FRAMES_KEPT = 16
"""Frames of a context. An image of many tiles has a frame for every batch of them."""

FRAME_BYTES_KEPT, INTEGRATED_BYTES_KEPT = 256 << 20, 64 << 20
"""Memory that the frames of a context may hold, on GPU and host together, and where both share theirs.

The frame used last stays however large.
"""

EXECUTIONS_KEPT = 4
"""Batch shapes of a context. Each network has memory of its own."""


class Context:
    """A stream with its networks and frames. For one caller at a time.

    Args:
        gpu: holds all memory.
        backend: makes the networks.
        spec: input of the model.
        task: decodes the outputs of the network.
        color: format of the images.
        threads: a pool of the compiled core.
        on_plain: called with a batch shape and the reason why its network is not part of a graph, or an empty text.
    """

    def __init__(
        self,
        gpu: Gpu,
        backend: DeviceBackend,
        spec: InputSpec,
        task: Task,
        color: PixelFormat,
        threads: Any,
        on_plain: Callable[[Shape, str], None],
    ) -> None:
        self._gpu, self._backend, self._spec, self._task = gpu, backend, spec, task
        self._color: PixelFormat = color
        self._threads = threads
        self._on_plain = on_plain
        self._bytes_kept = INTEGRATED_BYTES_KEPT if gpu.is_integrated else FRAME_BYTES_KEPT
        self._networks: OrderedDict[Shape, Network] = OrderedDict()
        self._frames: OrderedDict[FrameKey, Frame] = OrderedDict()
        self._last: tuple[FrameKey, Frame] | None = None
        self.stream = gpu.new_stream()

    def has(self, key: FrameKey) -> bool:
        """Tell whether a frame is ready."""
        return (self._last is not None and self._last[0] == key) or key in self._frames

    def frame(self, key: FrameKey) -> Frame:
        """Return the frame of a key.

        Raises:
            InputError: if the network does not take such a batch, or an output is not what the spec says.
            BackendError: if memory runs out, or the network fails. All that is new is freed then.
        """
        if self._last is not None and self._last[0] == key and not self._last[1].network.is_due:  # a camera: no hashing
            return self._last[1]
        shape = self._batch_shape(key)
        is_new = shape not in self._networks
        try:
            network = self._network(shape)
            if network.is_due:
                self._record(network)
            frame = self._frames.get(key)
            if frame is None:
                frame = self._frames[key] = Frame(
                    self._gpu, key, network, self._spec, self._task, self._color, self._threads, self.stream
                )
        except BaseException:
            self._wait()
            if is_new:
                self._drop_network(shape)
            raise
        self._frames.move_to_end(key)
        self._networks.move_to_end(shape)
        self._evict()
        self._last = key, frame
        return frame

    def _batch_shape(self, key: FrameKey) -> Shape:
        input_hw = key.geometries[0].input_hw
        return batch_shape(self._backend.padded_batch_size(len(key.geometries), input_hw), input_hw, self._spec)

    def _network(self, shape: Shape) -> Network:
        found = self._networks.get(shape)
        if found is None:
            while len(self._networks) >= EXECUTIONS_KEPT:
                self._drop_network(next(iter(self._networks)))
            found = self._networks[shape] = Network(self._gpu, self._backend, shape, self._on_plain)
        return found

    def _record(self, network: Network) -> None:
        """Record a network. Frames that start it by itself are made anew."""
        self._drop_frames(network)
        if not network.record(self.stream):
            # A network may allocate memory per stream. Recordings hold its addresses, so drop them with the stream.
            self._drop_frames()
            for other in self._networks.values():
                other.forget()
            with making():
                self.stream.close()
            self.stream = self._gpu.new_stream()

    def _drop_network(self, shape: Shape) -> None:
        network = self._networks.pop(shape, None)
        if network is not None:
            self._drop_frames(network)
            network.close()

    def _evict(self) -> None:
        def is_too_much() -> bool:
            return len(self._frames) > FRAMES_KEPT or sum(f.nbytes for f in self._frames.values()) > self._bytes_kept

        self._last = None
        while len(self._frames) > 1 and is_too_much():
            _, oldest = self._frames.popitem(last=False)
            oldest.close()
            used = [frame.network for frame in self._frames.values()]
            for shape in [s for s, network in self._networks.items() if network not in used]:
                self._drop_network(shape)

    def _wait(self) -> None:
        with suppress(Exception):  # the first error is already being raised
            self.stream.sync()

    def clear(self) -> bool:
        """Free frames and networks, and return whether there were any."""
        self._wait()
        had_any = bool(self._frames or self._networks)
        while self._networks:
            self._drop_network(next(iter(self._networks)))
        return had_any

    def _drop_frames(self, network: Network | None = None) -> None:
        """Free the frames of a network, or all."""
        self._last = None
        for key in [key for key, frame in self._frames.items() if network in (None, frame.network)]:
            self._frames.pop(key).close()

    def close(self) -> None:
        """Free everything, also after an error on the stream."""
        self.clear()
        with making(), suppress(Exception):
            self.stream.close()
