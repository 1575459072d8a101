"""Pipeline protocol. A pipeline turns images into results, around a backend or with it on one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .._cuda.arrays import DeviceArray
from .._geometry.geometry import Geometry, Size
from .._reference.taps import Mask
from .._tasks.task import ResultBuffers
from .._tasks.timings import Timings
from ..backends._protocol import Tensor

Image = NDArray[np.uint8]


class BatchItem(NamedTuple):
    """One network input, and the result that it belongs to."""

    number: int
    """Index of its image in the call."""
    image: Image | DeviceArray
    geometry: Geometry
    plan: Any
    """What `Pipeline.plan` returned for the geometry."""
    buffers: ResultBuffers


class NetworkIO(NamedTuple):
    """Copies of the network's input and outputs for one batch, (count, ...) each."""

    batch: Tensor
    outputs: dict[str, Tensor]


class BatchResult(NamedTuple):
    """Result of one batch."""

    timings: Timings
    io: NetworkIO | None


@dataclass(frozen=True, eq=False)
class Trace:
    """Intermediate results for one image, which parity is measured on.

    `batch` and `outputs` hold the image once, or each of its tiles: `geometry.tiles(spec.input)`.
    """

    batch: Tensor
    geometry: Geometry
    outputs: dict[str, Tensor]
    """By name, in the order of the spec."""
    mask: Mask
    """As `Segmentation.labels`."""

    @property
    def output(self) -> Tensor:
        """The output that masks are made of."""
        return next(iter(self.outputs.values()))


class Pipeline(Protocol):
    """Turns images into results. Calls from several threads at once are safe."""

    @property
    def description(self) -> str:
        """Device and code that compute pixels, in one line."""

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the most network inputs of this (height, width) that `run` takes. None for any number."""

    @property
    def is_slow_at_first(self) -> bool:
        """Whether the first image of a size takes longer than the next."""

    def adopt(self, tensor: Any) -> DeviceArray:
        """Return the memory of a caller's tensor on a GPU.

        Raises:
            InputError: if it does not lie on the GPU that computes pixels.
        """

    def lend(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array in memory that needs no copies on the host.

        Without a GPU it is a plain array.

        Raises:
            BackendError: if memory runs out.
        """

    def plan(self, geometry: Geometry) -> Any:
        """Return what is kept for network inputs of this geometry. Called once per image shape."""

    def run(self, items: Sequence[BatchItem], *, keep_io: bool = False) -> BatchResult:
        """Fill the results of items whose network inputs have one size.

        Args:
            items: at least one, at most `batch_limit`.
            keep_io: also return copies of the network's input and outputs.

        Raises:
            InputError: if an output of the network is not what the spec says, or not finite.
            BackendError: if the run fails, or the pipeline is closed.
        """

    def close(self) -> None:
        """Free what the pipeline holds, but not the backend."""
