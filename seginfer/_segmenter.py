"""Segmenter: images in, results out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from . import _native
from ._errors import InputError
from ._files.model_file import ModelFile, verify_certificate
from ._geometry.geometry import Size
from ._inputs.convert import ImageLike, MaskLike
from ._inputs.formats import PixelFormat, check_size, even, pattern_image, resolve_color
from ._pipelines.batches import batch_limit, run_batches
from ._pipelines.open import Pixels, open_pipeline
from ._pipelines.pipeline import BatchItem, Image, NetworkIO, Trace
from ._pipelines.plans import ImagePlans
from ._reference.taps import Mask
from ._spec.model_spec import ModelSpec
from ._system.arrays import check_apart
from ._system.beside import run_beside
from ._system.environment import resolve_threads
from ._system.fork import leak_in_children
from ._tasks import task_of
from ._tasks.segmentation import Segmentation
from ._tasks.task import Wants
from .backends import open_backend, read_any_model
from .backends._protocol import Backend

if TYPE_CHECKING:
    from ._tensorrt.build import Progress
    from ._tensorrt.options import EngineOptions


class Segmenter:
    """Runs a segmentation model on images. Calls from several threads at once are safe.

    Args:
        spec: contract of the model.
        backend: runs the network. Closed with the segmenter.
        color: format of the images, see `preprocess`. None is "rgb", or "gray" for a gray model.
        threads: number of threads that prepare images and make masks. None is every core that the process may use, and
            1 never starts a thread.
        pixels: device that prepares images and makes masks: "cpu", "cuda", or "auto" for that of the network.
        batch_size: the most images or tiles of one inference, where the graph has no limit. None is 8 images or 4
            tiles. A longer list is run in several batches.

    Attributes:
        spec: contract of the model.
        backend: runs the network. Its `repr` names the device and the reason for it.
        pipeline: computes pixels. Its `description` names the device and the reason for it.
        color: format of the images.
        threads: number of threads that prepare images and make masks.
    """

    def __init__(
        self,
        spec: ModelSpec,
        backend: Backend,
        *,
        color: PixelFormat | None = None,
        threads: int | None = None,
        pixels: Pixels = "auto",
        batch_size: int | None = None,
    ) -> None:
        self.spec = spec
        self.backend = backend
        self.color = resolve_color(color, spec.input)
        self.threads = resolve_threads(threads)
        self._task = task_of(spec)
        self.pipeline = open_pipeline(backend, spec, self.color, _native.new_threads(self.threads), pixels)
        self._batch_size = batch_limit(batch_size, spec.input)
        self._plans = ImagePlans(spec.input, self.color, self.pipeline)
        leak_in_children(self)
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
        pixels: Pixels = "auto",
        batch_size: int | None = None,
        verify: bool = True,
        engine: EngineOptions | None = None,
        image_hw: Size | None = None,
        on_progress: Progress | None = None,
    ) -> Segmenter:
        """Open a model file and warm it up for single images, see `warm_up`.

        Args:
            path: an .onnx file of `seginfer export` or `seginfer attach`, or an engine of `seginfer build`.
            backend: "onnxruntime", "tensorrt", "tensorrt_rtx", or "auto": TensorRT for an engine, ONNX Runtime for the
                rest. Building an engine takes minutes, so it must be requested by name.
            device: "cpu", "cuda", "cuda:<index>", or "auto" for the best one.
            threads: CPU threads of one call, for the network and for pixels. None is every core.
            color: format of your images: "rgb", "bgr" (OpenCV), "rgba", "bgra", "gray", a camera's "nv12", "yuyv" and
                others, or a `YuvFormat`, see `preprocess`. None is "rgb", or "gray" for a gray model.
            pixels: device that prepares images and makes masks: "cpu", "cuda", or "auto" for that of the network.
            batch_size: the most images of one inference, see `Segmenter`.
            verify: compare the hash of an .onnx file with its certificate, if it has one. That of an engine is always
                compared.
            engine: for TensorRT, options of the engine to build unless the cache has it. None is `EngineOptions()`.
            image_hw: (height, width) of your images, to warm up for. None is the network's own size.
            on_progress: for TensorRT, called with every step of a build.

        Raises:
            MissingFileError: if there is no such file.
            ModelFileError: if it is truncated, foreign, without a spec, contradicts its spec, or is not the file
                that its certificate was measured on.
            BackendUnavailableError: if the backend or device is not available.
            BackendError: if the backend cannot load the model, or an engine was built for another device or version.
        """
        model = read_any_model(path)
        resolve_color(color, model.spec.input)  # before an engine is built
        with ExitStack() as undo:
            with run_beside(partial(verify_certificate, model) if verify and isinstance(model, ModelFile) else None):
                opened = open_backend(
                    model, backend, device=device, threads=threads, engine=engine, on_progress=on_progress
                )
                undo.callback(opened.close)
                segmenter = cls(model.spec, opened, color=color, threads=threads, pixels=pixels, batch_size=batch_size)
                undo.callback(segmenter.close)
                segmenter.warm_up(image_hw)
            undo.pop_all()
        return segmenter

    def warm_up(self, image_hw: Size | None = None) -> None:
        """Load kernels and record the graph of a frame before the first image.

        On the CPU there is nothing to do. A first list of images, a second thread and another size still wait once.

        Args:
            image_hw: (height, width) of the images to come. None is the network's own size, or that which its engine
                was tuned for.

        Raises:
            InputError: if the model does not take such images.
        """
        default = self.spec.input.size or getattr(self.backend, "opt_hw", None)
        size = check_size(image_hw) or (default and even(default))
        if self.pipeline.is_slow_at_first and size:
            self(pattern_image(size, self.color))

    @overload
    def __call__(
        self, images: ImageLike, *, out: MaskLike | None = None, confidence: bool = False, margin: bool = False
    ) -> Segmentation: ...

    @overload
    def __call__(
        self,
        images: list[ImageLike] | tuple[ImageLike, ...] | list[Image],
        *,
        out: Sequence[MaskLike] | None = None,
        confidence: bool = False,
        margin: bool = False,
    ) -> list[Segmentation]: ...

    def __call__(
        self, images: Any, *, out: Any = None, confidence: bool = False, margin: bool = False
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or a list of images in batches.

        Args:
            images: (H, W, 3) uint8 in the segmenter's format, or a list of such. Sizes may differ. Paths, images of
                Pillow and tensors are taken too, in the format as it is stored or converted to it. Tensors on the GPU
                that computes pixels are read where they lie, after work of their stream.
            out: a mask to fill, or a list of masks for a list of images. See `postprocess` for shapes. A tensor on that
                GPU is filled there.
            confidence: also return the probability of each label.
            margin: also return the margin of each label, in the unit of the network's output.

        Returns:
            One Segmentation, or a list of them for a list of images.

        Raises:
            InputError: if an image or `out` is not what it must be. Nothing has run then.
            BackendError: if inference fails, or the segmenter is closed.
        """
        wants = Wants(confidence, margin)
        if isinstance(images, (list, tuple)):
            return self._segment(images, out, wants)[0]
        if images.ndim > 3 if isinstance(images, np.ndarray) else False:
            got = f"{images.dtype} {images.shape}"
            raise InputError(f"expected one image or a list of images, got {got}; split a batch with list()")
        return self._segment([images], None if out is None else [out], wants)[0][0]

    def buffers(self, image_hw: Size) -> tuple[Image, Mask]:
        """Lend an image and a mask, zeros at first, for a camera to write into and for `out`.

        With pixels on a GPU they lie in pinned memory: neither is copied on the host. They stay valid after `close`.

        Raises:
            InputError: if the model does not take images of this (height, width).
            BackendError: if memory runs out.
        """
        image, plan = self._plans.plan(pattern_image(check_size(image_hw) or image_hw, self.color))
        mask = self._task.allocate([plan.geometry], None, Wants())[0].mask
        return self.pipeline.lend(image.shape, image.dtype), self.pipeline.lend(mask.shape, mask.dtype)

    def trace(self, image: ImageLike) -> Trace:
        """Run one image and return the intermediate results too. The arrays belong to the caller."""
        (result,), ios = self._segment([image], None, Wants(), keep_io=True)
        outputs = {one.name: np.concatenate([io.outputs[one.name] for io in ios]) for one in self.spec.outputs}
        return Trace(np.concatenate([io.batch for io in ios]), result.geometry, outputs, result.labels)

    def close(self) -> None:
        """Free the backend. Calls afterwards raise BackendError."""
        self.pipeline.close()
        self._plans.clear()
        self.backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Segmenter({self.spec.task}, {self.spec.num_classes} classes, {self.backend!r})"

    def _segment(
        self, images: Sequence[ImageLike], out: Any, wants: Wants, keep_io: bool = False
    ) -> tuple[list[Segmentation], list[NetworkIO]]:
        if not images:
            raise InputError("expected at least one image, got an empty list; skip the call when there is no image")
        planned = [self._plans.plan(image) for image in images]
        arrays, plans = [array for array, _ in planned], [plan for _, plan in planned]
        out = None if out is None else self._plans.targets(out)
        buffers = self._task.allocate([plan.geometry for plan in plans], out, wants)
        if out is not None:
            check_apart(out, arrays, "an image")
        items = [
            BatchItem(i, arrays[i], geometry, kept, buffers[i])
            for i, plan in enumerate(plans)
            for geometry, kept in plan.inputs
        ]
        timings, ios = run_batches(self.pipeline, items, self._batch_size, keep_io)
        result, color, threads = self._task.result, self.color, self.threads
        return [result(buffers[i], plan.geometry, timings[i], color, threads) for i, plan in enumerate(plans)], ios
