"""Certificates of engines that are built several times.

Every build measures kernels anew and may choose others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import nn

from seginfer._errors import InputError
from seginfer._segmenter import Segmenter
from seginfer._spec.certificate import Certificate
from seginfer._system.environment import parse_device
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.options import EngineOptions

from .._images import Images, name_images
from .certify import certify


class RepeatedBuilds(NamedTuple):
    """Comparison of several builds of one file."""

    certificates: tuple[Certificate, ...]
    """Comparison of each engine with PyTorch."""
    agreement: tuple[float, ...]
    """Share of all mask pixels, 0..1, on which each engine agrees with the first."""


def certify_builds(
    module: nn.Module,
    path: str | Path,
    images: Images,
    *,
    builds: int,
    options: EngineOptions | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> RepeatedBuilds:
    """Build engines of an .onnx file, and compare each with PyTorch.

    Engines run on the device. They are built without timings of earlier builds, and are not kept.

    Args:
        module: the module that was exported.
        path: the .onnx file, with its ModelSpec.
        images: as for `certify`.
        builds: number of builds.
        options: of every build.
        device: "auto", "cuda" or "cuda:<index>".
        on_progress: called with (images compared, images to compare).

    Raises:
        InputError: if `builds` is not positive.
        BackendUnavailableError: if there is no GPU, or no TensorRT.
        BackendError: if a build fails.
    """
    if builds < 1:
        raise InputError(f"builds must be at least 1, got {builds}")
    from seginfer.backends.tensorrt import usable_gpu

    usable_gpu(device, path)
    certificates: list[Certificate] = []
    masks: list[list[NDArray[Any]]] = []
    total = builds * len(images)
    for done in range(builds):

        def advance(n: int, _: int, start: int = done * len(images)) -> None:
            if on_progress:
                on_progress(start + n, total)

        certificate, found = _certify_build(module, path, images, options or EngineOptions(), device, advance)
        certificates.append(certificate)
        masks.append(found)
    return RepeatedBuilds(tuple(certificates), tuple(_agreement(masks[0], other) for other in masks))


def _certify_build(
    module: nn.Module,
    path: str | Path,
    images: Images,
    options: EngineOptions,
    device: str,
    on_progress: Callable[[int, int], None],
) -> tuple[Certificate, list[NDArray[Any]]]:
    with tempfile.TemporaryDirectory(prefix="seginfer-builds-") as folder:
        target = Path(folder) / "repeated.engine"
        engine = build_engine(path, target, options=options, device_id=parse_device(device)[1], timings=False)
        with Segmenter.open(engine.path, device=device) as segmenter:
            precision = engine.spec.provenance.precision or "fp32"
            certificate = certify(module, segmenter, images, precision=precision, on_progress=on_progress)
            masks = [segmenter(image).labels for image in name_images(images).values()]
    return replace(certificate, pipeline_sha256=engine.key.digest()), masks


def _agreement(first: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> float:
    same = sum(int((a == b).sum()) for a, b in zip(first, other, strict=True))
    return same / sum(mask.size for mask in first)
