"""Segmenter: image in, mask out; preprocess, backend and postprocess in a row, and no arithmetic of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ._errors import InputError
from ._geometry import Geometry
from ._model_file import read_model
from ._postprocess import check_has_confidence, checked_masks, postprocess
from ._postprocess import confidence as confidence_maps
from ._preprocess import batch_shape, checked_color, fill_batch, place, preprocess
from ._reference import Mask
from ._segmentation import Segmentation, Timings
from ._spec import Color, ModelSpec
from ._workspaces import Workspaces
from .backends import Backend, Tensor, open_backend

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Trace:
    """What the stages made of one image: the evidence that parity is measured on."""

    batch: Tensor
    geometry: Geometry
    output: Tensor
    mask: Mask


class Segmenter:
    """Runs a segmentation model on images. One object may be called from several threads at once.

    Args:
        spec: the model's contract.
        backend: runs the network; closed with the segmenter.
        color: channel order of the images that will be given; None is "rgb", or "gray" for a gray model.

    Attributes:
        spec: the model's contract.
        backend: what runs, where, and why (`repr(segmenter.backend)`).
        color: channel order of the images.
    """

    def __init__(self, spec: ModelSpec, backend: Backend, *, color: Color | None = None) -> None:
        self.spec = spec
        self.backend = backend
        self.color = checked_color(color, spec.input)
        self._workspaces = Workspaces()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        color: Color | None = None,
    ) -> Segmenter:
        """Open an .onnx file that carries its ModelSpec.

        Args:
            path: the model file; see `seginfer export` and `seginfer attach`.
            backend: "onnxruntime", or "auto" for the first that is installed.
            device: "cpu", "cuda", "cuda:<index>", or "auto" for the best that is there.
            threads: CPU threads for one inference; None takes every core that the process may use.
            color: channel order of your images, "rgb", "bgr" (OpenCV) or "gray"; None is "rgb", or "gray" for a
                gray model.

        Raises:
            MissingFileError: if there is no such file.
            ModelFileError: if it is truncated, foreign, without a spec, or contradicts its spec.
            BackendUnavailableError: if the backend or device is not there.
            BackendError: if the backend cannot load the model.
        """
        model = read_model(path)
        color = checked_color(color, model.spec.input)
        return cls(model.spec, open_backend(model, backend, device=device, threads=threads), color=color)

    @overload
    def __call__(self, images: Image, *, out: Mask | None = None, confidence: bool = False) -> Segmentation: ...

    @overload
    def __call__(
        self, images: Sequence[Image], *, out: Sequence[Mask] | None = None, confidence: bool = False
    ) -> list[Segmentation]: ...

    def __call__(
        self, images: Image | Sequence[Image], *, out: Any = None, confidence: bool = False
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or several as one batch.

        Args:
            images: (H, W, 3) uint8 in the segmenter's channel order, or a list of such; sizes may differ.
            out: a mask to fill, or a list of masks for a list of images; see `postprocess` for shapes.
            confidence: also return how probable each pixel's label is.

        Returns:
            One Segmentation, or a list of them for a list of images.

        Raises:
            InputError: if an image or `out` is not what it must be; nothing has run then.
            BackendError: if inference fails, or the segmenter is closed.
        """
        if isinstance(images, np.ndarray) and images.ndim < 4:
            return self._segment([images], None if out is None else [out], confidence)[0]
        if not isinstance(images, (list, tuple)):
            raise InputError(f"expected one image or a list of images, got {_what(images)}; split a batch with list()")
        return self._segment(images, out, confidence)

    def trace(self, image: Image) -> Trace:
        """Run one image and return what every stage made of it; the arrays belong to the caller."""
        batch, geometries = preprocess([image], self.spec, color=self.color)
        output = self.infer_one(batch)
        (mask,) = postprocess(output, geometries, self.spec)
        return Trace(batch, geometries[0], output, mask)

    def infer_one(self, batch: Tensor) -> Tensor:
        """Return the network's mask output for a batch of one; it is repeated for a graph bound to more images."""
        repeated = np.repeat(batch, self.backend.batch_size or 1, axis=0)
        return self.backend.infer(repeated)[self.spec.output.name][:1]

    def close(self) -> None:
        """Free the backend; calls afterwards raise BackendError."""
        self._workspaces.clear()
        self.backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Segmenter({self.spec.task}, {self.spec.num_classes} classes, {self.backend!r})"

    def _segment(self, images: Sequence[Image], out: Sequence[Mask] | None, confidence: bool) -> list[Segmentation]:
        if confidence:
            check_has_confidence(self.spec)
        geometries = place(images, self.spec.input)
        masks = checked_masks(out, geometries, self.spec)
        results: dict[int, Segmentation] = {}
        for group in _batches(geometries, self.backend.batch_size):
            batch = [(images[i], geometries[i], masks[i]) for i in group]
            results |= zip(group, self._run(batch, confidence), strict=True)
        return [results[i] for i in range(len(images))]

    def _run(self, batch: Sequence[tuple[Image, Geometry, Mask]], with_confidence: bool) -> list[Segmentation]:
        """Run one batch of placed images and fill their masks."""
        images, geometries, masks = zip(*batch, strict=True)
        shape, count = batch_shape(geometries, self.spec.input), len(images)
        with self._workspaces.borrow((self.backend.batch_size or count, *shape[1:]), self.spec.input.dtype) as space:
            start = time.perf_counter()
            fill_batch(space.batch[:count], images, geometries, self.spec.input, self.color)
            prepared = time.perf_counter()
            space.outputs = self.backend.infer(space.batch, space.outputs)
            inferred = time.perf_counter()
            output = space.outputs[self.spec.output.name][:count]
            postprocess(output, geometries, self.spec, out=masks)
            maps = confidence_maps(output, geometries, self.spec) if with_confidence else [None] * count
            done = time.perf_counter()
        timings = Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, count)
        return [
            Segmentation(mask, self.spec.classes, self.spec.task, geometry, timings, self.color, map_)
            for mask, geometry, map_ in zip(masks, geometries, maps, strict=True)
        ]


def _batches(geometries: Sequence[Geometry], batch_size: int | None) -> list[list[int]]:
    """Group image indices into batches of one network input size, of at most `batch_size` images."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, geometry in enumerate(geometries):
        groups.setdefault(geometry.input_hw, []).append(i)
    return [
        group[k : k + (batch_size or len(group))]
        for group in groups.values()
        for k in range(0, len(group), batch_size or len(group))
    ]


def _what(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
