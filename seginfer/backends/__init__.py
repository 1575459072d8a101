"""Backends: what runs the network. A backend takes a batch and yields tensors; it knows nothing of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from numpy.typing import NDArray

from .._errors import BackendUnavailableError, InputError
from .._geometry import Size
from .._model_file import ModelFile, read_model

if TYPE_CHECKING:
    from .._cuda._launch import Gpu
    from .._tensorrt._build import Progress
    from .._tensorrt._engine_file import EngineFile
    from .._tensorrt._options import EngineOptions

Tensor = NDArray[Any]

ENGINE_SUFFIX = ".engine"


class Backend(Protocol):
    """Runs one network. Calls from several threads at once are safe."""

    @property
    def name(self) -> str:
        """Short name, such as "onnxruntime"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0"."""

    @property
    def reason(self) -> str:
        """Why this backend and device were chosen, in words."""

    @property
    def description(self) -> str:
        """Name, version, device and settings in one line, for people and records."""

    @property
    def batch_size(self) -> int | None:
        """The only number of images that `infer` takes; None if any."""

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the network on a batch.

        Args:
            batch: contiguous, in the shape and dtype that the network takes.
            out: what an earlier call returned for the same batch shape; its arrays are overwritten.

        Returns:
            The outputs that the spec names. The arrays belong to the caller: no later call changes them, unless they
            are handed back as `out`.

        Raises:
            BackendError: if the run fails.
        """

    def close(self) -> None:
        """Free what the backend holds; it cannot run afterwards."""


class DeviceTensor(NamedTuple):
    """A contiguous tensor in the memory of a GPU."""

    address: int
    shape: tuple[int, ...]
    dtype: str


class Execution(Protocol):
    """A network with its memory on a GPU, for batches of one shape and one caller at a time; addresses never change."""

    @property
    def input(self) -> DeviceTensor:
        """What the network reads; zeros at first."""

    @property
    def outputs(self) -> Mapping[str, DeviceTensor]:
        """What the network writes, by the names that the spec has."""

    @property
    def obstacle(self) -> str:
        """Why a CUDA graph cannot hold the network; empty if it can, as far as is known before trying."""

    def enqueue(self, stream: Any) -> None:
        """Start the network on a stream of cuda-core.

        The first call on a stream may allocate and wait; later ones only start work.

        Raises:
            BackendError: if it cannot be started.
        """

    def close(self) -> None:
        """Free the memory; no work may be in flight."""


class DeviceBackend(Backend, Protocol):
    """A backend whose network can be run in the memory of a GPU."""

    @property
    def device_index(self) -> int | None:
        """Which GPU; None if the network runs on the CPU."""

    def most_images(self, input_hw: Size) -> int | None:
        """Return the most images of a batch of this (height, width); None if any number."""

    def places(self, count: int, input_hw: Size) -> int:
        """Return how many places the batch for `count` images has, of which there are at most `most_images`."""

    def execution(self, shape: tuple[int, ...], gpu: Gpu) -> Execution:
        """Return the network for batches of one shape, with memory of the GPU that `device_index` names.

        Raises:
            InputError: if the network does not take this shape.
            BackendError: if memory runs out.
        """


class _Settings(NamedTuple):
    """How to open a backend; see `Segmenter.open`."""

    device: str
    threads: int | None
    engine: EngineOptions | None
    on_progress: Progress | None


def read_any_model(path: str | Path) -> ModelFile | EngineFile:
    """Read an .onnx file with its spec, or an engine with its sidecar.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is truncated, foreign, without a spec, or contradicts its spec.
    """
    if Path(path).suffix != ENGINE_SUFFIX:
        return read_model(path)
    from .._tensorrt._engine_file import read_engine

    return read_engine(path)


def as_device_backend(backend: Backend) -> DeviceBackend | None:
    """Return the backend if its network runs on a GPU, in memory that kernels can share."""
    return None if getattr(backend, "device_index", None) is None else cast("DeviceBackend", backend)


def _open_onnxruntime(model: ModelFile, settings: _Settings) -> Backend:
    from .onnxruntime import OnnxRuntimeBackend

    outputs = tuple(output.name for output in model.spec.outputs)
    return OnnxRuntimeBackend(model.path, outputs, device=settings.device, threads=settings.threads)


def _open_tensorrt(model: ModelFile, settings: _Settings) -> Backend:
    from .tensorrt import build_and_open

    return build_and_open(model, "tensorrt", settings.engine, device=settings.device, on_progress=settings.on_progress)


def _open_tensorrt_rtx(model: ModelFile, settings: _Settings) -> Backend:
    from .tensorrt import build_and_open

    return build_and_open(
        model, "tensorrt_rtx", settings.engine, device=settings.device, on_progress=settings.on_progress
    )


# One line per backend that opens an .onnx file.
_OPENERS: dict[str, Callable[[ModelFile, _Settings], Backend]] = {
    "onnxruntime": _open_onnxruntime,
    "tensorrt": _open_tensorrt,
    "tensorrt_rtx": _open_tensorrt_rtx,
}


def open_backend(
    model: ModelFile | EngineFile,
    name: str = "auto",
    *,
    device: str = "auto",
    threads: int | None = None,
    engine: EngineOptions | None = None,
    on_progress: Progress | None = None,
) -> Backend:
    """Open a model in the backend asked for; see `Segmenter.open` for the arguments.

    "auto" is ONNX Runtime for an .onnx file, and TensorRT for an engine.

    Raises:
        InputError: if device or threads are malformed.
        BackendUnavailableError: if the backend or the device is not there.
        BackendError: if the backend cannot load the model.
    """
    if name != "auto" and name not in _OPENERS:
        raise BackendUnavailableError(f"backend must be auto or one of {', '.join(_OPENERS)}, got {name!r}")
    if isinstance(model, ModelFile):
        return _OPENERS["onnxruntime" if name == "auto" else name](
            model, _Settings(device, threads, engine, on_progress)
        )
    from .tensorrt import TensorRtBackend

    if engine is not None:
        raise InputError(f"{model.path} is built already, got engine options; give its .onnx file to build another")
    if name not in ("auto", model.key.backend):
        raise BackendUnavailableError(f"{model.path} is an engine of {model.key.backend}, got backend {name!r}")
    return TensorRtBackend(model, device=device)
