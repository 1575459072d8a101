"""Backend protocol.

A backend maps a batch tensor to output tensors. It never sees images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from .._cuda.tensors import DeviceMemory, DeviceTensor
from .._errors import InputError
from .._geometry.geometry import Size

Tensor = NDArray[Any]

CLOSED = "the model is closed; open it again"


class Backend(Protocol):
    """Runs one network. Calls from several threads at once are safe."""

    @property
    def name(self) -> str:
        """Short name, such as "onnxruntime"."""

    @property
    def device(self) -> str:
        """Device of the network, such as "cpu" or "cuda:0"."""

    @property
    def reason(self) -> str:
        """Reason for the choice of backend and device, in one phrase."""

    @property
    def description(self) -> str:
        """Name, version, device and settings in one line."""

    @property
    def batch_size(self) -> int | None:
        """Fixed batch size of `infer`. None for any number."""

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the network on a batch.

        Args:
            batch: contiguous, in the shape and dtype that the network takes.
            out: the result of an earlier call for the same batch shape. Its arrays are overwritten.

        Returns:
            The outputs that the spec names. The arrays belong to the caller. Later calls change them only if they are
            passed as `out`.

        Raises:
            BackendError: if the run fails.
        """

    def close(self) -> None:
        """Free the network. Calls afterwards raise BackendError."""


class Execution(Protocol):
    """A network on a GPU for one batch shape. Not thread-safe.

    Its input and outputs have fixed addresses.
    """

    @property
    def input(self) -> DeviceTensor:
        """Input of the network, zeros at first."""

    @property
    def outputs(self) -> Mapping[str, DeviceTensor]:
        """Outputs of the network, by their names in the spec."""

    @property
    def obstacle(self) -> str:
        """Reason why a CUDA graph cannot record the network.

        Empty if no reason is known.
        """

    def enqueue(self, stream: Any) -> None:
        """Start the network on a stream of cuda-core.

        The first call on a stream may allocate and wait. Later calls only start work.

        Raises:
            BackendError: if the network cannot be started.
        """

    def close(self) -> None:
        """Free the network and its tensors. No work may be in flight."""


class DeviceBackend(Backend, Protocol):
    """A backend with networks in GPU memory."""

    @property
    def device_index(self) -> int | None:
        """Index of the GPU. None on the CPU."""

    def max_batch_size(self, input_hw: Size) -> int | None:
        """Return the largest batch size for inputs of (height, width).

        None if there is no limit.
        """

    def padded_batch_size(self, count: int, input_hw: Size) -> int:
        """Return the size of the batch that carries `count` images.

        It is at least `count`. `count` is at most `max_batch_size`.
        """

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> Execution:
        """Make an execution for batches of one shape.

        Args:
            shape: shape of the batch.
            memory: memory on GPU `device_index`. The execution owns and closes it.

        Raises:
            InputError: if the network does not take this shape.
            BackendError: if memory runs out.
        """


def fill_outputs(arrays: dict[str, Tensor], out: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Copy the outputs of a run to `out`, if given, and return it.

    Raises:
        InputError: if an array of `out` is missing, not writable, or of another shape or dtype.
    """
    if out is None:
        return arrays
    for name, array in arrays.items():
        kept = out.get(name)
        if kept is None or (kept.shape, kept.dtype) != (array.shape, array.dtype) or not kept.flags.writeable:
            got = "none" if kept is None else f"{kept.dtype} {kept.shape}"
            raise InputError(
                f"out[{name!r}] must be a writable array of {array.dtype} {array.shape}, got {got}; pass the result of "
                "an earlier call"
            )
        kept[...] = array
    return out


def as_device_backend(backend: Backend) -> DeviceBackend | None:
    """Return the backend if it runs on a GPU, else None."""
    return None if getattr(backend, "device_index", None) is None else cast("DeviceBackend", backend)
