"""Preprocessing on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from .._cuda.errors import translate_errors
from .._cuda.gpu import Gpu
from .._cuda.steps import Step
from .._geometry.geometry import Geometry
from .._spec.model_spec import InputSpec
from . import launches
from .formats import PixelFormat
from .launches import ImageAt


class InputStep(Step):
    """Preprocessing of images on the GPU.

    Args:
        gpu: GPU of images and batch.
        geometries: one per network input, as `preprocess` returns them.
        spec: the model's input.
        color: format of the images.
        images: addresses of the images, one per geometry.
        batch: address of the contiguous batch.

    Raises:
        InputError: if address or pitch of a four-channel image is no multiple of 4 bytes.
        BackendError: if memory runs out.
    """

    def __init__(
        self,
        gpu: Gpu,
        geometries: Sequence[Geometry],
        spec: InputSpec,
        color: PixelFormat,
        images: Sequence[ImageAt],
        batch: int,
    ) -> None:
        super().__init__(gpu)
        try:
            records = launches.input_records(geometries, spec, color, self._arena.put)
            launches.set_images(records, images, geometries, color)
            launches.set_batch(records, batch, spec)
            with translate_errors("preparing an input step"):
                self.place([launches.input_launch(records)])
        except BaseException:
            self.close()
            raise
