"""CUDA graphs: record the work of a stream and replay it."""

# Graphs use the driver API directly, not cuda-core's GraphBuilder. Up to version 1.2.2 its teardown crashes the process
# after an invalidated capture, and a network may invalidate one.
# Source: https://github.com/NVIDIA/cuda-python/issues/2834

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import BackendError
from .errors import join_lines, translate_errors
from .gpu import Gpu


class CaptureError(BackendError):
    """Work cannot be recorded.

    It may still run without a graph, on another stream.
    """


class Graph:
    """Recorded work of a stream.

    Recording does not run the work. All memory that the work uses must outlive the graph.

    Args:
        gpu: GPU of the stream.
        stream: an idle stream. It is unusable if recording fails.
        start: starts the work on the stream. It must not allocate, free or wait.

    Raises:
        CaptureError: if the work cannot be recorded.
    """

    def __init__(self, gpu: Gpu, stream: Any, start: Callable[[Any], None]) -> None:
        self._driver = gpu.driver
        self._executable: Any = None
        try:
            definition = self._record(stream, start)
            try:
                self._executable = _unwrap(self._driver.cuGraphInstantiate(definition, 0))
            finally:
                self._driver.cuGraphDestroy(definition)
            _unwrap(self._driver.cuGraphUpload(self._executable, stream.handle))
        except Exception as error:  # any type, from cuda-core or a backend
            self.close()
            raise CaptureError(join_lines(error)) from error
        except BaseException:
            self.close()
            raise

    def _record(self, stream: Any, start: Callable[[Any], None]) -> Any:
        # Other threads may allocate meanwhile. The restrictions of a capture apply to this thread only.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _unwrap(self._driver.cuStreamBeginCapture(stream.handle, mode))
        try:
            start(stream)
        except BaseException:
            code, *found = self._driver.cuStreamEndCapture(stream.handle)
            if int(code) == 0 and int(found[0]):
                self._driver.cuGraphDestroy(found[0])
            raise
        definition = _unwrap(self._driver.cuStreamEndCapture(stream.handle))
        if not int(definition):
            raise RuntimeError("the work did something that a capture does not allow")
        return definition

    def launch(self, stream: Any) -> None:
        """Start the work on a stream.

        It may differ from the stream of the recording.
        """
        with translate_errors("starting a graph"):
            _unwrap(self._driver.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        """Free the graph. Idempotent.

        The graph must not be in flight.
        """
        executable, self._executable = self._executable, None
        if executable is not None:
            self._driver.cuGraphExecDestroy(executable)


def _unwrap(result: tuple[Any, ...]) -> Any:
    """Return the value of a driver call, or raise its error."""
    code, *values = result
    if int(code):
        raise RuntimeError(getattr(code, "name", f"CUresult {code}"))
    return values[0] if values else None
