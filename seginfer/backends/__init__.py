"""Backends: what runs the network. A backend takes a batch and yields tensors; it knows nothing of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from .._errors import BackendUnavailableError
from .._model_file import ModelFile

Tensor = NDArray[Any]


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


def _open_onnxruntime(model: ModelFile, device: str, threads: int | None) -> Backend:
    from .onnxruntime import OnnxRuntimeBackend

    names = tuple(output.name for output in model.spec.outputs)
    return OnnxRuntimeBackend(model.path, names, device=device, threads=threads)


# One line per backend that opens an .onnx file, in the order in which "auto" tries them.
_OPENERS: dict[str, Callable[[ModelFile, str, int | None], Backend]] = {
    "onnxruntime": _open_onnxruntime,
}


def open_backend(model: ModelFile, name: str = "auto", *, device: str = "auto", threads: int | None = None) -> Backend:
    """Open a model file in the backend asked for; "auto" takes the first that is installed.

    Raises:
        InputError: if device or threads are malformed.
        BackendUnavailableError: if the backend or the device is not there.
        BackendError: if the backend cannot load the model.
    """
    if name != "auto":
        if name not in _OPENERS:
            raise BackendUnavailableError(f"backend must be auto or one of {', '.join(_OPENERS)}, got {name!r}")
        return _OPENERS[name](model, device, threads)
    missing = []
    for opener in _OPENERS.values():
        try:
            return opener(model, device, threads)
        except BackendUnavailableError as error:
            missing.append(str(error))
    raise BackendUnavailableError("no backend is available: " + "; ".join(missing))
