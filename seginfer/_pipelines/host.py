"""HostPipeline: preprocess, backend and postprocess in a row, in this process's memory, around any backend."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _native
from .._geometry.geometry import Geometry, Size
from .._inputs.formats import PixelFormat
from .._inputs.preprocess import FillInput, batch_shape, channels_last, input_filler
from .._spec.model_spec import ModelSpec
from .._tasks.dense.decode import FillResults, filler_of
from .._tasks.dense.outputs import checked_output
from .._tasks.timings import Timings
from ..backends._protocol import Backend, Tensor, as_device_backend
from .pipeline import Evidence, Part
from .workspaces import Workspace, Workspaces


class _Plan(NamedTuple):
    """What reads one network input, and what answers for it."""

    geometry: Geometry
    fill: FillInput
    fillers: dict[tuple[int, int], FillResults]
    """By the output's (height, width), which the first run tells."""


class HostPipeline:
    """See `Pipeline`.

    Args:
        backend: runs the network.
        spec: the model's contract.
        color: format of the images.
        threads: a pool of the compiled core.
        reason: why pixels are computed here although the network is on a GPU; empty if it is not.
    """

    def __init__(
        self, backend: Backend, spec: ModelSpec, color: PixelFormat, threads: Any = None, reason: str = ""
    ) -> None:
        self._backend = backend
        self._spec = spec
        self._color: PixelFormat = color
        self._threads = threads
        self._reason = reason
        self._workspaces = Workspaces()
        self.is_slow_at_first = as_device_backend(backend) is not None

    @property
    def description(self) -> str:
        """What computes pixels."""
        return f"pixels on the CPU: {_native.describe()}" + (f"; {self._reason}" if self._reason else "")

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the backend's batch size, if it has only one."""
        del input_hw
        return self._backend.batch_size

    def plan(self, geometry: Geometry) -> _Plan:
        """Return what fills a network input of this geometry."""
        return _Plan(geometry, input_filler(geometry, self._spec.input, self._color), {})

    def run(self, parts: Sequence[Part], evidence: list[Evidence] | None = None) -> Timings:
        """Run one batch; see `Pipeline.run`."""
        spec, count = self._spec, len(parts)
        shape = batch_shape(self._backend.batch_size or count, parts[0].geometry.input_hw, spec.input)
        with self._workspaces.borrow(shape, spec.input.dtype) as space:
            start = time.perf_counter()
            for target, part in zip(channels_last(space.batch, spec.input), parts, strict=False):
                part.plan.fill(part.image, target, self._threads)
            prepared = time.perf_counter()
            space.outputs = self._backend.infer(space.batch, space.outputs)
            inferred = time.perf_counter()
            output = checked_output(space.outputs[spec.output.name][:count], count, spec)
            for one, part in zip(output, parts, strict=True):
                self._filler(part.plan, one)(one, part.results, self._threads)
            done = time.perf_counter()
            if evidence is not None:
                evidence.append(_evidence(space, count, spec))
        return Timings((prepared - start) * 1e3, (inferred - prepared) * 1e3, (done - inferred) * 1e3, count)

    def close(self) -> None:
        """Drop the buffers."""
        self._workspaces.clear()

    def _filler(self, plan: _Plan, output: Tensor) -> FillResults:
        output_hw = output.shape[:2]
        filler = plan.fillers.get(output_hw)
        if filler is None:
            filler = plan.fillers[output_hw] = filler_of(plan.geometry, output_hw, self._spec)
        return filler


def _evidence(space: Workspace, count: int, spec: ModelSpec) -> Evidence:
    outputs = space.outputs or {}
    return Evidence(space.batch[:count].copy(), outputs[spec.output.name][:count].copy())
