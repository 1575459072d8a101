"""Placements of images in the network's input, planned once per shape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._cuda.arrays import DeviceArray, is_on_gpu
from .._geometry.geometry import Geometry
from .._inputs.convert import as_array
from .._inputs.formats import PixelFormat, check_image, image_size
from .._spec.model_spec import InputSpec
from .pipeline import Pipeline

_KEPT = 64  # image shapes: a camera has one, a folder of photographs many


class ImagePlan(NamedTuple):
    """Placement of images of one shape."""

    geometry: Geometry
    inputs: list[tuple[Geometry, Any]]
    """The whole image, or its tiles, each with its plan of the pipeline."""


class ImagePlans:
    """Placements of images by their shape."""

    def __init__(self, spec: InputSpec, color: PixelFormat, pipeline: Pipeline) -> None:
        self._spec = spec
        self._color = color
        self._pipeline = pipeline
        self._kept: dict[tuple[tuple[int, ...], ...], ImagePlan] = {}

    def targets(self, out: Any) -> Any:
        """Return `out` with tensors of a GPU as arrays.

        Raises:
            InputError: if a tensor lies elsewhere than the pixels.
        """
        if not isinstance(out, (list, tuple)):
            return out
        return [self._pipeline.adopt(one) if is_on_gpu(one) else one for one in out]

    def plan(self, image: Any) -> tuple[NDArray[np.uint8] | DeviceArray, ImagePlan]:
        """Return an image as an array, and its placement.

        Args:
            image: see `as_array`.

        Raises:
            InputError: if the image is not what it must be.
        """
        key = (image.shape, image.strides) if isinstance(image, np.ndarray) and image.dtype == np.uint8 else ()
        plan = self._kept.get(key)
        if plan is None:
            image = as_array(image, self._color, self._pipeline.adopt)
            check_image(image, self._color)
            key = image.shape, image.strides
            plan = self._kept.get(key)
        if plan is None:
            geometry = Geometry.place(image_size(image, self._color), self._spec)
            plan = ImagePlan(geometry, [(tile, self._pipeline.plan(tile)) for tile in geometry.tiles(self._spec)])
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = plan
        return image, plan

    def clear(self) -> None:
        """Drop all placements."""
        self._kept.clear()
