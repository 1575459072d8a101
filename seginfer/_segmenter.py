"""Segmenter: image in, mask out; preprocess, backend and postprocess in a row, and no arithmetic of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ._errors import InputError
from ._geometry import Geometry
from ._model_file import read_model
from ._postprocess import checked_maps, checked_masks, fill_confidence, fill_masks, postprocess
from ._preprocess import batch_shape, checked_color, fill_batch, place, preprocess
from ._reference import Floats, Mask
from ._segmentation import Segmentation, Timings
from ._spec import Color, ModelSpec
from ._workspaces import Workspaces
from .backends import Backend, Tensor, open_backend

Image = NDArray[np.uint8]

_TILES_PER_CALL = 4  # of a graph whose batch is free: what the network needs for a call must not grow with the image


@dataclass(frozen=True, eq=False)
class Trace:
    """What the stages made of one image: the evidence that parity is measured on.

    `batch` and `output` hold the image once, or each of its tiles: `geometry.tiles(spec.input)`.
    """

    batch: Tensor
    geometry: Geometry
    output: Tensor
    mask: Mask


class _Part(NamedTuple):
    """One network input: an image or a tile of it, and the arrays of the whole image that it fills in part."""

    number: int
    image: Image
    geometry: Geometry
    mask: Mask
    confidence: Floats | None


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
        output = np.concatenate([self.infer_one(batch[i : i + 1]) for i in range(len(batch))])
        (mask,) = postprocess(output, geometries, self.spec)
        (geometry,) = place([image], self.spec.input)
        return Trace(batch, geometry, output, mask)

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
        placed = place(images, self.spec.input)
        maps = checked_maps(None, placed, self.spec) if confidence else [None] * len(images)
        masks = checked_masks(out, placed, self.spec)
        parts = [
            _Part(i, images[i], tile, masks[i], maps[i])
            for i, geometry in enumerate(placed)
            for tile in geometry.tiles(self.spec.input)
        ]
        timings: dict[int, Timings] = {}
        for batch in _batches(parts, self.backend.batch_size or self._batch_limit):
            taken = self._run(batch)
            for i in {part.number for part in batch}:
                timings[i] = timings[i] + taken if i in timings else taken
        return [
            Segmentation(masks[i], self.spec.classes, self.spec.task, geometry, timings[i], self.color, maps[i])
            for i, geometry in enumerate(placed)
        ]

    @property
    def _batch_limit(self) -> int | None:
        return _TILES_PER_CALL if self.spec.input.resize == "tile" else None

    def _run(self, batch: Sequence[_Part]) -> Timings:
        """Run one batch and fill the masks."""
        _, images, geometries, masks, maps = zip(*batch, strict=True)
        shape, count = batch_shape(geometries, self.spec.input), len(images)
        with self._workspaces.borrow((self.backend.batch_size or count, *shape[1:]), self.spec.input.dtype) as space:
            start = time.perf_counter()
            fill_batch(space.batch[:count], images, geometries, self.spec.input, self.color)
            prepared = time.perf_counter()
            space.outputs = self.backend.infer(space.batch, space.outputs)
            inferred = time.perf_counter()
            output = space.outputs[self.spec.output.name][:count]
            fill_masks(output, geometries, self.spec, masks)
            if maps[0] is not None:
                fill_confidence(output, geometries, self.spec, maps)
            done = time.perf_counter()
        return Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, count)


def _batches(parts: Sequence[_Part], batch_size: int | None) -> list[list[_Part]]:
    """Group network inputs into batches of one size, of at most `batch_size`."""
    groups: dict[tuple[int, int], list[_Part]] = {}
    for part in parts:
        groups.setdefault(part.geometry.input_hw, []).append(part)
    return [
        group[k : k + (batch_size or len(group))]
        for group in groups.values()
        for k in range(0, len(group), batch_size or len(group))
    ]


def _what(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
