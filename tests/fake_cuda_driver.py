"""As much of the driver's functions as seginfer uses: graphs of the fake cuda-core's streams."""

# ruff: noqa: N801, N802, N803 (names of the driver)

from __future__ import annotations

import ctypes
import gc
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import fake_cuda_core
import numpy as np
from fake_cuda_core import Work


class CUresult(IntEnum):
    """What they return first."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908


class CUstreamCaptureMode(IntEnum):
    """Whom a capture forbids what."""

    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class CUmemorytype(IntEnum):
    """Kinds of memory in a copy."""

    CU_MEMORYTYPE_UNIFIED = 4


class _Struct:
    """Parameters of a call. A field must be there before it is set."""

    fields: tuple[str, ...] = ()

    def __init__(self) -> None:
        for name in self.fields:
            vars(self)[name] = 0

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.fields, name
        vars(self)[name] = value


class CUDA_KERNEL_NODE_PARAMS(_Struct):
    """See the driver."""

    fields = ("kern", *(f"{kind}Dim{axis}" for kind in ("grid", "block") for axis in "XYZ"), "kernelParams")


class CUDA_MEMSET_NODE_PARAMS(_Struct):
    """See the driver."""

    fields = ("dst", "value", "elementSize", "width", "height")


class CUDA_MEMCPY2D(_Struct):
    """See the driver."""

    fields = (*(f"{side}{name}" for side in ("src", "dst") for name in ("MemoryType", "Device", "Pitch")),
              "WidthInBytes", "Height")  # fmt: skip


_OK = (CUresult.CUDA_SUCCESS,)
_CONTEXT = "a context"


def _refused(function: str) -> bool:
    return function in fake_cuda_core._world.refuses_to


def cuStreamBeginCapture(hStream: int, mode: CUstreamCaptureMode) -> tuple[Any, ...]:
    stream = fake_cuda_core._world.streams[hStream]
    assert mode is CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    assert stream.fake_record is None
    assert not stream.fake_queue, "work is in flight"
    assert not gc.isenabled(), "the garbage collector may free memory within the capture"
    stream.fake_record = []
    fake_cuda_core._world.captures += 1
    fake_cuda_core._world.thread.capturing = stream
    return _OK


def cuStreamEndCapture(hStream: int) -> tuple[Any, ...]:
    stream = fake_cuda_core._world.streams[hStream]
    if getattr(fake_cuda_core._world.thread, "capturing", None) is not stream:
        return CUresult.CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, None
    fake_cuda_core._world.thread.capturing = None
    record, stream.fake_record = stream.fake_record, None
    if stream.fake_is_broken:  # and it stays so, which is stricter than the driver
        return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
    assert record is not None
    handle = fake_cuda_core._world.new_handle()
    fake_cuda_core._world.graphs[handle] = [(fake_cuda_core._world.new_handle(), record)]
    return CUresult.CUDA_SUCCESS, handle


def cuCtxGetCurrent() -> tuple[Any, ...]:
    fake_cuda_core._world.check_current()
    return CUresult.CUDA_SUCCESS, _CONTEXT


def cuCtxSynchronize() -> tuple[Any, ...]:
    try:
        fake_cuda_core._world.wait_for_device("a wait")
    except fake_cuda_core.CUDAError as error:
        return (CUresult[str(error).partition(":")[0]],)
    return _OK


def cuGraphCreate(flags: int) -> tuple[Any, ...]:
    assert flags == 0
    handle = fake_cuda_core._world.new_handle()
    fake_cuda_core._world.graphs[handle] = []
    return CUresult.CUDA_SUCCESS, handle


def _add(graph: int, dependencies: Any, count: int, works: list[Work]) -> tuple[Any, ...]:
    """Append a node, which must depend on the node before it: others may run at the same time."""
    nodes = fake_cuda_core._world.graphs[graph]
    assert list(dependencies or ()) == [node for node, _ in nodes[-1:]]
    assert count == len(dependencies or ())
    nodes.append((fake_cuda_core._world.new_handle(), works))
    return CUresult.CUDA_SUCCESS, nodes[-1][0]


def cuGraphAddKernelNode(
    hGraph: int, dependencies: Any, numDependencies: int, nodeParams: CUDA_KERNEL_NODE_PARAMS
) -> tuple[Any, ...]:  # fmt: skip
    if _refused("cuGraphAddKernelNode"):
        return CUresult.CUDA_ERROR_INVALID_VALUE, None
    given: Any = nodeParams
    assert (given.blockDimX, given.blockDimY, given.blockDimZ) == (32, 8, 1)
    argument = ctypes.c_void_p.from_address(given.kernelParams).value
    records = ctypes.c_uint64.from_address(argument or 0).value
    grid = given.gridDimX, given.gridDimY, given.gridDimZ
    kernel = fake_cuda_core._world.kernels[given.kern]
    work = Work(fake_cuda_core.fake_kernel(kernel, grid, records), _buffers(records))
    return _add(hGraph, dependencies, numDependencies, [work])


def cuGraphAddMemsetNode(
    hGraph: int, dependencies: Any, numDependencies: int, memsetParams: CUDA_MEMSET_NODE_PARAMS, ctx: Any
) -> tuple[Any, ...]:  # fmt: skip
    given: Any = memsetParams
    assert (ctx, given.elementSize, given.height) == (_CONTEXT, 1, 1)
    return _add(hGraph, dependencies, numDependencies, [_filling(given.dst, given.value, given.width)])


def cuGraphAddChildGraphNode(
    hGraph: int,
    dependencies: Any,
    numDependencies: int,
    childGraph: int,
) -> tuple[Any, ...]:
    if _refused("cuGraphAddChildGraphNode"):
        return CUresult.CUDA_ERROR_INVALID_VALUE, None
    works = [work for _, works in fake_cuda_core._world.graphs[childGraph] for work in works]
    return _add(hGraph, dependencies, numDependencies, works)


def _buffers(*addresses: int) -> tuple[Any, ...]:
    found = map(fake_cuda_core._world.buffer_at, addresses)
    return tuple(buffer for buffer in found if buffer is not None)


def _filling(address: int, value: int, nbytes: int) -> Work:
    buffer = fake_cuda_core._world.buffer_at(address, nbytes)
    assert buffer is not None, "nothing lies there"

    def run() -> None:
        ctypes.memset(address, value, nbytes)

    return Work(run, (buffer,))


def _start(stream: int, work: Work) -> tuple[Any, ...]:
    fake_cuda_core._world.streams[int(stream)].fake_start(work.run, *work.buffers)
    return _OK


def cuMemsetD8Async(dstDevice: int, uc: int, N: int, hStream: int) -> tuple[Any, ...]:
    return _start(hStream, _filling(dstDevice, uc, N))


def cuMemsetD2D8Async(dstDevice: int, dstPitch: int, uc: int, Width: int, Height: int, hStream: int) -> tuple[Any, ...]:
    return _fill_rows(dstDevice, dstPitch, np.full(Width, uc, np.uint8), Height, hStream)


def cuMemsetD2D16Async(
    dstDevice: int, dstPitch: int, us: int, Width: int, Height: int, hStream: int
) -> tuple[Any, ...]:
    return _fill_rows(dstDevice, dstPitch, np.full(Width, us, np.uint16), Height, hStream)


def _fill_rows(address: int, pitch: int, row: Any, rows: int, stream: int) -> tuple[Any, ...]:
    buffer = fake_cuda_core._world.buffer_at(address, (rows - 1) * pitch + row.nbytes)
    assert buffer is not None
    assert pitch >= row.nbytes

    def run() -> None:
        for i in range(rows):
            ctypes.memmove(address + i * pitch, row.ctypes.data, row.nbytes)

    return _start(stream, Work(run, (buffer,)))


def cuMemcpyAsync(dst: int, src: int, ByteCount: int, hStream: int) -> tuple[Any, ...]:
    return _copy_rows(dst, src, [(0, 0)], ByteCount, hStream)


def cuMemcpy2DAsync(pCopy: CUDA_MEMCPY2D, hStream: int) -> tuple[Any, ...]:
    given: Any = pCopy
    assert (given.srcMemoryType, given.dstMemoryType) == (CUmemorytype.CU_MEMORYTYPE_UNIFIED,) * 2
    assert min(given.srcPitch, given.dstPitch) >= given.WidthInBytes
    rows = [(i * given.dstPitch, i * given.srcPitch) for i in range(given.Height)]
    return _copy_rows(given.dstDevice, given.srcDevice, rows, given.WidthInBytes, hStream)


def _copy_rows(target: int, source: int, rows: list[tuple[int, int]], nbytes: int, stream: int) -> tuple[Any, ...]:
    world = fake_cuda_core._world
    extents = [rows[-1][side] + nbytes for side in (0, 1)]
    found = [world.buffer_at(at, n) for at, n in zip((target, source), extents, strict=True)]
    assert all(found), "a copy of memory that is neither pinned nor of the GPU waits for it"

    def run() -> None:
        for to, of in rows:
            ctypes.memmove(target + to, source + of, nbytes)

    return _start(stream, Work(run, tuple(buffer for buffer in found if buffer is not None)))


def cuGraphInstantiate(hGraph: int, flags: int) -> tuple[Any, ...]:
    assert flags == 0
    if _refused("cuGraphInstantiate"):
        return CUresult.CUDA_ERROR_INVALID_VALUE, None
    handle = fake_cuda_core._world.new_handle()
    works = [work for _, works in fake_cuda_core._world.graphs[hGraph] for work in works]
    fake_cuda_core._world.executables[handle] = works
    return CUresult.CUDA_SUCCESS, handle


def cuGraphDestroy(hGraph: int) -> tuple[Any, ...]:
    del fake_cuda_core._world.graphs[hGraph]
    return _OK


def cuGraphUpload(hGraphExec: int, hStream: int) -> tuple[Any, ...]:
    assert hGraphExec in fake_cuda_core._world.executables
    assert hStream in fake_cuda_core._world.streams
    return (CUresult.CUDA_ERROR_INVALID_VALUE,) if _refused("cuGraphUpload") else _OK


def cuGraphLaunch(hGraphExec: int, hStream: int) -> tuple[Any, ...]:
    if _refused("cuGraphLaunch"):
        return (CUresult.CUDA_ERROR_INVALID_VALUE,)
    for work in fake_cuda_core._world.executables[hGraphExec]:
        fake_cuda_core._world.streams[hStream].fake_start(work.run, *work.buffers)
    fake_cuda_core._world.launched.append(hGraphExec)
    return _OK


def cuGraphExecDestroy(hGraphExec: int) -> tuple[Any, ...]:
    del fake_cuda_core._world.executables[hGraphExec]
    return _OK


def cuMemPoolTrimTo(pool: str, minBytesToKeep: int) -> tuple[Any, ...]:
    assert (pool, minBytesToKeep) == ("pool", 0)
    return _OK


DRIVER = SimpleNamespace(
    CUDA_KERNEL_NODE_PARAMS=CUDA_KERNEL_NODE_PARAMS,
    CUDA_MEMCPY2D=CUDA_MEMCPY2D,
    CUDA_MEMSET_NODE_PARAMS=CUDA_MEMSET_NODE_PARAMS,
    CUmemorytype=CUmemorytype,
    CUresult=CUresult,
    CUstreamCaptureMode=CUstreamCaptureMode,
    cuCtxGetCurrent=cuCtxGetCurrent,
    cuCtxSynchronize=cuCtxSynchronize,
    cuGraphAddChildGraphNode=cuGraphAddChildGraphNode,
    cuGraphAddKernelNode=cuGraphAddKernelNode,
    cuGraphAddMemsetNode=cuGraphAddMemsetNode,
    cuGraphCreate=cuGraphCreate,
    cuGraphDestroy=cuGraphDestroy,
    cuGraphExecDestroy=cuGraphExecDestroy,
    cuGraphInstantiate=cuGraphInstantiate,
    cuGraphLaunch=cuGraphLaunch,
    cuGraphUpload=cuGraphUpload,
    cuMemPoolTrimTo=cuMemPoolTrimTo,
    cuMemcpy2DAsync=cuMemcpy2DAsync,
    cuMemcpyAsync=cuMemcpyAsync,
    cuMemsetD2D16Async=cuMemsetD2D16Async,
    cuMemsetD2D8Async=cuMemsetD2D8Async,
    cuMemsetD8Async=cuMemsetD8Async,
    cuStreamBeginCapture=cuStreamBeginCapture,
    cuStreamEndCapture=cuStreamEndCapture,
)
