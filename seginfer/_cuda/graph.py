"""CUDA graphs: nodes at fixed addresses, and networks that were recorded."""

# Graphs use the driver API directly, not cuda-core's GraphBuilder. Up to version 1.2.2 its teardown crashes the process
# after an invalidated capture, and a network may invalidate one.
# Source: https://github.com/NVIDIA/cuda-python/issues/2834

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from .._errors import BackendError
from . import kernel_args
from .errors import join_lines, translate_errors
from .gpu import Clear, Gpu, Kernel, unwrap
from .recording import making, recording


class CaptureError(BackendError):
    """Work cannot be recorded, or put into a graph.

    It may still run without a graph, after a failed recording on another stream.
    """


class Recording:
    """Recorded work of a stream, for graphs to contain.

    Recording does not run the work. All memory that the work uses must outlive the graphs.

    Args:
        gpu: GPU of the stream.
        stream: an idle stream. It is unusable if recording fails.
        start: starts the work on the stream. It must not allocate, free or wait.

    Raises:
        CaptureError: if the work cannot be recorded.
    """

    def __init__(self, gpu: Gpu, stream: Any, start: Callable[[Any], None]) -> None:
        self._driver = gpu.driver
        try:
            with recording():
                self.definition: Any = self._record(stream, start)
        except Exception as error:  # any type, from cuda-core or a backend
            raise CaptureError(join_lines(error)) from error

    def _record(self, stream: Any, start: Callable[[Any], None]) -> Any:
        # Other threads may start work meanwhile. Most restrictions of a capture apply to this thread only.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        unwrap(self._driver.cuStreamBeginCapture(stream.handle, mode))
        try:
            start(stream)
        except BaseException:
            code, *found = self._driver.cuStreamEndCapture(stream.handle)
            if int(code) == 0 and int(found[0]):
                self._driver.cuGraphDestroy(found[0])
            raise
        definition = unwrap(self._driver.cuStreamEndCapture(stream.handle))
        if not int(definition):
            raise RuntimeError("the work did something that a capture does not allow")
        return definition

    def close(self) -> None:
        """Free the recording. Graphs that contain it remain. Idempotent."""
        definition, self.definition = self.definition, None
        if definition is not None:
            self._driver.cuGraphDestroy(definition)


Work = Clear | Kernel | Recording
"""What one node of a graph does."""


class Graph:
    """Work that is started at once, one node after the other.

    Args:
        gpu: GPU of all memory.
        work: nodes in their order. Their memory must outlive the graph.
        stream: a stream to prepare the first launch on.

    Raises:
        CaptureError: if the driver refuses the graph.
    """

    def __init__(self, gpu: Gpu, work: Sequence[Work], stream: Any) -> None:
        self._gpu, self._driver = gpu, gpu.driver
        self._executable: Any = None
        try:
            with making():
                self._instantiate(work, stream)
        except Exception as error:
            self.close()
            raise CaptureError(join_lines(error)) from error
        except BaseException:
            self.close()
            raise

    def _instantiate(self, work: Sequence[Work], stream: Any) -> None:
        definition = unwrap(self._driver.cuGraphCreate(0))
        try:
            last: list[Any] = []
            for one in work:
                last = [self._add(definition, last, one)]
            self._executable = unwrap(self._driver.cuGraphInstantiate(definition, 0))
        finally:
            self._driver.cuGraphDestroy(definition)
        unwrap(self._driver.cuGraphUpload(self._executable, stream.handle))

    def _add(self, definition: Any, last: list[Any], work: Work) -> Any:
        driver = self._driver
        if isinstance(work, Recording):
            return unwrap(driver.cuGraphAddChildGraphNode(definition, last, len(last), work.definition))
        if isinstance(work, Clear):
            filling = driver.CUDA_MEMSET_NODE_PARAMS()
            filling.dst, filling.value, filling.elementSize = work.address, 0, 1
            filling.width, filling.height = work.nbytes, 1
            context = unwrap(driver.cuCtxGetCurrent())
            return unwrap(driver.cuGraphAddMemsetNode(definition, last, len(last), filling, context))
        argument = ctypes.c_uint64(work.records)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))  # read when the node is added
        params = driver.CUDA_KERNEL_NODE_PARAMS()
        params.kern, params.kernelParams = self._gpu.kernel(work.name).handle, ctypes.addressof(pointers)
        params.gridDimX, params.gridDimY, params.gridDimZ = work.grid
        params.blockDimX, params.blockDimY, params.blockDimZ = kernel_args.BLOCK
        return unwrap(driver.cuGraphAddKernelNode(definition, last, len(last), params))

    def launch(self, stream: Any) -> None:
        """Start the work on any stream."""
        with translate_errors("starting a graph"):
            unwrap(self._driver.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        """Free the graph. Idempotent.

        The graph must not be in flight.
        """
        executable, self._executable = self._executable, None
        if executable is not None:
            self._driver.cuGraphExecDestroy(executable)
