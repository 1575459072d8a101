"""Probe of calls during the capture of a CUDA graph.

Reports whether the capture survives, and whether the call works.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from seginfer._cuda.compiler import require_cuda
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.graph import CaptureError, Graph, Recording

from . import report


def run() -> None:
    """Report the outcome of every call, in both threads."""
    gpu = Gpu()
    for name, call in _calls(gpu):
        for where in ("another thread", "the same thread"):
            is_threaded = where == "another thread"
            report(f"during a capture, {name} in {where}", call_during_capture(gpu, call, is_threaded=is_threaded))
    gpu.close()


def _calls(gpu: Gpu) -> Iterator[tuple[str, Callable[[], object]]]:
    import torch

    driver, other, memory = gpu.driver, gpu.new_stream(), gpu.allocate(64)
    tensor, host = torch.ones(1 << 20, device="cuda"), np.empty(64, np.uint8)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    yield "nothing", lambda: None
    pinned = require_cuda().LegacyPinnedMemoryResource()  # without the lock of `Gpu`, which waits for a recording
    yield "allocation from the pool", lambda: gpu.device.allocate(1 << 24, stream=other).close(other)
    yield "pinned allocation and free", lambda: pinned.allocate(1 << 22).close(other)
    yield "cuMemAlloc and cuMemFree", lambda: _value(driver.cuMemFree(_value(driver.cuMemAlloc(1 << 22))))
    yield "cuMemcpyDtoH", lambda: _value(driver.cuMemcpyDtoH(host.ctypes.data, int(memory.handle), 64))
    yield "wait for another stream", other.sync
    yield "torch .cpu()", tensor.cpu
    yield "torch event.query()", event.query
    yield "torch.cuda.empty_cache()", torch.cuda.empty_cache
    yield "torch.cuda.synchronize()", torch.cuda.synchronize
    yield "cuCtxSynchronize", lambda: _value(driver.cuCtxSynchronize())
    yield "creation and destruction of a stream", lambda: gpu.device.create_stream().close()


def call_during_capture(gpu: Gpu, call: Callable[[], object], *, is_threaded: bool) -> str:
    """Make a call during a capture, replay the graph, and return both outcomes."""
    stream, memory, outcome = gpu.new_stream(), gpu.allocate(1 << 20), "not called"

    def attempt() -> None:
        nonlocal outcome
        try:
            gpu.use()
            call()
            outcome = "call works"
        except Exception as error:  # of any library
            outcome = f"CALL FAILS ({' '.join(str(error).split())[:60]})"

    def start(on: Any) -> None:
        memory.fill(0, stream=on)
        if is_threaded:
            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
        else:
            attempt()
        memory.fill(1, stream=on)

    try:
        graph = Graph(gpu, [Recording(gpu, stream, start)], stream)
        graph.launch(stream)
        stream.sync()
        graph.close()
        state = "capture survives"
    except CaptureError as error:
        state = f"CAPTURE BREAKS ({error})"
    except Exception as error:  # of cuda-core
        state = f"REPLAY FAILS ({error})"
    gpu.free(memory)
    return f"{outcome}, {state}"


def _value(result: Sequence[Any]) -> Any:
    """Return the value of a driver call."""
    code, *values = result
    if int(code):
        raise RuntimeError(getattr(code, "name", str(code)))
    return values[0] if values else None
