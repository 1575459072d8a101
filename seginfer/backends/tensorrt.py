"""Backend for engines of TensorRT and TensorRT for RTX."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from .._cuda.compiler import require_cuda
from .._cuda.gpu import Gpu
from .._cuda.recording import making
from .._cuda.tensors import DeviceMemory
from .._errors import BackendError, BackendUnavailableError, InputError
from .._files.model_file import ModelFile
from .._geometry.geometry import Size
from .._system.driver import find_gpu
from .._system.environment import parse_device
from .._system.fork import leak_in_children
from .._tensorrt.engine_file import EngineFile, check_fits
from .._tensorrt.engines import build_engine
from .._tensorrt.key import LibraryName, key_here
from .._tensorrt.library import find_library
from .._tensorrt.options import EngineOptions
from .._tensorrt.report import ShapeRange
from ._on_device import HostCalls
from ._protocol import CLOSED, Execution, Tensor
from ._tensorrt_execution import LoadedEngine

if TYPE_CHECKING:
    from .._tensorrt.build import Progress

_log = logging.getLogger("seginfer")


def build_and_open(
    model: ModelFile,
    library: LibraryName,
    options: EngineOptions | None,
    *,
    device: str,
    on_progress: Progress | None,
) -> TensorRtBackend:
    """Load the engine of an .onnx file.

    The engine comes from the cache, or is built.
    """
    options = options or EngineOptions()
    if options.library not in ("auto", library):
        raise InputError(f"engine options name the library {options.library}, got backend {library!r}; leave one out")
    index = usable_gpu(device, model.path)
    options = replace(options, library=library)
    engine = build_engine(model.path, options=options, device_id=index, on_progress=on_progress)
    return TensorRtBackend(engine, device=device)


class TensorRtBackend:
    """Runs an engine. See `Backend` and `DeviceBackend`.

    Args:
        engine: an intact engine of `seginfer build`.
        device: "auto", "cuda" or "cuda:<index>".

    Raises:
        BackendUnavailableError: if no GPU is available, or the library that built the engine is not installed.
        BackendError: if the engine was built for another GPU or version, or GPU memory runs out.
    """

    batch_size = None  # `infer` cuts and pads batches

    def __init__(self, engine: EngineFile, *, device: str = "auto") -> None:
        self.device_index = _index(device, engine.path)
        self.device = f"cuda:{self.device_index}"
        self.name = engine.key.backend
        self.reason = f"engine {engine.path}"
        gpu = find_gpu(self.device_index)
        self._library = find_library(self.name, gpu)
        check_fits(engine, key_here(engine.key, self._library, gpu))
        self._spec, self._report = engine.spec, engine.report
        self._gpu = Gpu(self.device_index)
        try:
            with making():
                self._engine: LoadedEngine | None = LoadedEngine(self._library, engine)
            self._engine.check(engine.report)
        except BaseException:
            self._gpu.close()
            raise
        self._calls = HostCalls(self, self._gpu, self._spec.input.layout)
        leak_in_children(self)
        _log.info("%r", self)

    @property
    def description(self) -> str:
        """Name, version, device and precision in one line."""
        precisions = " and ".join(self._report.precisions) or "unknown precision"
        return f"{self._library.description} on {self.device}, {precisions}"

    def __repr__(self) -> str:
        return f"<{self.description}; {self.reason}>"

    @property
    def opt_hw(self) -> Size:
        """(height, width) of the input that TensorRT optimised for."""
        shape = self._report.profiles[0].opt
        return shape[2:] if self._spec.input.layout == "NCHW" else shape[1:3]  # type: ignore[return-value]

    def max_batch_size(self, input_hw: Size) -> int:
        """Return the largest batch size of all profiles for this size.

        It is 1 if no profile takes this size.
        """
        return max((shapes.max[0] for shapes in self._profiles_for(input_hw)), default=1)

    def padded_batch_size(self, count: int, input_hw: Size) -> int:
        """Return the smallest batch size that holds `count` images.

        A profile takes this batch size at this input size.
        """
        fitting = [shapes for shapes in self._profiles_for(input_hw) if count <= shapes.max[0]]
        return min((max(count, shapes.min[0]) for shapes in fitting), default=count)

    def _profiles_for(self, input_hw: Size) -> list[ShapeRange]:
        first = 2 if self._spec.input.layout == "NCHW" else 1
        sizes = slice(first, first + 2)
        return [
            shapes
            for shapes in self._report.profiles
            if all(a <= n <= b for a, n, b in zip(shapes.min[sizes], input_hw, shapes.max[sizes], strict=True))
        ]

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> Execution:
        """Make an execution. See `DeviceBackend.execution`."""
        if self._engine is None:
            raise BackendError(CLOSED)
        outputs = tuple(output.name for output in self._spec.outputs)
        return self._engine.execution(self._profile(shape), self._spec.input.name, shape, outputs, memory)

    def _profile(self, shape: tuple[int, ...]) -> int:
        """Return the index of the narrowest profile for a shape."""
        # Narrow profiles are optimised best.
        fitting = [
            (sum(shapes.max) - sum(shapes.min), i)
            for i, shapes in enumerate(self._report.profiles)
            if all(a <= n <= b for a, n, b in zip(shapes.min, shape, shapes.max, strict=True))
        ]
        if not fitting:
            ranges = ", ".join(f"{shapes.min} to {shapes.max}" for shapes in self._report.profiles)
            raise InputError(
                f"the engine takes inputs of {ranges}, got {shape}; build one with a profile for this shape, see "
                "`seginfer build --help`"
            )
        return min(fitting)[1]

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the network on a batch in host memory. See `Backend.infer`.

        The batch is cut into pieces that a profile takes.
        """
        if self._engine is None:
            raise BackendError(CLOSED)
        return self._calls(batch, out)

    def close(self) -> None:
        """Free engine and memory after the call in flight.

        Executions must be closed.
        """
        if self._engine is not None and not self._gpu.is_forked:
            self._calls.close()
            with making():
                self._engine.close()
            self._engine = None
            self._gpu.close()


def usable_gpu(device: str, path: object) -> int:
    """Return the index of the GPU to build for and run on.

    Raises:
        BackendUnavailableError: if no GPU is available, or packages for it are missing.
    """
    # Checked before a build, which may take minutes.
    index = _index(device, path)
    find_gpu(index)
    require_cuda()
    return index


def _index(device: str, path: object) -> int:
    kind, index = parse_device(device)
    if kind == "cpu":
        raise BackendUnavailableError(f"TensorRT runs on an NVIDIA GPU, got device='cpu' for {path}; use onnxruntime")
    return index
