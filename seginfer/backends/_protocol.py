"""What a backend is: what runs the network. It takes a batch and yields tensors; it knows nothing of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from numpy.typing import NDArray

from .._cuda.tensors import DeviceTensor
from .._geometry.geometry import Size

if TYPE_CHECKING:
    from .._cuda.gpu import Gpu

Tensor = NDArray[Any]

CLOSED = "the model is closed; open it again"


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


def as_device_backend(backend: Backend) -> DeviceBackend | None:
    """Return the backend if its network runs on a GPU, in memory that kernels can share."""
    return None if getattr(backend, "device_index", None) is None else cast("DeviceBackend", backend)
