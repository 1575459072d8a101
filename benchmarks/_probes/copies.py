"""Probe of PCIe and host memory, which bound a frame's time."""

from __future__ import annotations

import statistics
import time
from functools import partial
from itertools import cycle

import numpy as np
from _gpu.clock import EventClock

from seginfer._cuda.gpu import Gpu, as_bytes

from . import FRAME_HW, make_frames, median_ms, report

FILL_BYTES = 1 << 32


def run() -> None:
    """Report times of copies, allocations and a wait."""
    gpu = Gpu()
    frame_bytes = FRAME_HW[0] * FRAME_HW[1] * 3
    for name, nbytes in (("frame", frame_bytes), ("mask", frame_bytes // 3), ("16 frames", 16 * frame_bytes)):
        _copy_over_pcie(gpu, name, nbytes)
    _copy_on_host(gpu, frame_bytes)
    report("allocate and free a pinned frame, ms", median_ms(lambda: gpu.free(gpu.allocate_pinned(frame_bytes)), 10))
    report("allocate and free a frame of the pool, ms", median_ms(lambda: gpu.free(gpu.allocate(frame_bytes)), 10))
    report("share of a core that a wait for the GPU takes (1 = it spins)", _cpu_share_of_wait(gpu))
    gpu.close()


def _copy_over_pcie(gpu: Gpu, name: str, nbytes: int) -> None:
    device, host = gpu.allocate(nbytes), gpu.allocate_pinned(nbytes)
    clock = EventClock(gpu, gpu.stream)
    for way, copy in (("H2D", device.copy_from), ("D2H", device.copy_to)):
        ms = statistics.median(clock.times_ms(partial(copy, host, stream=gpu.stream), 12)[2:])
        report(f"{way} {name}", f"{ms:.3f} ms, {nbytes / ms / 1e6:.1f} GB/s")
    gpu.free(device)
    gpu.free(host)


def _copy_on_host(gpu: Gpu, frame_bytes: int) -> None:
    frames = cycle(make_frames(24))  # more than caches hold
    pinned, pageable = gpu.allocate_pinned(frame_bytes), np.empty((*FRAME_HW, 3), np.uint8)
    staged = as_bytes(pinned).reshape(pageable.shape)
    report("np.copyto of a cold frame into pinned memory, ms", median_ms(lambda: np.copyto(staged, next(frames))))
    report("np.copyto of a frame out of pinned memory, ms", median_ms(lambda: np.copyto(pageable, staged)))


def _cpu_share_of_wait(gpu: Gpu) -> float:
    large = gpu.allocate(FILL_BYTES)
    cpu, wall = time.thread_time(), time.perf_counter()
    for _ in range(60):
        large.fill(0, stream=gpu.stream)
    event = gpu.new_event()
    gpu.stream.record(event)
    event.sync()  # as frames wait
    return round((time.thread_time() - cpu) / (time.perf_counter() - wall), 2)
