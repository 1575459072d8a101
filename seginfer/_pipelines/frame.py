"""Frame: memory, launches and graph of one kind of batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._cuda.arena import Arena
from .._cuda.errors import translate_errors
from .._cuda.gpu import Gpu, as_bytes
from .._cuda.graph import CaptureError, Graph
from .._cuda.steps import Step
from .._cuda.tensors import DeviceTensor
from .._inputs.formats import PixelFormat
from .._inputs.steps import InputStep
from .._spec.model_spec import InputSpec
from .._tasks.task import Task
from .._tasks.timings import Timings
from ..backends._protocol import Execution
from .layout import FrameKey, ImageLayout
from .pipeline import BatchItem


class Frame:
    """Memory and launches for batches of one key, at fixed addresses. For one caller at a time.

    One copy brings the images to the GPU and one brings the results back. Where host and GPU share their memory
    (`gpu.device.properties.integrated`, as on a Jetson), kernels could read and write the pinned memory itself: hand
    its addresses to the steps below, and leave out both copies.

    Args:
        gpu: holds all memory.
        key: kind of the batches.
        execution: the network. Other frames may use it in turn.
        spec: input of the model.
        task: decodes the outputs of the network.
        color: format of the images.

    Attributes:
        execution: the network.
        graph: the recorded work. None until `record`, and where it cannot be recorded.

    Raises:
        InputError: if an output of the network is not what the spec says, or the kernels do not read it.
        BackendError: if memory runs out.
    """

    def __init__(
        self, gpu: Gpu, key: FrameKey, execution: Execution, spec: InputSpec, task: Task, color: PixelFormat
    ) -> None:
        self._gpu, self._key = gpu, key
        self.execution = execution
        self.graph: Graph | None = None
        self._arena = Arena(gpu)
        self._pinned: list[Any] = []
        self._steps: list[Step] = []
        self._results = task.make_device_decoder(key.geometries, key.wants)
        try:
            self._prepare(ImageLayout(key.image_sizes, color), spec, color)
        except BaseException:
            self.close()
            raise

    def _prepare(self, images: ImageLayout, spec: InputSpec, color: PixelFormat) -> None:
        gpu, results, batch = self._gpu, self._results, self.execution.input
        self._on_gpu = [self._arena.reserve(layout.nbytes) for layout in (images, results)]
        for buffer in self._on_gpu:
            self._pinned.append(gpu.allocate_pinned(buffer.size))
        at_images, at_results = (int(buffer.handle) for buffer in self._on_gpu)
        addresses = images.addresses(at_images)
        owned = [addresses[i] for i in self._key.owners]
        self._steps.append(InputStep(gpu, self._key.geometries, spec, color, owned, batch.address))
        self._steps.append(results.place(gpu, self.execution.outputs, batch.shape[0], at_results))
        self._unused = self._unused_images(batch)
        taken, left = map(as_bytes, self._pinned)
        self._images = images.arrays(taken)
        results.attach(left)

    def _unused_images(self, batch: DeviceTensor) -> Any:
        """Return the part of the batch that this frame leaves to zero."""
        bytes_per_image = int(np.prod(batch.shape[1:], dtype=np.int64)) * np.dtype(batch.dtype).itemsize
        used = len(self._key.geometries)
        rest = bytes_per_image * (batch.shape[0] - used)
        return self._gpu.view(batch.address + bytes_per_image * used, rest) if rest else None

    @property
    def nbytes(self) -> int:
        """Size of its memory on the GPU, beside the network."""
        return self._arena.nbytes + sum(step.nbytes for step in self._steps)

    def _start(self, stream: Any) -> None:
        """Start the work call by call. A graph records this: nothing may allocate, free, wait or upload."""
        (images, results), (taken, left) = self._on_gpu, self._pinned
        encode, decode = self._steps
        images.copy_from(taken, stream=stream)
        if self._unused is not None:
            self._unused.fill(0, stream=stream)
        encode.start(stream)
        self.execution.enqueue(stream)
        decode.start(stream)
        results.copy_to(left, stream=stream)

    def warm_up(self, stream: Any) -> None:
        """Run once on undefined images, which must precede `record`.

        Raises:
            BackendError: if the run fails.
        """
        with translate_errors("running a first batch"):
            self._start(stream)
            stream.sync()

    def record(self, stream: Any) -> None:
        """Record the work as one graph, after `warm_up`.

        Raises:
            CaptureError: if it cannot be recorded. The stream must not be used any more, and `run` goes call by call.
        """
        if self.execution.obstacle:
            raise CaptureError(self.execution.obstacle)
        self.graph = Graph(self._gpu, stream, self._start)

    def run(self, items: Sequence[BatchItem], stream: Any) -> Timings:
        """Fill the results of a batch of this frame's key.

        Raises:
            InputError: if the network's output is not finite, or holds labels that are no classes.
            BackendError: if the run fails. The frame and its stream must not be used any more.
        """
        start = time.perf_counter()
        for i, item in dict(zip(self._key.owners, items, strict=True)).items():  # tiles share an image
            target, image = self._images[i], item.image
            np.copyto(target, image.reshape(target.shape) if image.ndim > target.ndim else image)
        prepared = time.perf_counter()
        with translate_errors("running a batch"):
            if self.graph is not None:
                self.graph.launch(stream)
            else:
                self._start(stream)
            stream.sync()
        inferred = time.perf_counter()
        self._results.check()
        for i, item in enumerate(items):
            self._results.read(i, item.buffers)
        done = time.perf_counter()
        return Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, len(items))

    def close(self) -> None:
        """Free everything but the execution. No work may be in flight. Idempotent."""
        if self.graph is not None:
            self.graph.close()
            self.graph = None
        for step in self._steps:
            step.close()
        self._steps.clear()
        for views in ("_images", "_results"):  # of memory that is freed now
            vars(self).pop(views, None)
        while self._pinned:
            self._gpu.free(self._pinned.pop())
        self._arena.close()
