"""Task protocol. A task turns the outputs of a network into results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .._cuda.arrays import DeviceArray
from .._cuda.gpu import Gpu
from .._cuda.steps import Step
from .._cuda.tensors import DeviceTensor
from .._geometry.geometry import Geometry
from .._inputs.formats import PixelFormat
from .._reference.taps import Floats, Mask
from .._spec.tensor_info import TensorInfo
from .segmentation import Segmentation
from .timings import Timings


class Wants(NamedTuple):
    """Maps that are requested beside the mask."""

    confidence: bool = False
    margin: bool = False


class ResultBuffers(NamedTuple):
    """Arrays of one image's result, (H, W) or (C, H, W). Tiles of an image share them."""

    mask: Any
    """Mask, or on a GPU a DeviceArray."""
    confidence: Floats | None = None
    margin: Floats | None = None

    @property
    def wants(self) -> Wants:
        """Maps that are there."""
        return Wants(self.confidence is not None, self.margin is not None)


Decode = Callable[[Any, ResultBuffers, Any], None]
"""Writes the result of one image from its part of the outputs, with a pool of threads of the core."""


class DeviceDecoder(Protocol):
    """Decodes one batch on a GPU, into one block of results."""

    @property
    def head(self) -> int:
        """Bytes at the start of the block that `check` reads."""

    @property
    def ends(self) -> Sequence[int]:
        """Offset where the results of each network input end. The last is the size of the block."""

    def place(self, gpu: Gpu, outputs: Mapping[str, DeviceTensor], batch_size: int, address: int) -> Step:
        """Return the launches that decode a batch into the block at `address`.

        Raises:
            InputError: if an output is not what the spec says, or the kernels do not read its dtype.
            BackendError: if memory runs out.
        """

    def attach(self, memory: NDArray[np.uint8]) -> None:
        """Set the host memory that the block is copied to."""

    def check(self) -> None:
        """Raise an InputError for values that are not finite, or unknown labels, of any network input."""

    def read(self, i: int, buffers: ResultBuffers, threads: Any) -> None:
        """Copy the part of the i-th network input into those arrays of its image's result that are there.

        Args:
            i: index of the network input.
            buffers: arrays of the host. A mask that `send` has filled is None.
            threads: a pool of the compiled core.
        """

    def has_way(self, mask: Mask | DeviceArray) -> bool:
        """Tell whether `send` can fill a mask."""

    def send(self, i: int, mask: Mask | DeviceArray, stream: Any) -> None:
        """Start the copy of the i-th mask on the GPU, to memory that it reaches."""


class Task(Protocol):
    """Decodes the outputs of the network that one spec describes."""

    def find_problem(self, outputs: Mapping[str, TensorInfo]) -> str | None:
        """Return a contradiction between graph outputs and spec, if any."""

    def allocate(
        self, geometries: Sequence[Geometry], out: Sequence[NDArray[Any]] | None, wants: Wants
    ) -> list[ResultBuffers]:
        """Return the arrays to fill, one entry per image.

        Args:
            geometries: one per image.
            out: arrays of the caller to fill instead of new ones.
            wants: maps to make beside the mask.

        Raises:
            InputError: if `out` does not fit the images, or the network has no such maps.
        """

    def split(self, outputs: Mapping[str, NDArray[Any]], count: int) -> Iterable[Any]:
        """Return the part of every network input, as views of the outputs.

        Raises:
            InputError: if an output has not the shape or dtype that the spec says.
        """

    def make_decoder(self, geometry: Geometry, part: Any) -> Decode:
        """Plan the decoding of one geometry, for parts shaped as `part`."""

    def make_device_decoder(self, geometries: Sequence[Geometry], wants: Wants) -> DeviceDecoder:
        """Return the decoder of batches of these geometries on a GPU."""

    def result(
        self, buffers: ResultBuffers, geometry: Geometry, timings: Timings, color: PixelFormat, threads: int
    ) -> Segmentation:
        """Return the result of one image."""
