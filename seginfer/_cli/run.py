"""`seginfer run`: write masks and overlays of images and videos."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._bench.statistics import StageLatency, summarize_stages
from .._errors import BackendError, InputError, MissingFileError, OutputWriteError
from .._media.images import encode_image, read_image
from .._media.video import VideoReader, VideoSink, video_writer
from .._segmenter import Segmenter
from .._tasks.segmentation import Segmentation
from .._tasks.timings import Timings
from .inputs import Input, expand, open_segmenter
from .output import Output, latency_table
from .output_folder import OutputFolder

Image = NDArray[np.uint8]


def run(args: argparse.Namespace, output: Output) -> int:
    """Segment all inputs.

    Inputs that cannot be read, and outputs that cannot be written, are listed, and the exit code is 1.
    """
    if not 0 <= args.alpha <= 1:
        raise InputError(f"--alpha must be within 0..1, got {args.alpha}")
    files = expand(args.inputs)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    timings: list[Timings] = []
    with open_segmenter(args, output, args.model, verify=not args.no_verify) as segmenter:
        inputs = {os.path.realpath(file.path) for file in files}
        folder = OutputFolder(args.output, overwrite=args.overwrite, keep=inputs)
        job = _Job(segmenter, folder, args.alpha, not args.no_overlay, timings)
        with output.progress("segmenting", _frame_count(files)) as advance:
            for file in files:
                try:
                    done.append(job.video(file, advance) if file.is_video else job.picture(file, advance))
                except (InputError, MissingFileError, OutputWriteError, BackendError) as error:
                    failed.append({"input": str(file.path), "error": str(error)})
                except MemoryError:
                    problem = f"{file.path} needs more memory than there is; make it smaller, or cut it"
                    failed.append({"input": str(file.path), "error": problem})
        backend = f"{segmenter.backend.description}; {segmenter.backend.reason}; {segmenter.pipeline.description}"
    latency = summarize_stages(timings)
    data = {"outputs": done, "failed": failed, "latency_ms": latency, "backend": backend, "frames": len(timings)}
    output.result(data, lambda: _show(output, done, failed, latency, backend))
    return 1 if failed else 0


class _Job:
    """Settings of one call, and the loops over its inputs."""

    def __init__(
        self, segmenter: Segmenter, folder: OutputFolder, alpha: float, with_overlay: bool, timings: list[Timings]
    ) -> None:
        self._segmenter = segmenter
        self._folder = folder
        self._alpha = alpha
        self._with_overlay = with_overlay
        self._timings = timings
        self._gray = segmenter.spec.input.color == "gray"

    def picture(self, file: Input, advance: Any) -> dict[str, Any]:
        """Write mask and overlay of an image."""
        image = read_image(file.path, gray=self._gray)
        result = self._segment(image)
        folder, name = self._folder.folder(*file.output.parent.parts), file.output.name
        record: dict[str, Any] = {"input": str(file.path), "mask": _save_mask(result, folder, f"{name}.mask")}
        if self._with_overlay:
            overlay = encode_image(".jpg", result.overlay(image, alpha=self._alpha))
            record["overlay"] = folder.write(f"{name}.overlay.jpg", overlay)
        areas = {name: round(area, 6) for name, area in result.class_areas().items()}
        spec = self._segmenter.spec.input
        if spec.resize == "tile":
            record["tiles"] = len(result.geometry.tiles(spec))
        advance()
        return {**record, "size": list(result.geometry.image_hw), "class_areas": areas}

    def video(self, file: Input, advance: Any) -> dict[str, Any]:
        """Write one mask per frame, and an overlay video.

        Those of the frames before a damaged one are kept.
        """
        frames = VideoReader(file.path, gray=self._gray)
        folder, name = self._folder.folder(*file.output.parent.parts), file.output.name
        masks: list[str] = []
        problem: InputError | None = None
        with ExitStack() as stack:
            sink: VideoSink | None = None
            try:
                for seconds, image in frames.timed():
                    result = self._segment(image)
                    into = folder.folder(f"{name}.masks")
                    masks.append(_save_mask(result, into, f"frame_{len(masks):06d}"))
                    if self._with_overlay:
                        sink = sink or self._sink(stack, folder, f"{name}.overlay.webm", result, frames)
                        sink.write(result.overlay(image, alpha=self._alpha), seconds)
                    advance()
            except InputError as error:
                problem = error
        if masks:
            into.retain({os.path.basename(mask) for mask in masks})  # those of an earlier, longer video go
        if problem:
            raise problem
        record: dict[str, Any] = {"input": str(file.path), "masks": str(into.path), "frames": len(masks)}
        return {**record, "overlay": str(folder.path / f"{name}.overlay.webm")} if self._with_overlay else record

    def _sink(
        self, stack: ExitStack, folder: OutputFolder, name: str, result: Segmentation, frames: VideoReader
    ) -> VideoSink:
        part = stack.enter_context(folder.file(name))
        return stack.enter_context(video_writer(part, result.geometry.image_hw, frames.frame_rate))

    def _segment(self, image: Image) -> Segmentation:
        result = self._segmenter(image)
        self._timings.append(result.timings)
        return result


def _save_mask(result: Segmentation, folder: OutputFolder, stem: str) -> str:
    """Write a mask as PNG, or a multilabel mask as NumPy array."""
    if result.task != "multilabel":
        return folder.write(f"{stem}.png", encode_image(".png", result.mask))
    array = io.BytesIO()
    np.save(array, result.labels)
    return folder.write(f"{stem}.npy", array.getvalue())


def _frame_count(files: Iterable[Input]) -> int:
    """Return the approximate number of frames, without unreadable files."""
    count = 0
    for file in files:
        with suppress(InputError, MissingFileError, MemoryError):
            count += VideoReader(file.path).approximate_length if file.is_video else 1
    return count


def _show(output: Output, done: list[Any], failed: list[Any], latency: StageLatency, backend: str) -> None:
    shown = done[:20]
    if shown:
        rows = [(r["input"], r.get("mask") or r["masks"], _classes(r)) for r in shown]
        output.table("masks", ("input", "mask", "classes"), rows)
    if len(done) > len(shown):
        output.say(f"... and {len(done) - len(shown)} more")
    if latency:
        output.table("latency, ms", *latency_table(latency))
    output.say(backend)
    for entry in failed:
        name = "" if entry["input"] in entry["error"] else f"{entry['input']}: "
        output.say(f"failed: {name}{entry['error']}")


def _classes(record: dict[str, Any]) -> str:
    if "frames" in record:
        return f"{record['frames']} frames"
    areas = sorted(record["class_areas"].items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {area:.1%}" for name, area in areas[:4] if area)
