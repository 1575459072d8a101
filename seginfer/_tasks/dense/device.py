"""Decoding of dense masks on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import _native
from ..._cuda.arrays import DeviceArray
from ..._cuda.gpu import Gpu
from ..._cuda.packing import Block, Packer
from ..._cuda.tensors import DeviceTensor
from ..._errors import InputError
from ..._geometry.geometry import Geometry, Size
from ..._reference.taps import Mask
from ..._spec.model_spec import MAX_SIDE, ModelSpec
from ..task import ResultBuffers, Wants
from .decode import clear, has_unseen
from .launches import OutputAt, PlaneAt, ResultsAt
from .steps import MaskStep, check_faults

_VECTOR = 16  # pixels that a thread of the mask kernel stores at once, where rows start at a multiple of them


class _Part(NamedTuple):
    """Result of one network input in host memory."""

    is_partial: bool
    region: tuple[Any, ...]
    arrays: tuple[NDArray[Any] | None, ...]


class DenseDeviceDecoder:
    """See `DeviceDecoder`. The block holds faults, then the visible part of mask and maps of every network input.

    Args:
        geometries: one per network input.
        wants: maps to make beside the mask.
        spec: contract of the model.
    """

    def __init__(self, geometries: Sequence[Geometry], wants: Wants, spec: ModelSpec) -> None:
        self._geometries, self._spec = geometries, spec
        packer = Packer()
        self._faults = packer.add((len(geometries),), np.dtype(np.uint32))
        self.head = packer.nbytes
        planes = (spec.num_classes,) if spec.task == "multilabel" else ()
        self._blocks, self.ends = [], []
        for geometry in geometries:
            self._blocks.append(self._add(packer, planes, geometry, wants))
            self.ends.append(packer.nbytes)

    def _add(
        self, packer: Packer, planes: tuple[int, ...], geometry: Geometry, wants: Wants
    ) -> tuple[Block | None, ...]:
        visible = geometry.visible
        shape = (*planes, visible.height, -(-visible.width // _VECTOR) * _VECTOR)
        maps = (packer.add(shape, np.dtype(np.float32)) if is_wanted else None for is_wanted in wants)
        return packer.add(shape, self._spec.mask_dtype), *maps

    def place(self, gpu: Gpu, outputs: Mapping[str, DeviceTensor], batch_size: int, address: int) -> MaskStep:
        """Return the launches from the mask output to the block. See `DeviceDecoder.place`."""
        spec, output = self._spec, outputs[self._spec.output.name]
        self._gpu, self._address = gpu, address
        results = [
            ResultsAt(*(_plane(address, block, geometry) for block in blocks))  # type: ignore[arg-type]
            for blocks, geometry in zip(self._blocks, self._geometries, strict=True)
        ]
        return MaskStep(
            gpu,
            self._geometries,
            _output_hw(output, batch_size, spec),
            spec,
            OutputAt(output.address, output.dtype),
            results,
            faults=address + self._faults.offset,
        )

    def attach(self, memory: NDArray[np.uint8]) -> None:
        """Set the host memory that the block is copied to."""
        self._host_faults = self._faults.view(memory)
        self._parts = [
            _Part(has_unseen(geometry), (..., *geometry.visible.slices), _views(blocks, memory, geometry))
            for blocks, geometry in zip(self._blocks, self._geometries, strict=True)
        ]

    def check(self) -> None:
        """Raise an InputError for values that are not finite, or unknown labels."""
        if self._host_faults.any():
            check_faults(self._host_faults, self._spec)

    def read(self, i: int, buffers: ResultBuffers, threads: Any) -> None:
        """Copy the part of the i-th network input into its image's result."""
        part = self._parts[i]
        if part.is_partial:
            clear(buffers, self._spec)
        for target, array in zip(buffers, part.arrays, strict=True):
            if target is not None and array is not None:
                _native.copy(array, target[part.region], threads)

    def has_way(self, mask: Mask | DeviceArray) -> bool:
        """Tell whether the GPU reaches the mask, and its rows are packed."""
        if self._gpu.reach(mask) is None:
            return False
        return isinstance(mask, DeviceArray) or _native.has_packed_rows(mask, 1)

    def send(self, i: int, mask: Mask | DeviceArray, stream: Any) -> None:
        """Start the copy of the i-th mask on the GPU, to memory that it reaches."""
        block, visible, itemsize = self._blocks[i][0], self._geometries[i].visible, mask.dtype.itemsize
        address = self._gpu.reach(mask)
        assert address is not None  # see `has_way`
        assert block is not None
        height, width = mask.shape[-2:]
        source_pitch, pitch = block.shape[-1] * itemsize, max(mask.strides[-2], width * itemsize)
        for plane in range(mask.shape[0] if mask.ndim == 3 else 1):
            target = address + plane * (mask.strides[0] if mask.ndim == 3 else 0)
            if has_unseen(self._geometries[i]):
                self._gpu.fill_rows((target, pitch), self._spec.ignore_value, itemsize, width, height, stream)
            source = self._address + block.offset + plane * block.shape[-2] * source_pitch
            target += visible.top * pitch + visible.left * itemsize
            self._gpu.copy_rows(
                (target, pitch), (source, source_pitch), visible.width * itemsize, visible.height, stream
            )


def _views(
    blocks: tuple[Block | None, ...], memory: NDArray[np.uint8], geometry: Geometry
) -> tuple[NDArray[Any] | None, ...]:
    width = geometry.visible.width
    return tuple(None if block is None else block.view(memory)[..., :width] for block in blocks)


def _plane(address: int, block: Block | None, geometry: Geometry) -> PlaneAt | None:
    """Return the address that the first pixel of the whole image would have."""
    if block is None:
        return None
    *_, height, pitch = block.shape
    before = geometry.visible.top * pitch + geometry.visible.left
    return PlaneAt(address + block.offset - before * block.dtype.itemsize, pitch, height * pitch)


def _output_hw(output: DeviceTensor, batch_size: int, spec: ModelSpec) -> Size:
    """Return the (height, width) of an output.

    Raises:
        InputError: if its shape contradicts the spec.
    """
    is_labels, shape = spec.output.kind == "labels", output.shape
    channels = 1 if is_labels else spec.num_channels
    if channels == 1 and len(shape) == 3:  # without its only channel
        shape = (shape[0], 1, *shape[1:])
    elif len(shape) == 4 and spec.output.layout == "NHWC":
        shape = (shape[0], shape[3], shape[1], shape[2])
    if len(shape) != 4 or shape[:2] != (batch_size, channels) or 0 in shape:
        expected = f"an output of {batch_size} x {channels} channels in {spec.output.layout}"
        raise InputError(f"expected {expected}, got shape {output.shape}")
    if max(shape) > MAX_SIDE:
        raise InputError(f"the output must have sides of at most {MAX_SIDE}, got shape {output.shape}; use tiles")
    return shape[2], shape[3]
