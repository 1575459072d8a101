"""Frame: memory, launches and graphs of one kind of batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import _native
from .._cuda.arrays import DeviceArray
from .._cuda.errors import translate_errors
from .._cuda.gpu import Clear, Gpu, Kernel
from .._cuda.graph import CaptureError, Graph, Work
from .._cuda.mirror import Mirror
from .._cuda.packing import pieces
from .._cuda.steps import Step
from .._cuda.tensors import DeviceTensor
from .._errors import InputError
from .._inputs.formats import PixelFormat
from .._inputs.launches import ImageAt
from .._inputs.steps import InputStep
from .._spec.model_spec import InputSpec
from .._tasks.task import Task
from .._tasks.timings import Timings
from .layout import FrameKey, ImageLayout
from .network import Network
from .pipeline import BatchItem

_BYTES_AT_ONCE = 1 << 20
"""Smallest copy to or from the GPU, where there is more than one."""


class Frame:
    """Memory and launches for batches of one key, at fixed addresses. For one caller at a time.

    Each image goes to the GPU while the next one is still copied into pinned memory, and results come back likewise.
    What lies in between is one graph with the recorded network, or two around a network that is started by itself.

    Args:
        gpu: holds all memory.
        key: kind of the batches.
        network: the network. Other frames may use it in turn.
        spec: input of the model.
        task: decodes the outputs of the network.
        color: format of the images.
        threads: a pool of the compiled core.
        stream: a stream to prepare on.

    Attributes:
        network: the network.
        graphs: one or two, none if the driver refuses them.

    Raises:
        InputError: if an output of the network is not what the spec says, or the kernels do not read it.
        BackendError: if memory runs out.
    """

    def __init__(
        self,
        gpu: Gpu,
        key: FrameKey,
        network: Network,
        spec: InputSpec,
        task: Task,
        color: PixelFormat,
        threads: Any,
        stream: Any,
    ) -> None:
        self._gpu, self._key, self._threads = gpu, key, threads
        self.network = network
        self.graphs: list[Graph] = []
        self._mirrors: list[Mirror] = []
        self.steps: list[Step] = []
        self._results = task.make_device_decoder(key.geometries, key.wants)
        try:
            self._prepare(ImageLayout(key.image_sizes, color), spec, color)
            self._parts = self._link(stream)
        except BaseException:
            self.close()
            raise

    def _prepare(self, images: ImageLayout, spec: InputSpec, color: PixelFormat) -> None:
        gpu, results, batch = self._gpu, self._results, self.network.execution.input
        for nbytes in (images.nbytes, results.ends[-1]):
            self._mirrors.append(Mirror(gpu, nbytes))
        taken, left = self._mirrors
        places = images.addresses(taken.address)
        owned = [places[i] for i in self._key.owners]
        self._encode = InputStep(gpu, self._key.geometries, spec, color, owned, batch.address)
        self.steps.append(self._encode)
        self.steps.append(results.place(gpu, self.network.execution.outputs, batch.shape[0], left.address))
        self._images, self._places = images.arrays(taken.array), places
        self._moved: dict[int, ImageAt] | None = {}
        results.attach(left.array)
        first_of = {owner: i for i, owner in reversed(list(enumerate(self._key.owners)))}  # tiles share an image
        self._uploads = [
            (piece, [(i, first_of[i]) for i in piece.indices]) for piece in pieces(images.ends, _BYTES_AT_ONCE)
        ]
        self._downloads = [(piece, gpu.new_event()) for piece in pieces(results.ends, _BYTES_AT_ONCE)]
        self._clears = self._unused_images(batch)

    def _unused_images(self, batch: DeviceTensor) -> list[Clear]:
        """Return the part of the batch that this frame leaves to zero."""
        bytes_per_image = int(np.prod(batch.shape[1:], dtype=np.int64)) * np.dtype(batch.dtype).itemsize
        used = len(self._key.geometries)
        rest = bytes_per_image * (batch.shape[0] - used)
        return [Clear(batch.address + bytes_per_image * used, rest)] if rest else []

    def _link(self, stream: Any) -> list[Callable[[Any], None]]:
        """Return what a run starts on its stream, in this order."""
        before, after = [*self._clears, *self._encode.work], self.steps[1].work
        try:
            if self.network.recording is not None:
                return [self._graph([*before, self.network.recording, *after], stream)]
            return [self._graph(before, stream), self.network.start, self._graph(after, stream)]
        except CaptureError as error:
            self.network.note_plain(str(error))
            self._drop_graphs()
            return [partial(self._start, before), self.network.start, partial(self._start, after)]

    def _graph(self, work: Sequence[Work], stream: Any) -> Callable[[Any], None]:
        self.graphs.append(Graph(self._gpu, work, stream))
        return self.graphs[-1].launch

    def _start(self, work: Sequence[Clear | Kernel], stream: Any) -> None:
        for one in work:
            self._gpu.start(one, stream)

    @property
    def nbytes(self) -> int:
        """Size of its memory on GPU and host, beside the network."""
        return sum(mirror.nbytes for mirror in self._mirrors) + sum(step.nbytes for step in self.steps)

    def run(self, items: Sequence[BatchItem], stream: Any) -> Timings:
        """Fill the results of a batch of this frame's key.

        Raises:
            InputError: if the network's output is not finite, or holds labels that are no classes.
            BackendError: if the run fails. The frame and its stream must not be used any more.
        """
        start = time.perf_counter()
        try:
            with translate_errors("running a batch"):
                self._send(items, stream)
                prepared = time.perf_counter()
                for part in self._parts:
                    part(stream)
                self._fetch(items, stream)
            inferred = time.perf_counter()
            self._read(items, stream)
        except InputError:
            stream.sync()  # the next batch may free or overwrite the memory
            raise
        done = time.perf_counter()
        return Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, len(items))

    def _send(self, items: Sequence[BatchItem], stream: Any) -> None:
        """Copy the images into pinned memory, and start the copy of each to the GPU.

        Kernels read tensors on a GPU where they lie, and lent images too if host and GPU share their memory.
        """
        gpu, moved = self._gpu, dict[int, ImageAt]()
        for piece, images in self._uploads:
            lent, has_copied = [], False
            for i, item in images:
                target, image = self._images[i], items[item].image
                if isinstance(image, DeviceArray):
                    moved[i] = ImageAt(image.address, image.strides[0])
                    continue
                image = image.reshape(target.shape) if image.ndim > target.ndim else image
                address = gpu.reach(image)
                if address is None or not _native.has_packed_rows(image, image.ndim - 1):
                    _native.copy(image, target, self._threads)
                    has_copied = True
                elif gpu.is_integrated and image.flags.c_contiguous:
                    moved[i] = ImageAt(address, image.strides[0])
                else:
                    lent.append((i, (address, max(image.strides[0], target.strides[0])), target))
            if has_copied:
                self._mirrors[0].upload(piece.start, piece.stop, stream)
            for i, source, target in lent:
                gpu.copy_rows(self._places[i][:2], source, target.strides[0], len(target), stream)
        if moved:
            stream.wait(gpu.stream)  # which waits for the streams of tensors
        if moved != self._moved:
            self._moved = None  # until all are valid
            self._encode.point([moved.get(i, self._places[i]) for i in self._key.owners], stream)
            self._moved = moved

    def _fetch(self, items: Sequence[BatchItem], stream: Any) -> None:
        """Start the copies of results to the host, and wait for the first."""
        self._direct = [i for i, item in enumerate(items) if self._results.has_way(item.buffers.mask)]
        for piece, event in self._downloads:
            stop = piece.stop
            if self._direct and not any(self._key.wants) and all(i in self._direct for i in piece.indices):
                stop = piece.start if piece.start else self._results.head
            if stop > piece.start:
                self._mirrors[1].download(piece.start, stop, stream)
            stream.record(event)
        self._downloads[0][1].sync()

    def _read(self, items: Sequence[BatchItem], stream: Any) -> None:
        """Check the results, and copy them out as they arrive. A faulty batch writes nothing."""
        self._results.check()
        if self._direct:
            with translate_errors("waiting for a batch"):
                stream.wait(self._gpu.stream)  # which waits for the streams of tensors
                for i in self._direct:
                    self._results.send(i, items[i].buffers.mask, stream)
        for k, (piece, event) in enumerate(self._downloads):
            if k:
                with translate_errors("waiting for a batch"):
                    event.sync()
            for i in piece.indices:
                buffers = items[i].buffers
                self._results.read(i, buffers._replace(mask=None) if i in self._direct else buffers, self._threads)
        if self._direct:
            with translate_errors("waiting for a batch"):
                stream.record(event)
                event.sync()

    def _drop_graphs(self) -> None:
        while self.graphs:
            self.graphs.pop().close()

    def close(self) -> None:
        """Free everything but the network. No work may be in flight. Idempotent."""
        self._drop_graphs()
        for views in ("_images", "_results"):  # of memory that is freed now
            vars(self).pop(views, None)
        for held in (self.steps, self._mirrors):
            while held:
                held.pop().close()
