"""Pipelines: what fills results from images. HostPipeline goes around any backend, GpuPipeline stays on one GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ._errors import BackendUnavailableError, InputError
from ._formats import PixelFormat
from ._geometry import Geometry, Size
from ._mask_fill import Results
from ._segmentation import Timings
from ._spec import ModelSpec
from .backends import Backend, Tensor, as_device_backend

if TYPE_CHECKING:
    from ._ext import Threads

Image = NDArray[np.uint8]

Pixels = Literal["auto", "cpu", "cuda"]
"""Where images are prepared and masks are made."""

_log = logging.getLogger("seginfer")


class Part(NamedTuple):
    """One network input, and the arrays of the whole image that it fills in part."""

    number: int
    """Which image of the call it belongs to."""
    image: Image
    geometry: Geometry
    plan: Any
    """What `Pipeline.plan` returned for the geometry."""
    results: Results


class Evidence(NamedTuple):
    """What the network took and yielded in one batch: copies, (count, ...) each."""

    batch: Tensor
    output: Tensor


class Pipeline(Protocol):
    """Turns images into results. Calls from several threads at once are safe."""

    @property
    def description(self) -> str:
        """What computes pixels, in one line, for people and records."""

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the most network inputs of this (height, width) that `run` takes; None if any number."""

    @property
    def is_slow_at_first(self) -> bool:
        """Whether the first image of a size takes longer than the next."""

    def plan(self, geometry: Geometry) -> Any:
        """Return what is to be kept for network inputs of this geometry; made once per image shape."""

    def run(self, parts: Sequence[Part], evidence: list[Evidence] | None = None) -> Timings:
        """Fill the results of parts whose network inputs have one size.

        Args:
            parts: at least one, at most `batch_limit`.
            evidence: gets what the network took and yielded.

        Raises:
            InputError: if the network's output is not what the spec says, or not finite.
            BackendError: if the run fails, or the pipeline is closed.
        """

    def close(self) -> None:
        """Free what the pipeline holds, but not the backend."""


def open_pipeline(
    backend: Backend, spec: ModelSpec, color: PixelFormat, threads: Threads | None, pixels: Pixels = "auto"
) -> Pipeline:
    """Return the pipeline around a backend; with "auto" the one on the GPU where the backend runs on one.

    Raises:
        InputError: if `pixels` is no such place.
        BackendUnavailableError: if "cuda" was asked for and cannot be had.
    """
    from ._host_pipeline import HostPipeline

    if pixels not in ("auto", "cpu", "cuda"):
        raise InputError(f"pixels must be 'auto', 'cpu' or 'cuda', got {pixels!r}")
    on_device = as_device_backend(backend)
    reason = "asked for by name"
    if pixels == "cuda" and on_device is None:
        raise BackendUnavailableError(
            f"pixels='cuda' needs a network on a CUDA device, got {backend.description}; give device='cuda', "
            "or pixels='cpu'"
        )
    if pixels != "cpu" and on_device is not None:
        try:
            from ._cuda._pipeline import GpuPipeline

            return GpuPipeline(on_device, spec, color)
        except BackendUnavailableError as error:
            if pixels == "cuda":
                raise
            reason = str(error)
            _log.warning("pixels are computed on the CPU beside a network on the GPU: %s", reason)
    return HostPipeline(backend, spec, color, threads, reason if pixels == "cpu" or on_device else "")
