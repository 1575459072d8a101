"""Measure every CUDA kernel against the copy bandwidth.

The rate of a kernel is the bytes that it must move over its time, for a batch of 1080p frames. Kernels that fail or
write wrong bytes are in the record, with the reason, and the others are measured.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from _errors import CheckError
from _gpu.clock import EventClock
from _gpu.kept import Kept
from _gpu.measured import Measured, Record, check_same, describe, overlay_records
from _machine import commit_record, machine_record, versions_record
from pictures import mixed_share, picture, smooth_logits

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec, SegInferError, postprocess, preprocess
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.graph import Graph, Recording
from seginfer._cuda.steps import Step
from seginfer._inputs import launches
from seginfer._inputs.steps import InputStep
from seginfer._tasks.dense.launches import OutputAt, PlaneAt, ResultsAt
from seginfer._tasks.dense.steps import MaskStep, OverlayStep

IMAGE_HW, INPUT_HW, LOGITS_HW, CLASSES = (1080, 1920), (512, 1024), (128, 256), 19
ROUNDS, WARM_UP, CALLS = 30, 5, 10
"""Calls of a round are one CUDA graph, so that the GPU never waits for a launch."""
COPIED_BYTES = 1 << 29
FRAMES = 128
"""More than the cache of a large GPU holds: float16 logits of 32 frames are 42 MB, and the L2 of an H200 is 60 MB."""
PICTURES = 16

Call = Callable[[Any], object]
"""Starts work on a stream."""
Resampling = Literal["opencv", "torch", "pillow"]
DType = Literal["float32", "float16"]
INPUTS: tuple[tuple[Resampling, DType], ...] = (
    ("opencv", "float32"), ("opencv", "float16"), ("torch", "float32"), ("pillow", "float32"),
)  # fmt: skip


class Bench:
    """A GPU with frames in its memory, and a clock."""

    def __init__(self, gpu: Gpu, count: int) -> None:
        self.gpu, self.count = gpu, count
        self._clock = EventClock(gpu, gpu.stream)
        self.frames = [picture(IMAGE_HW, seed) for seed in range(min(count, PICTURES))]
        self.frame_buffers = [gpu.upload(self.frames[i % PICTURES]) for i in range(count)]
        self._buffers: list[Any] = []
        self._steps: list[Any] = []

    def _allocate(self, nbytes: int) -> Any:
        self._buffers.append(self.gpu.allocate(nbytes))
        return self._buffers[-1]

    def free(self) -> None:
        """Free the buffers of the last measurement. Small GPUs need the room."""
        while self._steps:
            self._steps.pop().close()
        while self._buffers:
            self.gpu.free(self._buffers.pop())

    def time_ms(self, start: Call) -> float:
        """Return the median GPU time of a call, over rounds."""
        start(self.gpu.stream)  # a capture must not load kernels
        self.gpu.stream.sync()

        def start_all(on: Any) -> None:
            for _ in range(CALLS):
                start(on)

        stream = self.gpu.new_stream()
        recording = Recording(self.gpu, stream, start_all)
        graph = Graph(self.gpu, [recording], stream)
        try:
            times = self._clock.times_ms(partial(graph.launch, self.gpu.stream), WARM_UP + ROUNDS)
        finally:
            graph.close()
            recording.close()
            stream.close()
        return statistics.median(times[WARM_UP:]) / CALLS

    def kernel_times_ms(self, step: Step) -> list[float]:
        """Return the time of each kernel of a step."""
        kernels = range(len(step.repeats(self.gpu.stream)))
        return [self.time_ms(lambda on, i=i: step.repeats(on)[i]()) for i in kernels]  # type: ignore[misc]

    def copy_gb_per_s(self) -> float:
        """Return the bandwidth of a copy in GPU memory, reads plus writes."""
        source, target = (self._allocate(COPIED_BYTES) for _ in range(2))
        elapsed = self.time_ms(lambda on: target.copy_from(source, stream=on))
        return 2 * COPIED_BYTES / elapsed / 1e6

    def preprocess(self, resampling: Resampling, dtype: DType) -> list[Measured]:
        """Time the input step from 1080 x 1920 to 512 x 1024."""
        spec = _spec(resampling, dtype)
        expected, geometries = preprocess(self.frames[:1], spec)
        batch = self._allocate(expected.nbytes * self.count)
        images = [launches.ImageAt(int(buffer.handle), 3 * IMAGE_HW[1]) for buffer in self.frame_buffers]
        step = InputStep(self.gpu, geometries * self.count, spec.input, "rgb", images, int(batch.handle))
        self._steps.append(step)
        step.start(self.gpu.stream)
        found = np.empty((self.count, *expected.shape[1:]), expected.dtype)
        self.gpu.download(batch, found, self.gpu.stream)
        check_same(found[:1], expected, resampling)
        moved = self.count * (self.frames[0].nbytes + expected[0].nbytes)
        return [Measured(f"preprocess, {resampling}, {dtype}", moved, *self.kernel_times_ms(step))]

    def masks(self, dtype: str) -> list[Measured]:
        """Time each kernel of the mask step on smooth logits."""
        spec = _spec("opencv", "float32")
        logits = np.repeat(smooth_logits(CLASSES, LOGITS_HW), self.count, 0).astype(dtype)
        _, geometries = preprocess(self.frames[:1], spec)
        expected = postprocess(logits[:1], geometries, spec)[0]
        output = self.gpu.upload(logits)
        self._buffers.append(output)
        masks = [self._allocate(expected.nbytes) for _ in range(self.count)]
        maps = [self._allocate(4 * expected.nbytes) for _ in range(self.count)]
        results = [
            ResultsAt(*(PlaneAt(int(b.handle), IMAGE_HW[1]) for b in pair)) for pair in zip(masks, maps, strict=True)
        ]
        at = OutputAt(int(output.handle), dtype)
        faults = int(self._allocate(4 * self.count).handle)
        step = MaskStep(self.gpu, geometries * self.count, LOGITS_HW, spec, at, results, faults=faults)
        self._steps.append(step)
        step.start(self.gpu.stream)
        step.check(self.gpu.stream)
        found = np.empty_like(expected)
        self.gpu.download(masks[0], found, self.gpu.stream)
        check_same(found, expected, "mask")
        mask, confidence = self.kernel_times_ms(step)
        return [
            Measured(f"mask, {dtype}", self.count * (logits[0].nbytes + expected.nbytes), mask),
            Measured(f"confidence, {dtype}", self.count * (logits[0].nbytes + 4 * expected.nbytes), confidence),
        ]

    def overlay(self) -> list[Measured]:
        """Time the overlay of colours on frames."""
        colors = np.random.default_rng(5).integers(1, 256, (CLASSES, 3), np.uint8)
        mask = np.repeat(np.arange(IMAGE_HW[0])[:, None] * CLASSES // IMAGE_HW[0], IMAGE_HW[1], 1).astype(np.uint8)
        masks = [self.gpu.upload(mask) for _ in range(self.count)]
        self._buffers += masks
        outs = [self._allocate(self.frames[0].nbytes) for _ in range(self.count)]
        records = overlay_records(IMAGE_HW, self.frame_buffers, masks, outs)
        step = OverlayStep(self.gpu, colors, 128, records)
        self._steps.append(step)
        moved = self.count * (2 * self.frames[0].nbytes + mask.nbytes)
        return [Measured("overlay", moved, *self.kernel_times_ms(step))]


def _spec(resampling: Resampling, dtype: DType) -> ModelSpec:
    source = InputSpec(
        INPUT_HW, resampling=resampling, dtype=dtype, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    names = tuple(f"class {i}" for i in range(CLASSES))
    return ModelSpec("semantic", source, ClassSpec(names), (OutputSpec(stride=4),))


def measure(count: int, keep: Callable[[Record], object] = lambda _: None) -> Record:
    """Return the record of a run.

    Args:
        count: frames of a batch.
        keep: gets the record after every kernel.

    Raises:
        BackendUnavailableError: if there is no GPU.
    """
    bench = Bench(Gpu(), count)
    copied = bench.copy_gb_per_s()
    kernels: list[Record] = []
    record = {
        "gpu": bench.gpu.device.name,
        "architecture": f"sm_{bench.gpu.device.arch}",
        "frames": count,
        "mixed_share": round(mixed_share(smooth_logits(CLASSES, LOGITS_HW)), 4),
        "copy_gb_per_s": round(copied, 1),
        "kernels": kernels,
        "machine": machine_record(),
        "versions": versions_record(),
        "commit": commit_record(),
    }
    for name, job in _jobs(bench).items():
        try:
            bench.free()
            kernels += [one.record(copied) for one in job()]
        except CheckError as error:
            kernels.append({"name": name, "wrong": str(error)})
        except Exception as error:  # of any kind: the others must be measured
            kernels.append({"name": name, "failed": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        keep(record)
    return record


def _jobs(bench: Bench) -> dict[str, Callable[[], list[Measured]]]:
    inputs = {f"preprocess, {names[0]}, {names[1]}": partial(bench.preprocess, *names) for names in INPUTS}
    masks = {f"masks, {dtype}": partial(bench.masks, dtype) for dtype in ("float32", "float16")}
    return {**inputs, **masks, "overlay": bench.overlay}


def main() -> int:
    """Measure, print a line per kernel, and write the record after each.

    The exit code is 1 if a kernel has no time, and 2 without a GPU.
    """
    arguments = _parser().parse_args()

    def file(record: Record) -> Path:
        slug = re.sub(r"[^a-z0-9]+", "-", record["gpu"].lower()).strip("-")
        return Path(arguments.folder) / f"{slug}.json"

    def keep(record: Record) -> None:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        Kept(file(record)).keep(**record)

    try:
        record = measure(arguments.frames, keep)
    except SegInferError as error:
        sys.stderr.write(f"no GPU to measure: {error}\n")
        return 2
    sys.stdout.write(f"copy: {record['copy_gb_per_s']:.0f} GB/s\n")
    for kernel in record["kernels"]:
        sys.stdout.write(f"{kernel['name']}: {describe(kernel)}\n")
    sys.stdout.write(f"wrote {file(record)}\n")
    return int(any("time_ms" not in kernel for kernel in record["kernels"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--frames", type=int, default=FRAMES, help="of a batch; their bytes should exceed the GPU's cache"
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
