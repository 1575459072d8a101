"""`seginfer run`: write masks and overlays of images and videos."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._bench.statistics import StageLatency, summarize_stages
from .._errors import InputError, MissingFileError
from .._media.images import read_image, write_image
from .._media.video import VideoReader, VideoSink, video_writer
from .._segmenter import Segmenter
from .._system.atomic import atomic_path, make_folder
from .._tasks.segmentation import Segmentation
from .._tasks.timings import Timings
from .inputs import expand, is_video, open_segmenter
from .output import Output, latency_table

Image = NDArray[np.uint8]

_FRAME = "frame_{:06d}.png"


def run(args: argparse.Namespace, output: Output) -> int:
    """Segment all inputs.

    Unreadable inputs are listed, and the exit code is 1.
    """
    if not 0 <= args.alpha <= 1:
        raise InputError(f"--alpha must be within 0..1, got {args.alpha}")
    files = expand(args.inputs)
    _refuse_collisions(files, args.output)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    timings: list[Timings] = []
    with open_segmenter(args, output, args.model) as segmenter:
        make_folder(args.output)
        job = _Job(segmenter, args.output, args.alpha, not args.no_overlay, timings)
        with output.progress("segmenting", _frame_count(files)) as advance:
            for file in files:
                try:
                    done.append(job.video(file, advance) if is_video(file) else job.picture(file, advance))
                except (InputError, MissingFileError) as error:
                    failed.append({"input": str(file), "error": str(error)})
        backend = f"{segmenter.backend.description}; {segmenter.backend.reason}; {segmenter.pipeline.description}"
    latency = summarize_stages(timings)
    data = {"outputs": done, "failed": failed, "latency_ms": latency, "backend": backend, "frames": len(timings)}
    output.result(data, lambda: _show(output, done, failed, latency, backend))
    return 1 if failed else 0


class _Job:
    """Settings of one call, and the loops over its inputs."""

    def __init__(
        self, segmenter: Segmenter, folder: Path, alpha: float, with_overlay: bool, timings: list[Timings]
    ) -> None:
        self._segmenter = segmenter
        self._folder = folder
        self._alpha = alpha
        self._with_overlay = with_overlay
        self._timings = timings
        self._gray = segmenter.spec.input.color == "gray"

    def picture(self, file: Path, advance: Any) -> dict[str, Any]:
        """Write mask and overlay of an image."""
        image = read_image(file, gray=self._gray)
        result = self._segment(image)
        record = {"input": str(file), **self._write(image, result, self._folder / f"{file.stem}.png")}
        advance()
        return record

    def video(self, file: Path, advance: Any) -> dict[str, Any]:
        """Write one mask per frame, and an overlay video."""
        frames = VideoReader(file, gray=self._gray)
        folder, overlay = self._folder / file.stem, self._folder / f"{file.stem}_overlay.webm"
        count = 0
        with ExitStack() as stack:
            sink: VideoSink | None = None
            for image in frames:
                result = self._segment(image)
                make_folder(folder)
                _save_mask(result, folder / _FRAME.format(count))
                if self._with_overlay:
                    sink = sink or stack.enter_context(
                        video_writer(overlay, result.geometry.image_hw, frames.frame_rate)
                    )
                    sink.write(result.overlay(image, alpha=self._alpha))
                count += 1
                advance()
        _remove_later_frames(folder, count)
        if count < 0.9 * frames.approximate_length:
            raise InputError(f"{file} breaks off after {count} of about {frames.approximate_length} frames")
        record: dict[str, Any] = {"input": str(file), "masks": str(folder), "frames": count}
        return {**record, "overlay": str(overlay)} if self._with_overlay else record

    def _segment(self, image: Image) -> Segmentation:
        result = self._segmenter(image)
        self._timings.append(result.timings)
        return result

    def _write(self, image: Image, result: Segmentation, mask: Path) -> dict[str, Any]:
        record: dict[str, Any] = {"mask": str(_save_mask(result, mask))}
        if self._with_overlay:
            overlay = mask.with_name(f"{mask.stem}_overlay.jpg")
            write_image(overlay, result.overlay(image, alpha=self._alpha))
            record["overlay"] = str(overlay)
        areas = {name: round(area, 6) for name, area in result.class_areas().items()}
        spec = self._segmenter.spec.input
        if spec.resize == "tile":
            record["tiles"] = len(result.geometry.tiles(spec))
        return {**record, "size": list(result.geometry.image_hw), "class_areas": areas}


def _save_mask(result: Segmentation, path: Path) -> Path:
    """Write a mask as PNG, or a multilabel mask as NumPy array."""
    if result.task != "multilabel":
        result.save(path)
        return path
    path = path.with_suffix(".npy")
    with atomic_path(path) as part:
        np.save(part, result.labels)
    return path


def _remove_later_frames(folder: Path, count: int) -> None:
    """Delete masks of an earlier, longer video."""
    for path in (*folder.glob("frame_*.png"), *folder.glob("frame_*.npy")):
        index = path.stem.removeprefix("frame_")
        if index.isdecimal() and int(index) >= count:
            path.unlink()


def _frame_count(files: Iterable[Path]) -> int:
    """Return the approximate number of frames, without unreadable files."""
    count = 0
    for file in files:
        with suppress(InputError, MissingFileError):
            count += VideoReader(file).approximate_length if is_video(file) else 1
    return count


def _refuse_collisions(files: Sequence[Path], folder: Path) -> None:
    """Raise if an output would replace another file."""
    inputs = {file.resolve() for file in files}
    planned: dict[Path, Path] = {}
    for file in files:
        for ending in ("", "_overlay.webm") if is_video(file) else (".png", ".npy", "_overlay.jpg"):
            target = (folder / f"{file.stem}{ending}").resolve()
            if target in inputs:
                raise InputError(f"{target} is an input and would be overwritten; choose another -o folder")
            other = planned.setdefault(target, file)
            if other is not file:
                raise InputError(f"{other} and {file} would write the same mask; run each with its own -o folder")


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
        output.say(f"failed: {entry['error']}")


def _classes(record: dict[str, Any]) -> str:
    if "frames" in record:
        return f"{record['frames']} frames"
    areas = sorted(record["class_areas"].items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {area:.1%}" for name, area in areas[:4] if area)
