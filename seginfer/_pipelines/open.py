"""Choice of the pipeline: pixels on the GPU or on the CPU."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from .._errors import BackendUnavailableError, InputError
from .._inputs.formats import PixelFormat
from .._spec.model_spec import ModelSpec
from ..backends._protocol import Backend, as_device_backend
from .host import HostPipeline
from .pipeline import Pipeline

if TYPE_CHECKING:
    from .._ext import Threads

Pixels = Literal["auto", "cpu", "cuda"]
"""Device that prepares images and makes masks."""

_log = logging.getLogger("seginfer")


def open_pipeline(
    backend: Backend,
    spec: ModelSpec,
    color: PixelFormat,
    threads: Threads | None,
    pixels: Pixels = "auto",
) -> Pipeline:
    """Open the pipeline around a backend. "auto" computes pixels where the network runs.

    Raises:
        InputError: if `pixels` has another value.
        BackendUnavailableError: if "cuda" was requested and is not available.
    """
    if pixels not in ("auto", "cpu", "cuda"):
        raise InputError(f"pixels must be 'auto', 'cpu' or 'cuda', got {pixels!r}")
    on_device = as_device_backend(backend)
    reason = "requested by name"
    if pixels == "cuda" and on_device is None:
        raise BackendUnavailableError(
            f"pixels='cuda' needs a network on a CUDA device, got {backend.description}; give device='cuda', "
            "or pixels='cpu'"
        )
    if pixels != "cpu" and on_device is not None:
        try:
            from .gpu import GpuPipeline

            return GpuPipeline(on_device, spec, color, threads)
        except BackendUnavailableError as error:
            if pixels == "cuda":
                raise
            reason = str(error)
            _log.warning("pixels are computed on the CPU beside a network on the GPU: %s", reason)
    return HostPipeline(backend, spec, color, threads, reason if pixels == "cpu" or on_device else "")
