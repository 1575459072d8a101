"""Memory layout of a batch of images, and the key of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._cuda.packing import Packer
from .._geometry.geometry import Geometry, Size
from .._inputs.formats import PixelFormat, image_shape
from .._inputs.launches import ImageAt
from .._tasks.task import Wants


class FrameKey(NamedTuple):
    """Properties that calls with the same memory and launches share."""

    geometries: tuple[Geometry, ...]
    """One per network input."""
    owners: tuple[int, ...]
    """Image of the batch that each input belongs to. Tiles share one."""
    wants: Wants

    @property
    def image_sizes(self) -> list[Size]:
        """(height, width) of every image."""
        sizes = dict(zip(self.owners, (geometry.image_hw for geometry in self.geometries), strict=True))
        return [sizes[i] for i in range(len(sizes))]


class ImageLayout:
    """Packed rows of every image.

    Args:
        sizes: (height, width) of every image.
        color: format of the images.
    """

    def __init__(self, sizes: Sequence[Size], color: PixelFormat) -> None:
        packer = Packer()
        self._blocks = [packer.add(image_shape(size, color), np.dtype(np.uint8)) for size in sizes]
        self.ends = [block.offset + block.nbytes for block in self._blocks]
        self.nbytes = packer.nbytes

    def arrays(self, memory: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return the images in host memory."""
        return [block.view(memory) for block in self._blocks]

    def addresses(self, base: int) -> list[ImageAt]:
        """Return the images on the GPU."""
        row_bytes = [int(np.prod(block.shape[1:])) for block in self._blocks]
        return [ImageAt(base + block.offset, n) for block, n in zip(self._blocks, row_bytes, strict=True)]
