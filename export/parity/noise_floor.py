"""Noise floor: how far PyTorch's own rounding moves a network's masks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seginfer._segmenter import Segmenter

from .comparison import ROUNDINGS, ParityMetric
from .torch_reference import TorchReference

_DRAWS = 3  # that two maxima swap is rare: one draw may meet none


def measure_noise_floor(
    module: nn.Module, segmenter: Segmenter, images: Sequence[NDArray[np.uint8]]
) -> ParityMetric | None:
    """Measure how far PyTorch in float64, on inputs moved by their rounding, is from PyTorch in float32.

    A network that puts values where maxima were (unpooling) turns a rounding error into another place now and then,
    and all that follows differs. No correct implementation can be held to less than that.

    Returns:
        The measurement, as if PyTorch in float64 were an exported pipeline, if it exceeds the limits of one; None
        otherwise, and if the module cannot run in float64.
    """
    spec = segmenter.spec
    batch_size = segmenter.backend.batch_size or 1
    reference, exact = (TorchReference(part, spec, batch_size=batch_size) for part in (module, _InFloat64(module)))
    metric = ParityMetric(spec, "fp32")
    for image in images:
        expected, trace = reference(image), segmenter.trace(image)
        for _ in range(_DRAWS):
            try:
                other = exact(image)
            except Exception:  # whatever a module does that is written for float32
                return None
            metric.update(expected, replace(trace, output=other.output, mask=other.labels), other.output)
    return metric if metric.is_network_off() else None


class _InFloat64(nn.Module):
    """A copy of a module that computes in float64, each time on inputs that are rounded another way."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).double()
        self._generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Any:
        """Run the module on a batch of any floating-point type."""
        unit = ROUNDINGS * torch.finfo(torch.float32).eps * float(x.abs().max())
        moves = torch.rand(x.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        return self.module(x.double() + unit * moves.to(x.device))
