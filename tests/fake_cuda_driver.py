"""As much of the driver's functions as seginfer uses: graphs of the fake cuda-core's streams."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import fake_cuda_core


class CUresult(IntEnum):
    """What they return first."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908


class CUstreamCaptureMode(IntEnum):
    """Whom a capture forbids what."""

    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


_OK = (CUresult.CUDA_SUCCESS,)


def _refused(function: str) -> bool:
    return function in fake_cuda_core._world.refuses_to


def cuStreamBeginCapture(hStream: int, mode: CUstreamCaptureMode) -> tuple[Any, ...]:  # noqa: N802, N803 (the driver's)
    stream = fake_cuda_core._world.streams[hStream]
    assert mode is CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    assert stream.fake_record is None
    assert not stream.fake_queue, "work is in flight"
    stream.fake_record = []
    fake_cuda_core._world.thread.capturing = stream
    return _OK


def cuStreamEndCapture(hStream: int) -> tuple[Any, ...]:  # noqa: N802, N803
    stream = fake_cuda_core._world.streams[hStream]
    if getattr(fake_cuda_core._world.thread, "capturing", None) is not stream:
        return CUresult.CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, None
    fake_cuda_core._world.thread.capturing = None
    record, stream.fake_record = stream.fake_record, None
    if stream.fake_is_broken:  # and it stays so, which is stricter than the driver
        return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
    assert record is not None
    handle = fake_cuda_core._world.new_handle()
    fake_cuda_core._world.graphs[handle] = record
    return CUresult.CUDA_SUCCESS, handle


def cuGraphInstantiate(hGraph: int, flags: int) -> tuple[Any, ...]:  # noqa: N802, N803
    assert flags == 0
    if _refused("cuGraphInstantiate"):
        return CUresult.CUDA_ERROR_INVALID_VALUE, None
    handle = fake_cuda_core._world.new_handle()
    fake_cuda_core._world.executables[handle] = list(fake_cuda_core._world.graphs[hGraph])
    return CUresult.CUDA_SUCCESS, handle


def cuGraphDestroy(hGraph: int) -> tuple[Any, ...]:  # noqa: N802, N803
    del fake_cuda_core._world.graphs[hGraph]
    return _OK


def cuGraphUpload(hGraphExec: int, hStream: int) -> tuple[Any, ...]:  # noqa: N802, N803
    assert hGraphExec in fake_cuda_core._world.executables
    assert hStream in fake_cuda_core._world.streams
    return (CUresult.CUDA_ERROR_INVALID_VALUE,) if _refused("cuGraphUpload") else _OK


def cuGraphLaunch(hGraphExec: int, hStream: int) -> tuple[Any, ...]:  # noqa: N802, N803
    if _refused("cuGraphLaunch"):
        return (CUresult.CUDA_ERROR_INVALID_VALUE,)
    for work in fake_cuda_core._world.executables[hGraphExec]:
        fake_cuda_core._world.streams[hStream].fake_start(work.run, *work.buffers)
    fake_cuda_core._world.launched.append(hGraphExec)
    return _OK


def cuGraphExecDestroy(hGraphExec: int) -> tuple[Any, ...]:  # noqa: N802, N803
    del fake_cuda_core._world.executables[hGraphExec]
    return _OK


def cuMemPoolTrimTo(pool: str, minBytesToKeep: int) -> tuple[Any, ...]:  # noqa: N802, N803
    assert (pool, minBytesToKeep) == ("pool", 0)
    return _OK


DRIVER = SimpleNamespace(
    CUresult=CUresult,
    CUstreamCaptureMode=CUstreamCaptureMode,
    cuGraphDestroy=cuGraphDestroy,
    cuGraphExecDestroy=cuGraphExecDestroy,
    cuGraphInstantiate=cuGraphInstantiate,
    cuGraphLaunch=cuGraphLaunch,
    cuGraphUpload=cuGraphUpload,
    cuMemPoolTrimTo=cuMemPoolTrimTo,
    cuStreamBeginCapture=cuStreamBeginCapture,
    cuStreamEndCapture=cuStreamEndCapture,
)
