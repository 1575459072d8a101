"""Frame: all that one kind of batch needs on a GPU, from images to masks, and the graph that runs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._cuda.arena import Arena
from .._cuda.errors import explained
from .._cuda.gpu import Gpu, as_bytes
from .._cuda.graph import CaptureError, Graph
from .._cuda.tensors import DeviceTensor
from .._errors import InputError
from .._geometry.geometry import Size
from .._inputs.formats import PixelFormat
from .._inputs.steps import InputStep
from .._spec.model_spec import MAX_SIDE, ModelSpec
from .._tasks.dense.decode import _clear, _has_unseen
from .._tasks.dense.launches import OutputAt
from .._tasks.dense.steps import MaskStep, check_faults
from .._tasks.timings import Timings
from ..backends._protocol import Execution
from .layout import FrameKey, ImageLayout, ResultLayout
from .pipeline import Part


class _Views(NamedTuple):
    """What lies in pinned memory."""

    images: list[NDArray[np.uint8]]
    faults: NDArray[np.uint32]
    parts: list[dict[str, NDArray[Any]]]


class Frame:
    """Memory and launches for batches of one key, at addresses that never change. For one caller at a time.

    One copy brings the images to the GPU and one brings everything back. Where host and GPU share their memory
    (`gpu.device.properties.integrated`, as on a Jetson), kernels could read and write the pinned memory itself: hand
    its addresses to the steps below, and leave out both copies.

    Args:
        gpu: where everything lies.
        key: which batches.
        execution: the network; other frames may use it in turn.
        spec: the model's contract.
        color: format of the images.

    Attributes:
        execution: the network.
        graph: the recorded work; None until `record`, and where it cannot be recorded.

    Raises:
        InputError: if the network's output is not what the spec says, or none that the kernels read.
        BackendError: if memory runs out.
    """

    def __init__(self, gpu: Gpu, key: FrameKey, execution: Execution, spec: ModelSpec, color: PixelFormat) -> None:
        self._gpu, self._key, self._spec = gpu, key, spec
        self.execution = execution
        self.graph: Graph | None = None
        self._arena = Arena(gpu)
        self._pinned: list[Any] = []
        self._steps: list[InputStep | MaskStep] = []
        try:
            self._prepare(ImageLayout(key.image_sizes, color), ResultLayout(key, spec), color)
        except BaseException:
            self.close()
            raise

    def _prepare(self, images: ImageLayout, results: ResultLayout, color: PixelFormat) -> None:
        gpu, (geometries, owners, *_), spec = self._gpu, self._key, self._spec
        self._on_gpu = [self._arena.reserve(layout.nbytes) for layout in (images, results)]
        for buffer in self._on_gpu:
            self._pinned.append(gpu.pinned(buffer.size))
        at_images, at_results = (int(buffer.handle) for buffer in self._on_gpu)
        places = images.addresses(at_images)
        batch, output = self.execution.input, self.execution.outputs[spec.output.name]
        output_hw = _output_hw(output, batch.shape[0], spec)
        at = [places[i] for i in owners]
        self._steps.append(InputStep(gpu, geometries, spec.input, color, at, batch.address))
        read, written = OutputAt(output.address, output.dtype), results.addresses(at_results)
        faults = results.faults_at(at_results)
        self._steps.append(MaskStep(gpu, geometries, output_hw, spec, read, written, faults=faults))
        self._unused = self._unused_places(batch)
        taken, left = map(as_bytes, self._pinned)
        self._views = _Views(images.arrays(taken), results.faults(left), results.parts(left))

    def _unused_places(self, batch: DeviceTensor) -> Any:
        """Return the places of the batch that no image of this frame fills, but one of another frame may have."""
        per_place = int(np.prod(batch.shape[1:], dtype=np.int64)) * np.dtype(batch.dtype).itemsize
        used = len(self._key.geometries)
        rest = per_place * (batch.shape[0] - used)
        return self._gpu.view(batch.address + per_place * used, rest) if rest else None

    @property
    def nbytes(self) -> int:
        """How much memory of the GPU this takes, beside the network."""
        return self._arena.nbytes + sum(step.nbytes for step in self._steps)

    def _start(self, stream: Any) -> None:
        """Start all of it, call by call. Nothing here allocates, frees, waits or uploads: a graph records it."""
        (images, results), (taken, left) = self._on_gpu, self._pinned
        to_input, to_masks = self._steps
        images.copy_from(taken, stream=stream)
        if self._unused is not None:
            self._unused.fill(0, stream=stream)
        to_input.start(stream)
        self.execution.enqueue(stream)
        to_masks.start(stream)
        results.copy_to(left, stream=stream)

    def warm_up(self, stream: Any) -> None:
        """Run once, on whatever the memory of the images holds, as it must be before it is recorded.

        Raises:
            BackendError: if the run fails.
        """
        with explained("running a first batch"):
            self._start(stream)
            stream.sync()

    def record(self, stream: Any) -> None:
        """Record the work as one graph, once warm.

        Raises:
            CaptureError: if it cannot be recorded; the stream must not be used any more, and `run` goes call by call.
        """
        if self.execution.obstacle:
            raise CaptureError(self.execution.obstacle)
        self.graph = Graph(self._gpu, stream, self._start)

    def run(self, parts: Sequence[Part], stream: Any) -> Timings:
        """Fill the results of a batch of this frame's key.

        Raises:
            InputError: if the network's output is not finite, or holds labels that are no classes.
            BackendError: if the run fails; the frame and its stream must not be used any more.
        """
        start = time.perf_counter()
        images = dict(zip(self._key.owners, (part.image for part in parts), strict=True))
        for i, target in enumerate(self._views.images):
            np.copyto(target, images[i].reshape(target.shape) if images[i].ndim > target.ndim else images[i])
        prepared = time.perf_counter()
        with explained("running a batch"):
            if self.graph is not None:
                self.graph.launch(stream)
            else:
                self._start(stream)
            stream.sync()
        inferred = time.perf_counter()
        check_faults(self._views.faults, self._spec)
        for part, found in zip(parts, self._views.parts, strict=True):
            self._copy_out(part, found)
        done = time.perf_counter()
        return Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, len(parts))

    def _copy_out(self, part: Part, found: dict[str, Any]) -> None:
        if _has_unseen(part.geometry):
            _clear(part.results, self._spec)
        rows, cols = part.geometry.visible.slices
        for name, values in found.items():
            np.copyto(getattr(part.results, name)[..., rows, cols], values)

    def close(self) -> None:
        """Free everything but the execution; no work may be in flight. Once more does nothing."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None
        for step in self._steps:
            step.close()
        self._steps.clear()
        vars(self).pop("_views", None)  # of memory that is freed now
        while self._pinned:
            self._gpu.free(self._pinned.pop())
        self._arena.close()


def _output_hw(output: DeviceTensor, places: int, spec: ModelSpec) -> Size:
    """Return the (height, width) of an output.

    Raises:
        InputError: if its shape is not what the spec says.
    """
    is_labels, shape = spec.output.kind == "labels", output.shape
    channels = 1 if is_labels else spec.num_channels
    if is_labels and len(shape) == 3:
        shape = (shape[0], 1, *shape[1:])
    elif len(shape) == 4 and spec.output.layout == "NHWC":
        shape = (shape[0], shape[3], shape[1], shape[2])
    if len(shape) != 4 or shape[:2] != (places, channels) or 0 in shape:
        raise InputError(
            f"expected an output of {places} x {channels} channels in {spec.output.layout}, got shape {output.shape}"
        )
    if max(shape) > MAX_SIDE:
        raise InputError(f"the output must have sides of at most {MAX_SIDE}, got shape {output.shape}; use tiles")
    return shape[2], shape[3]
