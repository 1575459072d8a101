"""What a pipeline is: what fills results from images, around a backend or with it on one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .._geometry.geometry import Geometry, Size
from .._tasks.dense.decode import Results
from .._tasks.timings import Timings
from ..backends._protocol import Tensor

Image = NDArray[np.uint8]


class Part(NamedTuple):
    """One network input, and the arrays of the whole image that it fills in part."""

    number: int
    """Which image of the call it belongs to."""
    image: Image
    geometry: Geometry
    plan: Any
    """What `Pipeline.plan` returned for the geometry."""
    results: Results


class Evidence(NamedTuple):
    """What the network took and yielded in one batch: copies, (count, ...) each."""

    batch: Tensor
    output: Tensor


class Pipeline(Protocol):
    """Turns images into results. Calls from several threads at once are safe."""

    @property
    def description(self) -> str:
        """What computes pixels, in one line, for people and records."""

    def batch_limit(self, input_hw: Size) -> int | None:
        """Return the most network inputs of this (height, width) that `run` takes; None if any number."""

    @property
    def is_slow_at_first(self) -> bool:
        """Whether the first image of a size takes longer than the next."""

    def plan(self, geometry: Geometry) -> Any:
        """Return what is to be kept for network inputs of this geometry; made once per image shape."""

    def run(self, parts: Sequence[Part], evidence: list[Evidence] | None = None) -> Timings:
        """Fill the results of parts whose network inputs have one size.

        Args:
            parts: at least one, at most `batch_limit`.
            evidence: gets what the network took and yielded.

        Raises:
            InputError: if the network's output is not what the spec says, or not finite.
            BackendError: if the run fails, or the pipeline is closed.
        """

    def close(self) -> None:
        """Free what the pipeline holds, but not the backend."""
