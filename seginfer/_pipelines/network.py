"""A network for one batch shape, recorded once for every frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .._cuda.errors import translate_errors
from .._cuda.gpu import Gpu
from .._cuda.graph import CaptureError, Recording
from .._cuda.recording import making
from .._cuda.tensors import DeviceMemory
from ..backends._protocol import DeviceBackend, Execution

Shape = tuple[int, ...]

_FIRST_WAIT = 8
"""Runs until a network that could not be recorded is recorded again. The wait doubles each time."""


class Network:
    """An execution and its recording. For one caller at a time.

    Args:
        gpu: holds all memory.
        backend: makes the execution.
        shape: shape of the batches.
        on_plain: called with shape and reason when the network is not part of a graph, or an empty text if it is.

    Attributes:
        execution: the network.
        recording: work of the execution, for graphs. None if it is started by itself.
        is_due: whether `record` should be tried.

    Raises:
        InputError: if the network does not take such a batch.
        BackendError: if memory runs out.
    """

    def __init__(self, gpu: Gpu, backend: DeviceBackend, shape: Shape, on_plain: Callable[[Shape, str], None]) -> None:
        self._gpu = gpu
        self.note_plain = partial(on_plain, shape)
        with making():
            self.execution: Execution = backend.execution(shape, DeviceMemory(gpu))
        self.recording: Recording | None = None
        self.is_due = True
        self._wait, self._runs = _FIRST_WAIT, 0

    def record(self, stream: Any) -> bool:
        """Run once and record, on an idle stream. Return whether the stream is still usable.

        Raises:
            BackendError: if the run fails.
        """
        self.is_due = False
        with making(), translate_errors("running a first batch"):  # which may allocate and wait
            self.execution.enqueue(stream)
            stream.sync()
        reason, is_broken = self.execution.obstacle, False
        if not reason:
            try:
                self.recording = Recording(self._gpu, stream, self.execution.enqueue)
            except CaptureError as error:
                reason, is_broken = str(error), True
                self._runs, self._wait = self._wait, 2 * self._wait
        self.note_plain(reason)
        return not is_broken

    def start(self, stream: Any) -> None:
        """Start the network by itself."""
        with making():  # what is not recorded may allocate and wait at any time
            self.execution.enqueue(stream)
        self._runs -= 1
        self.is_due = self._runs == 0

    def forget(self) -> None:
        """Drop the recording, whose stream is closed."""
        if self.recording is not None:
            self.recording.close()
            self.recording, self.is_due = None, True

    def close(self) -> None:
        """Free the network. No work may be in flight."""
        self.forget()
        with making():
            self.execution.close()
