"""The fp32 graph as PyTorch exports it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from numpy.typing import NDArray

from .limits import Limits
from .precision import Precision


class Unchanged:
    """A conversion that keeps the graph."""

    suspects: tuple[str, ...] = ()

    def __init__(self, model: onnx.ModelProto, _batches: Iterable[NDArray[Any]]) -> None:
        self.model = self.simulated = model
        self.fp32_nodes: dict[str, tuple[str, ...]] = {}

    def retry(self) -> bool:
        """Return False. There is nothing to change."""
        return False


# Two correct fp32 implementations order their sums differently: 1e-6 of the largest value is usual.
FP32 = Precision(
    "fp32",
    Unchanged,
    Limits(
        network_share=1e-4,
        channel_share=1e-2,
        channel_floor=1e-5,
        undecided_share=0.5,
        pixel_agreement=0.999,
        mean_iou=0.98,
    ),
)
