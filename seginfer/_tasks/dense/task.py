"""Dense masks: one decision per pixel and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._cuda.arrays import DeviceArray
from ..._geometry.geometry import Geometry
from ..._geometry.tiles import size_problem
from ..._inputs.formats import PixelFormat
from ..._spec.model_spec import ModelSpec
from ..._spec.tensor_info import UNKNOWN_SHAPE, TensorInfo
from ..segmentation import Segmentation
from ..task import Decode, ResultBuffers, Wants
from ..timings import Timings
from .decode import make_decoder
from .device import DenseDeviceDecoder
from .outputs import Output, allocate_arrays, check_has_values, split_output


class DenseTask:
    """Semantic, binary and multilabel segmentation. See `Task`.

    Args:
        spec: contract of the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._name = spec.output.name
        self._planes = (spec.num_classes,) if spec.task == "multilabel" else ()
        self._dtype = spec.mask_dtype

    def find_problem(self, outputs: Mapping[str, TensorInfo]) -> str | None:
        """Compare the mask output of a graph with the spec."""
        spec, output, info = self._spec, self._spec.output, outputs[self._name]
        # Labels may be floats: some graphs cast the result of an argmax.
        if output.kind != "labels" and info.dtype.startswith(("int", "uint", "bool")):
            return f"outputs[0].kind is {output.kind!r}, the graph yields {info.dtype}"
        if info.shape == UNKNOWN_SHAPE:
            return None
        wanted = 1 if output.kind == "labels" else spec.num_channels
        if len(info.shape) == 3 and wanted == 1:  # without the channel
            return self._size_problem(*info.shape[1:])
        if len(info.shape) != 4:
            return f"outputs[0] must have 4 dimensions ({output.layout}), the graph yields {info.shape}"
        _, channels, height, width = info.nchw(output.layout)
        if isinstance(channels, int) and channels != wanted:
            classes = f"{spec.num_classes} {spec.task} classes of kind {output.kind} need {wanted} channels"
            return f"{classes}, the graph yields {info.shape}"
        return self._size_problem(height, width)

    def _size_problem(self, height: int | str, width: int | str) -> str | None:
        spec, output = self._spec, self._spec.output
        if spec.input.resize == "tile":
            if spec.input.size is None or not (isinstance(height, int) and isinstance(width, int)):
                return None
            return size_problem(spec.input.size, (height, width), output.graph_stride, spec.input.tile_margin)
        if spec.input.size is None or not (isinstance(height, int) and isinstance(width, int)):
            return None
        return output.stride_problem(spec.input.size, (height, width))

    def allocate(
        self, geometries: Sequence[Geometry], out: Sequence[NDArray[Any]] | None, wants: Wants
    ) -> list[ResultBuffers]:
        """Allocate masks, and the maps that are wanted."""
        shapes = [(*self._planes, *geometry.image_hw) for geometry in geometries]
        masks = allocate_arrays(out, shapes, self._dtype)
        if not any(wants):
            return list(map(ResultBuffers, masks))
        check_has_values(self._spec)
        confidences, margins = (
            [np.empty(shape, np.float32) if is_wanted else None for shape in shapes] for is_wanted in wants
        )
        return list(map(ResultBuffers, masks, confidences, margins))

    def split(self, outputs: Mapping[str, NDArray[Any]], count: int) -> Output:
        """Return the mask output, (count, h, w, C), or (count, h, w) labels."""
        return split_output(outputs.get(self._name), count, self._spec)

    def make_decoder(self, geometry: Geometry, part: Output) -> Decode:
        """Plan the decoding of (h, w, C) or (h, w) parts."""
        return make_decoder(geometry, (part.shape[0], part.shape[1]), self._spec)

    def make_device_decoder(self, geometries: Sequence[Geometry], wants: Wants) -> DenseDeviceDecoder:
        """Plan the decoding on a GPU."""
        return DenseDeviceDecoder(geometries, wants, self._spec)

    def result(
        self, buffers: ResultBuffers, geometry: Geometry, timings: Timings, color: PixelFormat, threads: int
    ) -> Segmentation:
        """Return the Segmentation of one image."""
        spec, mask = self._spec, buffers.mask
        labels = mask.owner if isinstance(mask, DeviceArray) else mask
        return Segmentation(
            labels, spec.classes, spec.task, geometry, timings, color, buffers.confidence, buffers.margin, threads
        )
