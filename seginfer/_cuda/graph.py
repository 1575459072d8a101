"""Graph: work recorded from a stream once, and started as one from then on; through the driver's own functions.

cuda-core's GraphBuilder is not used: up to version 1.2.2 its teardown crashes the process once something has
invalidated a capture, and that is what a network may do.

Source: https://github.com/NVIDIA/cuda-python/issues/2834
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import BackendError
from .errors import join_lines, translate_errors
from .gpu import Gpu


class CaptureError(BackendError):
    """Work that cannot be recorded; it may still be started call by call, on another stream."""


class Graph:
    """Work of a stream, recorded but not run. All memory that it names must outlive it.

    Args:
        gpu: where the work runs.
        stream: nothing may be in flight on it; not to be used any more if recording fails.
        start: starts the work on the stream, and neither allocates, nor frees, nor waits.

    Raises:
        CaptureError: if something in the work cannot be recorded.
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
        except Exception as error:  # of cuda-core, and of any backend
            self.close()
            raise CaptureError(join_lines(error)) from error
        except BaseException:
            self.close()
            raise

    def _record(self, stream: Any, start: Callable[[Any], None]) -> Any:
        # Other threads may allocate meanwhile: only what this one does is held to the rules of a capture.
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
            raise RuntimeError("something in the work broke the rules of a capture")
        return definition

    def launch(self, stream: Any) -> None:
        """Start the work on a stream; it may be another than the one it was recorded from."""
        with translate_errors("starting a graph"):
            _unwrap(self._driver.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        """Free the graph; it may not be in flight. Once more does nothing."""
        executable, self._executable = self._executable, None
        if executable is not None:
            self._driver.cuGraphExecDestroy(executable)


def _unwrap(result: tuple[Any, ...]) -> Any:
    """Return what a function of the driver yields."""
    code, *values = result
    if int(code):
        raise RuntimeError(getattr(code, "name", f"CUresult {code}"))
    return values[0] if values else None
