"""HostPipeline: preprocess, backend and decoding in host memory, around any backend."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .._errors import InputError
from .._geometry.geometry import Geometry, Size
from .._inputs.formats import PixelFormat
from .._inputs.preprocess import Encode, batch_shape, channels_last, make_encoder
from .._spec.model_spec import ModelSpec
from .._tasks import task_of
from .._tasks.task import Decode, Task
from .._tasks.timings import Timings
from ..backends._protocol import Backend, Tensor, as_device_backend
from .pipeline import BatchItem, BatchResult, NetworkIO

Signature = tuple[Any, ...]
"""Shapes and dtypes of the outputs of one image."""


class _Plan(NamedTuple):
    """Encoder and decoders of network inputs of one geometry."""

    geometry: Geometry
    encode: Encode
    decoders: dict[Signature, Decode]


class HostPipeline:
    """See `Pipeline`.

    Args:
        backend: runs the network.
        spec: contract of the model.
        color: format of the images.
        threads: a pool of the compiled core.
        reason: why pixels are computed here although the network is on a GPU. Empty if it is not.
    """

    def __init__(
        self, backend: Backend, spec: ModelSpec, color: PixelFormat, threads: Any = None, reason: str = ""
    ) -> None:
        self._backend = backend
        self._spec = spec
        self._task = task_of(spec)
        self._color: PixelFormat = color
        self._threads = threads
        self._reason = reason
        self._workspaces = _Workspaces()
        self.is_slow_at_first = as_device_backend(backend) is not None

    @property
    def description(self) -> str:
        """Code that computes pixels."""
        return f"pixels on the CPU: {_native.describe()}" + (f"; {self._reason}" if self._reason else "")

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the fixed batch size of the backend, if it has one."""
        del input_hw
        return self._backend.batch_size

    def adopt(self, tensor: Any) -> NoReturn:
        """Raise an InputError: pixels are computed in host memory."""
        raise InputError(
            f"expected arrays in host memory, where pixels are computed, got {type(tensor).__name__} on a GPU; copy it "
            "with .cpu(), or open the model with pixels='cuda'"
        )

    def lend(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of zeros."""
        return np.zeros(shape, dtype)

    def plan(self, geometry: Geometry) -> _Plan:
        """Return encoder and decoders of network inputs of this geometry."""
        return _Plan(geometry, make_encoder(geometry, self._spec.input, self._color), {})

    def run(self, items: Sequence[BatchItem], *, keep_io: bool = False) -> BatchResult:
        """Run one batch. See `Pipeline.run`."""
        count, input_hw = len(items), items[0].geometry.input_hw
        key = self._backend.batch_size or count, input_hw
        space = self._workspaces.take(key) or _Workspace(*key, self._spec)
        start = time.perf_counter()
        for target, item in zip(space.targets, items, strict=False):
            item.plan.encode(item.image, target, self._threads)
        prepared = time.perf_counter()
        space.keep(self._backend.infer(space.batch, space.outputs), self._task)
        inferred = time.perf_counter()
        for part, item in zip(space.parts, items, strict=False):
            decode = item.plan.decoders.get(space.signature)
            if decode is None:
                decode = self._task.make_decoder(item.geometry, part)
                item.plan.decoders[space.signature] = decode
            decode(part, item.buffers, self._threads)
        done = time.perf_counter()
        io = space.copy_io(count) if keep_io else None
        # A workspace that met an error is not given back: its arrays may be half written.
        self._workspaces.give_back(key, space)
        timings = Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, count)
        return BatchResult(timings, io)

    def close(self) -> None:
        """Drop the buffers."""
        self._workspaces.clear()


class _Workspace:
    """Buffers of one call in flight."""

    def __init__(self, size: int, input_hw: Size, spec: ModelSpec) -> None:
        # A fixed batch size may leave images of the batch unused: they stay zero.
        self.batch = np.zeros(batch_shape(size, input_hw, spec.input), spec.input.dtype)
        self.targets = list(channels_last(self.batch, spec.input))
        self.outputs: dict[str, Tensor] | None = None
        self.parts: Iterable[Any] = ()
        self.signature: Signature = ()
        self.nbytes = self.batch.nbytes
        self._arrays: Mapping[str, Tensor] = {}

    def keep(self, outputs: dict[str, Tensor], task: Task) -> None:
        """Keep the outputs of a run. Split them if the arrays are new."""
        self.outputs = outputs
        if self._arrays and len(outputs) == len(self._arrays):
            for name, array in outputs.items():
                if self._arrays.get(name) is not array:
                    break
            else:
                return
        self.parts = task.split(outputs, len(self.batch))
        self.nbytes = self.batch.nbytes + sum(array.nbytes for array in outputs.values())
        self.signature = tuple((name, array.shape[1:], array.dtype) for name, array in outputs.items())
        self._arrays = dict(outputs)

    def copy_io(self, count: int) -> NetworkIO:
        """Return copies of input and outputs of the first images."""
        return NetworkIO(self.batch[:count].copy(), {name: a[:count].copy() for name, a in self._arrays.items()})


class _Workspaces:
    """Free buffers. A steady stream of frames allocates none."""

    # Kept in all; the longest unused goes first, and the last one used stays.
    _CAPACITY = 8
    _BYTES = 64 << 20

    def __init__(self) -> None:
        self._free: list[tuple[tuple[int, Size], _Workspace]] = []
        self._lock = threading.Lock()

    def take(self, key: tuple[int, Size]) -> _Workspace | None:
        """Return the workspace of this size that was used last."""
        with self._lock:
            for i in reversed(range(len(self._free))):
                if self._free[i][0] == key:
                    return self._free.pop(i)[1]
        return None

    def give_back(self, key: tuple[int, Size], space: _Workspace) -> None:
        """Keep a workspace for the next call."""
        with self._lock:
            self._free.append((key, space))
            while len(self._free) > self._CAPACITY or (len(self._free) > 1 and self._size() > self._BYTES):
                del self._free[0]

    def _size(self) -> int:
        return sum(space.nbytes for _, space in self._free)

    def clear(self) -> None:
        """Drop every free workspace."""
        with self._lock:
            self._free.clear()
