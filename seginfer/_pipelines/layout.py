"""Layout: where the images and results of a batch lie, each kind in one piece, so that one copy moves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._cuda.arena import aligned
from .._geometry.geometry import Geometry, Size
from .._inputs.formats import PixelFormat, image_shape
from .._inputs.launches import ImageAt
from .._spec.model_spec import ModelSpec
from .._tasks.dense.launches import PlaneAt, ResultsAt

_VECTOR = 16  # pixels that a thread of the mask kernel stores at once, where rows start at a multiple of them


class FrameKey(NamedTuple):
    """What two calls must have in common for the same memory and launches to serve both."""

    geometries: tuple[Geometry, ...]
    """One per network input."""
    owners: tuple[int, ...]
    """Which image of the batch each belongs to: tiles share one."""
    has_confidence: bool
    has_margin: bool

    @property
    def image_sizes(self) -> list[Size]:
        """(height, width) of every image."""
        sizes = dict(zip(self.owners, (geometry.image_hw for geometry in self.geometries), strict=True))
        return [sizes[i] for i in range(len(sizes))]


class _Block(NamedTuple):
    """An array inside a buffer."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def of(self, memory: NDArray[np.uint8]) -> NDArray[Any]:
        return memory[self.offset : self.offset + self.nbytes].view(self.dtype).reshape(self.shape)


class _Packer:
    """Puts arrays behind each other, each aligned."""

    def __init__(self) -> None:
        self.nbytes = 0

    def add(self, shape: Sequence[int], dtype: np.dtype[Any]) -> _Block:
        block = _Block(self.nbytes, tuple(shape), dtype)
        self.nbytes = aligned(self.nbytes + block.nbytes)
        return block


class ImageLayout:
    """Packed rows of every image.

    Args:
        sizes: (height, width) of every image.
        color: their format.
    """

    def __init__(self, sizes: Sequence[Size], color: PixelFormat) -> None:
        packer = _Packer()
        self._blocks = [packer.add(image_shape(size, color), np.dtype(np.uint8)) for size in sizes]
        self.nbytes = packer.nbytes

    def arrays(self, memory: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return the images that lie in host memory."""
        return [block.of(memory) for block in self._blocks]

    def addresses(self, base: int) -> list[ImageAt]:
        """Return where the images lie on the GPU."""
        row_bytes = [int(np.prod(block.shape[1:])) for block in self._blocks]
        return [ImageAt(base + block.offset, n) for block, n in zip(self._blocks, row_bytes, strict=True)]


class ResultLayout:
    """What the kernels leave: faults, then of every network input the part of mask and maps that it answers for.

    Args:
        key: which network inputs, and which maps.
        spec: the model's contract.
    """

    def __init__(self, key: FrameKey, spec: ModelSpec) -> None:
        packer = _Packer()
        self._visible = [geometry.visible for geometry in key.geometries]
        self._faults = packer.add((len(key.geometries),), np.dtype(np.uint32))
        planes = (spec.num_classes,) if spec.task == "multilabel" else ()
        shapes = [(*planes, v.height, -(-v.width // _VECTOR) * _VECTOR) for v in self._visible]
        kinds = {"mask": spec.mask_dtype}
        kinds |= {"confidence": np.dtype(np.float32)} if key.has_confidence else {}
        kinds |= {"margin": np.dtype(np.float32)} if key.has_margin else {}
        self._blocks = [{name: packer.add(shape, dtype) for name, dtype in kinds.items()} for shape in shapes]
        self.nbytes = packer.nbytes

    def faults_at(self, base: int) -> int:
        """Return where the faults lie on the GPU."""
        return base + self._faults.offset

    def faults(self, memory: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """Return the faults in host memory."""
        return self._faults.of(memory)

    def addresses(self, base: int) -> list[ResultsAt]:
        """Return where the kernels write, as if each part lay inside its whole image."""
        return [
            ResultsAt(**{name: self._plane(base, i, block) for name, block in blocks.items()})
            for i, blocks in enumerate(self._blocks)
        ]

    def _plane(self, base: int, i: int, block: _Block) -> PlaneAt:
        *_, height, pitch = block.shape
        before = self._visible[i].top * pitch + self._visible[i].left
        return PlaneAt(base + block.offset - before * block.dtype.itemsize, pitch, height * pitch)

    def parts(self, memory: NDArray[np.uint8]) -> list[dict[str, NDArray[Any]]]:
        """Return what every network input answers for, in host memory, by the names of `Results`."""
        return [
            {name: block.of(memory)[..., : visible.width] for name, block in blocks.items()}
            for blocks, visible in zip(self._blocks, self._visible, strict=True)
        ]
