"""`seginfer demo`: export, certify and run the bundled model."""

from __future__ import annotations

import argparse
import importlib
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._bench.statistics import StageLatency, summarize_stages
from .._errors import MissingDependencyError, ModelFileError
from .._files.model_file import read_model
from .._media.images import encode_image
from .._media.video import VideoReader, video_writer
from .._segmenter import Segmenter
from .._spec.certificate import Certificate
from .._spec.model_spec import ModelSpec
from .._spec.schema import unstructure
from .._tasks.segmentation import Segmentation
from .._tasks.timings import Timings
from ..assets import SOCCER
from .certificate import certificate_rows
from .inputs import open_segmenter, spread
from .output import Output, latency_table
from .output_folder import OutputFolder
from .report import write_report

_STILLS = 6
_PARITY_FRAMES = 8

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Run:
    """Results of running the clip."""

    stills: list[tuple[Path, Path]]
    """(overlay, mask) of a few frames."""
    video: Path
    timings: list[Timings]
    backend: str


def demo(args: argparse.Namespace, output: Output) -> int:
    """Export, certify and run the soccer model.

    Pictures, a video and a report are written into the output folder.
    """
    folder = OutputFolder(args.output, overwrite=args.overwrite)
    clip = VideoReader(SOCCER / "clip.webm")
    frames = list(clip)
    model, report = args.output / "pitch.onnx", args.output / "report.html"
    with folder.file(model.name) as part:
        skipped = _export(args.workstation, part, frames, output)
    certificate = _required_certificate(model)
    with open_segmenter(args, output, model) as segmenter:
        run = _run(segmenter, frames, folder, clip.frame_rate, output)
    latency = summarize_stages(run.timings)
    with folder.file(report.name) as part:
        write_report(part, run.stills, run.video, latency, certificate, run.backend, frames[0].shape[:2])
    paths = {"model": model, "report": report, "video": run.video}
    data = {
        "paths": {name: str(path.resolve()) for name, path in paths.items()}
        | {"overlays": [str(overlay.resolve()) for overlay, _ in run.stills]}
        | {"masks": [str(mask.resolve()) for _, mask in run.stills]},
        "latency_ms": latency,
        "certificate": unstructure(certificate),
        "export_skipped": skipped,
        "backend": run.backend,
    }
    output.result(data, lambda: _show(output, certificate, latency, paths, skipped, run))
    return 0 if certificate.passed else 1


def _export(workstation: str, model: Path, frames: list[Image], output: Output) -> str | None:
    """Export the checkpoint, or without PyTorch copy the bundled model.

    Returns:
        The reason for skipping the export, or None.
    """
    try:
        with output.waiting("loading PyTorch"):
            export: Any = importlib.import_module(workstation)
    except MissingDependencyError as error:
        shutil.copyfile(SOCCER / "pitch.onnx", model)
        return f"the export step was skipped: {error}"
    module = export.load_source(f"{workstation}.zoo.unet:soccer_unet").module
    export.load_weights(module, SOCCER / "pitch.safetensors")
    chosen = [frames[i] for i in spread(len(frames), _PARITY_FRAMES)]
    with output.progress("exporting and comparing with PyTorch", len(chosen)) as advance:
        export.export_onnx(
            module, ModelSpec.load(SOCCER / "spec.json"), model, images=chosen, on_progress=lambda *_: advance()
        )
    return None


def _required_certificate(model: Path) -> Certificate:
    certificate = read_model(model).spec.provenance.certificate
    if certificate is None:
        raise ModelFileError(f"{model} carries no certificate; install seginfer again")
    return certificate


def _run(segmenter: Segmenter, frames: list[Image], folder: OutputFolder, rate: Fraction, output: Output) -> Run:
    segmenter(frames[0])  # the first run allocates, and is not part of the latency
    stills, timings = [], []
    video = folder.path / "overlay.webm"
    wanted = set(spread(len(frames), _STILLS))
    with ExitStack() as stack:
        part = stack.enter_context(folder.file(video.name))
        sink = stack.enter_context(video_writer(part, frames[0].shape[:2], rate))
        advance = stack.enter_context(output.progress("running the clip", len(frames)))
        for i, frame in enumerate(frames):
            result = segmenter(frame)
            timings.append(result.timings)
            overlay = result.overlay(frame)
            sink.write(overlay)
            if i in wanted:
                stills.append(_write_still(folder, i, overlay, result))
            advance()
    return Run(stills, video, timings, f"{segmenter.backend.description}; {segmenter.backend.reason}")


def _write_still(folder: OutputFolder, index: int, overlay: Image, result: Segmentation) -> tuple[Path, Path]:
    pictures = {"overlay": overlay, "mask": result.mask}
    written = [
        folder.write(f"frame_{index:03d}_{name}.png", encode_image(".png", picture))
        for name, picture in pictures.items()
    ]
    return Path(written[0]), Path(written[1])


def _show(
    output: Output,
    certificate: Certificate,
    latency: StageLatency,
    paths: dict[str, Path],
    skipped: str | None,
    run: Run,
) -> None:
    if skipped:
        output.say(skipped)
    output.table("parity with PyTorch", ("", "value"), certificate_rows(certificate))
    output.table(f"latency of {len(run.timings)} frames, ms", *latency_table(latency))
    rows = list(paths.items())
    output.table("written", ("", "path"), [*rows, *(("overlay", overlay) for overlay, _ in run.stills)])
