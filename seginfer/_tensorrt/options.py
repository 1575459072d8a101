"""Options of an engine build. All of them belong to the engine's key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .._errors import InputError, SpecError
from .._spec.schema import coerce_fields

_MAX_BATCH = 4096


@dataclass(frozen=True)
class EngineProfile:
    """Range of shapes that an engine is built for. A range of one shape is the fastest."""

    batch: tuple[int, int, int] = (1, 1, 1)
    """Number of images as (min, opt, max). A graph of one batch size takes that size or the default."""
    size: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    """(height, width) as (min, opt, max), for a network that takes any size. None uses the sizes of the spec."""

    def __post_init__(self) -> None:
        try:
            coerce_fields(self, "profile")
        except SpecError as error:
            raise InputError(str(error)) from error
        low, middle, high = self.batch
        if not 1 <= low <= middle <= high <= _MAX_BATCH:
            raise InputError(f"profile.batch must rise within 1..{_MAX_BATCH}, got {self.batch}; try (1, 1, 4)")
        for low, middle, high in zip(*(self.size or ()), strict=True):
            if not 1 <= low <= middle <= high:
                raise InputError(
                    f"profile.size must rise in height and width, got {self.size}; give it as (min, opt, max)"
                )

    @classmethod
    def fixed(cls, batch: int = 1, size: tuple[int, int] | None = None) -> EngineProfile:
        """Return the range of one shape."""
        return cls((batch, batch, batch), None if size is None else (size, size, size))


@dataclass(frozen=True)
class EngineOptions:
    """Options of an engine build.

    Precision is not among them: it is part of the ONNX file, and the engine must keep it.
    """

    library: Literal["auto", "tensorrt", "tensorrt_rtx"] = "auto"
    """Library to build with. "auto" is TensorRT where it and a GPU are present, and TensorRT for RTX otherwise."""
    profiles: tuple[EngineProfile, ...] = (EngineProfile(),)
    """Ranges of shapes. A call uses the narrowest that takes its batch."""
    workspace_mb: int | None = None
    """Maximum scratch memory of one layer in MiB. None is the library's own limit, all of the GPU's memory."""
    optimization_level: int = 3
    """0 builds fast, 5 searches longest. TensorRT's own default is 3."""
    max_aux_streams: int | None = None
    """Streams beside the main one that a network may use. None lets the library decide, 0 makes latency steady."""
    dla_core: int | None = None
    """Deep-learning accelerator of a Jetson to run on. Layers that it lacks run on the GPU. None is the GPU."""
    cuda_graph: bool = True
    """Run frames as CUDA graphs. TensorRT for RTX then refuses networks that allocate memory while they run."""

    def __post_init__(self) -> None:
        try:
            coerce_fields(self, "options")
        except SpecError as error:
            raise InputError(str(error)) from error
        if not self.profiles:
            raise InputError("options.profiles must hold at least one EngineProfile, got none")
        for name, value, low, high in (
            ("workspace_mb", self.workspace_mb, 1, 1 << 20),
            ("optimization_level", self.optimization_level, 0, 5),
            ("max_aux_streams", self.max_aux_streams, 0, 64),
            ("dla_core", self.dla_core, 0, 7),
        ):
            if value is not None and not low <= value <= high:
                raise InputError(f"options.{name} must be within {low}..{high}, got {value}")
