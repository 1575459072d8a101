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

from . import _native
from ._errors import InputError
from ._formats import PixelFormat, check_image, checked_color, image_size
from ._geometry import Geometry
from ._machine import checked_threads
from ._mask_fill import FillResults, Results, filler_of
from ._model_file import read_model
from ._outputs import check_apart, checked_maps, checked_masks, checked_output
from ._postprocess import postprocess
from ._preprocess import FillInput, batch_shape, channels_last, input_filler, place, preprocess
from ._reference import Mask
from ._segmentation import Segmentation, Timings
from ._spec import ModelSpec
from ._workspaces import Workspaces
from .backends import Backend, Tensor, open_backend

Image = NDArray[np.uint8]

_PLANS_KEPT = 64  # image shapes; a camera has one, a folder of photographs many
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


class _Input(NamedTuple):
    """One network input of images of one size: the whole image or a tile, and what reads and answers for it."""

    geometry: Geometry
    fill: FillInput
    fillers: dict[tuple[int, int], FillResults]
    """By the output's (height, width), which the first run tells."""


class _Part(NamedTuple):
    """One network input, and the arrays of the whole image that it fills in part."""

    number: int
    image: Image
    input: _Input
    results: Results


class Segmenter:
    """Runs a segmentation model on images. One object may be called from several threads at once.

    Args:
        spec: the model's contract.
        backend: runs the network; closed with the segmenter.
        color: format of the images that will be given, see `preprocess`; None is "rgb", or "gray" for a gray model.
        threads: how many threads may prepare images and make masks; None is every core that the process may use, and 1
            never starts a thread.

    Attributes:
        spec: the model's contract.
        backend: what runs, where, and why (`repr(segmenter.backend)`).
        color: format of the images.
        threads: how many threads may prepare images and make masks.
    """

    def __init__(
        self, spec: ModelSpec, backend: Backend, *, color: PixelFormat | None = None, threads: int | None = None
    ) -> None:
        self.spec = spec
        self.backend = backend
        self.color = checked_color(color, spec.input)
        self.threads = checked_threads(threads)
        self._pool = _native.new_threads(self.threads)
        self._workspaces = Workspaces()
        self._plans: dict[tuple[tuple[int, ...], ...], tuple[Geometry, list[_Input]]] = {}
        _native.log_once()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        color: PixelFormat | None = None,
    ) -> Segmenter:
        """Open an .onnx file that carries its ModelSpec.

        Args:
            path: the model file; see `seginfer export` and `seginfer attach`.
            backend: "onnxruntime", or "auto" for the first that is installed.
            device: "cpu", "cuda", "cuda:<index>", or "auto" for the best that is there.
            threads: CPU threads for one call, the network's and those around it; None takes every core that the process
                may use.
            color: format of your images: "rgb", "bgr" (OpenCV), "rgba", "bgra", "gray", "nv12" or "yuyv", see
                `preprocess`; None is "rgb", or "gray" for a gray model.

        Raises:
            MissingFileError: if there is no such file.
            ModelFileError: if it is truncated, foreign, without a spec, or contradicts its spec.
            BackendUnavailableError: if the backend or device is not there.
            BackendError: if the backend cannot load the model.
        """
        model = read_model(path)
        color = checked_color(color, model.spec.input)
        opened = open_backend(model, backend, device=device, threads=threads)
        return cls(model.spec, opened, color=color, threads=threads)

    @overload
    def __call__(
        self, images: Image, *, out: Mask | None = None, confidence: bool = False, margin: bool = False
    ) -> Segmentation: ...

    @overload
    def __call__(
        self,
        images: Sequence[Image],
        *,
        out: Sequence[Mask] | None = None,
        confidence: bool = False,
        margin: bool = False,
    ) -> list[Segmentation]: ...

    def __call__(
        self, images: Image | Sequence[Image], *, out: Any = None, confidence: bool = False, margin: bool = False
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or several as one batch.

        Args:
            images: (H, W, 3) uint8 in the segmenter's format, or a list of such; sizes may differ.
            out: a mask to fill, or a list of masks for a list of images; see `postprocess` for shapes.
            confidence: also return how probable each pixel's label is.
            margin: also return by how much each pixel's label won, in the unit of the network's output.

        Returns:
            One Segmentation, or a list of them for a list of images.

        Raises:
            InputError: if an image or `out` is not what it must be; nothing has run then.
            BackendError: if inference fails, or the segmenter is closed.
        """
        if isinstance(images, np.ndarray) and images.ndim < 4:
            return self._segment([images], None if out is None else [out], confidence, margin)[0]
        if not isinstance(images, (list, tuple)):
            raise InputError(f"expected one image or a list of images, got {_what(images)}; split a batch with list()")
        return self._segment(images, out, confidence, margin)

    def trace(self, image: Image) -> Trace:
        """Run one image and return what every stage made of it; the arrays belong to the caller."""
        batch, geometries = preprocess([image], self.spec, color=self.color, threads=self.threads)
        output = np.concatenate([self.infer_one(batch[i : i + 1]) for i in range(len(batch))])
        (mask,) = postprocess(output, geometries, self.spec, threads=self.threads)
        (geometry,) = place([image], self.spec.input, self.color)
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

    def _segment(
        self, images: Sequence[Image], out: Sequence[Mask] | None, confidence: bool, margin: bool
    ) -> list[Segmentation]:
        if not images:
            raise InputError("expected at least one image, got an empty list; skip the call when there is no image")
        plans = [self._plan(image) for image in images]
        placed = [geometry for geometry, _ in plans]
        none: list[None] = [None] * len(images)
        confidences = checked_maps(None, placed, self.spec) if confidence else none
        margins = checked_maps(None, placed, self.spec) if margin else none
        masks = checked_masks(out, placed, self.spec)
        check_apart(out, images, "an image")
        results = list(map(Results, masks, confidences, margins))
        parts = [_Part(i, images[i], one, results[i]) for i, (_, inputs) in enumerate(plans) for one in inputs]
        timings = self._run_all(parts)
        spec = self.spec
        return [
            Segmentation(mask, spec.classes, spec.task, placed[i], timings[i], self.color, sure, won, self._pool)
            for i, (mask, sure, won) in enumerate(results)
        ]

    def _run_all(self, parts: Sequence[_Part]) -> dict[int, Timings]:
        """Run every part, in as many batches as it takes; return the time that each image took."""
        limit = self.backend.batch_size or (_TILES_PER_CALL if self.spec.input.resize == "tile" else None)
        timings: dict[int, Timings] = {}
        for batch in _batches(parts, limit):
            taken = self._run(batch)
            for i in {part.number for part in batch}:
                timings[i] = timings[i] + taken if i in timings else taken
        return timings

    def _plan(self, image: Image) -> tuple[Geometry, list[_Input]]:
        """Return where images of this shape go, and what fills their inputs; each shape is planned once."""
        key = (image.shape, image.strides) if isinstance(image, np.ndarray) and image.dtype == np.uint8 else ()
        plan = self._plans.get(key)
        if plan is None:
            check_image(image, self.color)
            geometry = Geometry.place(image_size(image, self.color), self.spec.input)
            tiles = geometry.tiles(self.spec.input)
            plan = geometry, [_Input(tile, input_filler(tile, self.spec.input, self.color), {}) for tile in tiles]
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def _run(self, batch: Sequence[_Part]) -> Timings:
        """Run one batch and fill the results."""
        spec, count = self.spec, len(batch)
        shape = batch_shape(self.backend.batch_size or count, batch[0].input.geometry.input_hw, spec.input)
        with self._workspaces.borrow(shape, spec.input.dtype) as space:
            start = time.perf_counter()
            for target, part in zip(channels_last(space.batch, spec.input), batch, strict=False):
                part.input.fill(part.image, target, self._pool)
            prepared = time.perf_counter()
            space.outputs = self.backend.infer(space.batch, space.outputs)
            inferred = time.perf_counter()
            output = checked_output(space.outputs[spec.output.name][:count], count, spec)
            for one, part in zip(output, batch, strict=True):
                self._filler(part.input, one)(one, part.results, self._pool)
            done = time.perf_counter()
        return Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, count)

    def _filler(self, part: _Input, output: Tensor) -> FillResults:
        output_hw = output.shape[:2]
        filler = part.fillers.get(output_hw)
        if filler is None:
            filler = part.fillers[output_hw] = filler_of(part.geometry, output_hw, self.spec)
        return filler


def _batches(parts: Sequence[_Part], batch_size: int | None) -> list[list[_Part]]:
    """Group network inputs into batches of one size, of at most `batch_size`."""
    if len(parts) == 1:
        return [list(parts)]
    groups: dict[tuple[int, int], list[_Part]] = {}
    for part in parts:
        groups.setdefault(part.input.geometry.input_hw, []).append(part)
    return [
        group[k : k + (batch_size or len(group))]
        for group in groups.values()
        for k in range(0, len(group), batch_size or len(group))
    ]


def _what(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
