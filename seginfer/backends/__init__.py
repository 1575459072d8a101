"""Inference backends: choose and open them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .._cuda.tensors import DeviceMemory, DeviceTensor
from .._errors import BackendUnavailableError, InputError
from .._files.model_file import ENGINE_SUFFIX, ModelFile, read_model
from ._protocol import Backend, DeviceBackend, Execution

if TYPE_CHECKING:
    from .._tensorrt.build import Progress
    from .._tensorrt.engine_file import EngineFile
    from .._tensorrt.key import LibraryName
    from .._tensorrt.options import EngineOptions


__all__ = [
    "Backend",
    "DeviceBackend",
    "DeviceMemory",
    "DeviceTensor",
    "Execution",
    "open_backend",
    "read_any_model",
]


class _Settings(NamedTuple):
    """Arguments of a backend. See `Segmenter.open`."""

    device: str
    threads: int | None
    engine: EngineOptions | None
    on_progress: Progress | None


def read_any_model(path: str | Path) -> ModelFile | EngineFile:
    """Read an .onnx file or an engine.

    The .onnx file contains its spec. The engine has a sidecar, whose hash is always compared.

    Raises:
        MissingFileError: if the file does not exist.
        ModelFileError: if it is truncated, in an unknown format, without a spec, or contradicts its spec.
    """
    if Path(path).suffix != ENGINE_SUFFIX:
        return read_model(path)
    from .._tensorrt.engine_file import read_engine

    return read_engine(path)


def _open_onnxruntime(model: ModelFile, settings: _Settings) -> Backend:
    from .onnxruntime import OnnxRuntimeBackend

    if settings.engine is not None:
        raise InputError("engine options are for TensorRT, got the backend onnxruntime; give backend='tensorrt'")
    outputs = tuple(output.name for output in model.spec.outputs)
    return OnnxRuntimeBackend(model.path, outputs, device=settings.device, threads=settings.threads)


def _open_tensorrt(library: LibraryName, model: ModelFile, settings: _Settings) -> Backend:
    from .tensorrt import build_and_open

    return build_and_open(model, library, settings.engine, device=settings.device, on_progress=settings.on_progress)


# One line per backend that opens an .onnx file.
_OPENERS: dict[str, Callable[[ModelFile, _Settings], Backend]] = {
    "onnxruntime": _open_onnxruntime,
    "tensorrt": partial(_open_tensorrt, "tensorrt"),
    "tensorrt_rtx": partial(_open_tensorrt, "tensorrt_rtx"),
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
    """Open a model in a backend.

    `Segmenter.open` describes the arguments. "auto" is ONNX Runtime for an .onnx file, and TensorRT for an engine.

    Raises:
        InputError: if device or threads are malformed.
        BackendUnavailableError: if the backend or the device is not available.
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
