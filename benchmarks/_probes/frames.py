"""Probe of whole frames around a tiny network."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from _gpu.clock import EventClock

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec, Segmenter
from seginfer._cuda.gpu import Gpu, Kernel
from seginfer._cuda.graph import Graph
from seginfer._pipelines.gpu import GpuPipeline

from . import FRAME_HW, Image, make_frames, median_ms, report

BATCHES = (1, 4, 16)
CALLS, WARM_CALLS = 40, 5
CALLER_FRAMES = 150


class RecordedFrame(NamedTuple):
    """A CUDA graph of the pipeline, and calls that start its kernels."""

    batch: int
    graph: Graph
    kernels: list[tuple[str, Callable[[], None]]]


def recorded_frames(segmenter: Segmenter) -> tuple[Gpu, Any, list[RecordedFrame]]:
    """Return GPU, stream and recorded graphs of an idle segmenter.

    The only place that uses private attributes of the pipeline.
    """
    pipeline = segmenter.pipeline
    assert isinstance(pipeline, GpuPipeline)
    context = pipeline._contexts._free[-1]
    recorded = []
    for frame in context._frames.values():
        kernels: list[tuple[str, Callable[[], None]]] = [
            (f"{work.name}, grid {work.grid}", partial(pipeline.gpu.start, work, context.stream))
            for step in frame.steps
            for work in step.work
            if isinstance(work, Kernel)
        ]
        if len(frame.graphs) == 1:
            recorded.append(RecordedFrame(len(frame._key.owners), frame.graphs[0], kernels))
    return pipeline.gpu, context.stream, recorded


def run() -> None:
    """Report times of frames through one convolution in PyTorch."""
    import torch

    from seginfer.backends.torch import TorchBackend

    class Tiny(torch.nn.Module):
        """One convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 19, 4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            """Return logits at a quarter of the resolution."""
            return (self.conv(x),)

    inputs, classes = InputSpec((512, 1024), mean=(0.5,), std=(0.25,)), ClassSpec(tuple(map(str, range(19))))
    spec = ModelSpec("semantic", inputs, classes, (OutputSpec(stride=4),))
    torch.manual_seed(0)
    backend = TorchBackend(Tiny().eval().cuda(), ("logits",))
    with Segmenter(spec, backend, pixels="cuda") as segmenter:
        time_frames(segmenter, make_frames(max(BATCHES)))


def time_frames(segmenter: Segmenter, images: list[Image]) -> None:
    """Report times of batches, graphs and kernels, and rates of several callers."""
    for count in BATCHES:
        _time_batch(segmenter, images[:count])
    report("runs as", segmenter.pipeline.description)
    gpu, stream, recorded = recorded_frames(segmenter)
    clock = EventClock(gpu, stream)
    for frame in recorded:
        ms = statistics.median(clock.times_ms(partial(frame.graph.launch, stream), WARM_CALLS + CALLS)[WARM_CALLS:])
        report(f"graph alone, batch {frame.batch}, ms", round(ms, 4))
        for kernel, call in frame.kernels:
            (ms,) = clock.times_ms(call, 1, calls=20)
            report(f"  {kernel}, us", round(1e3 * ms, 2))
    rates = [_frames_per_second(segmenter, images, callers) for callers in (1, 2, 3)]
    report("frames per second with 1, 2, 3 callers of single frames", rates)


def _time_batch(segmenter: Segmenter, images: list[Image]) -> None:
    outs = [np.empty(image.shape[:2], np.uint8) for image in images]
    first_ms = median_ms(lambda: segmenter(images, out=outs), 1, 0)
    ms = median_ms(lambda: segmenter(images, out=outs), CALLS, WARM_CALLS)
    timings = segmenter(images, out=outs)[0].timings
    report(f"frame, batch {len(images)}", f"first {first_ms:.0f} ms, then {ms:.3f} ms; {timings}")


def _frames_per_second(segmenter: Segmenter, images: list[Image], callers: int) -> float:
    def call(count: int) -> None:
        out = np.empty(FRAME_HW, np.uint8)
        for i in range(count):
            segmenter(images[i % len(images)], out=out)

    rate = 0.0
    for count in (CALLER_FRAMES // 5, CALLER_FRAMES):  # the first round warms up
        threads = [threading.Thread(target=call, args=(count,)) for _ in range(callers)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = callers * count / (time.perf_counter() - start)
    return round(rate, 1)
