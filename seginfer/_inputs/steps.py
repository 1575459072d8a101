"""Preprocessing on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._cuda.errors import translate_errors
from .._cuda.gpu import Gpu
from .._cuda.mirror import Mirror
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
        InputError: if the kernels do not take an image's address or pitch, or an input's size.
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
        self._geometries, self._color = geometries, color
        self._images: Sequence[ImageAt] = ()
        self._mirror: Mirror | None = None
        try:
            records = launches.input_records(geometries, spec, color, self._arena.put)
            launches.set_batch(records, batch, spec)
            with translate_errors("preparing an input step"):
                order = launches.order_by_kernel(records)
                records = records[order]
                self._mirror = mirror = Mirror(gpu, records.nbytes)
                self._records, self._order = mirror.array[: records.nbytes].view(records.dtype), order
                self._records[...] = records
                self.point(images, gpu.stream)
                self.place([])
                address = mirror.address
                for launch in launches.input_launches(records):
                    self.append(launch, address)
                    address += launch.records.nbytes
        except BaseException:
            self.close()
            raise

    def point(self, images: Sequence[ImageAt], stream: Any) -> None:
        """Take other images from now on. No work may be in flight.

        Args:
            images: one per geometry.
            stream: stream of the launches.

        Raises:
            InputError: if address or pitch of a four-channel image is no multiple of 4 bytes.
        """
        if images == self._images or self._mirror is None:
            return
        self._images = ()  # until all are valid
        geometries = [self._geometries[i] for i in self._order]
        launches.set_images(self._records, [images[i] for i in self._order], geometries, self._color)
        self._mirror.upload(0, self._records.nbytes, stream)
        self._images = images

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._arena.nbytes + (self._mirror.nbytes if self._mirror else 0)

    def close(self) -> None:
        """Free the memory. No work may be in flight."""
        vars(self).pop("_records", None)  # a view of memory that is freed now
        if self._mirror is not None:
            self._mirror.close()
        super().close()
