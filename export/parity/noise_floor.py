"""Noise floor of the masks of a network in PyTorch."""

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

from ..precision.fp32 import FP32
from .comparison import ROUNDINGS, ParityMetric
from .torch_reference import TorchReference

_DRAWS = 3  # swapped maxima are rare: a single draw may hold none


def measure_noise_floor(
    module: nn.Module, segmenter: Segmenter, images: Sequence[NDArray[np.uint8]]
) -> ParityMetric | None:
    """Measure the effect of rounding in PyTorch itself.

    PyTorch in float64, on inputs moved by their rounding, is compared with PyTorch in float32.

    Unpooling puts values back to the places of maxima. A rounding error may choose another place, and everything after
    it differs. No correct implementation can do better than PyTorch's own rounding.

    Returns:
        The measurement, as if PyTorch in float64 were an exported pipeline. None if it is within the limits of fp32, or
        if the module cannot run in float64.
    """
    spec = segmenter.spec
    batch_size = segmenter.backend.batch_size or 1
    try:
        in_float64 = InFloat64(module)
    except Exception:  # a module may refuse to be copied
        return None
    reference, exact = (TorchReference(part, spec, batch_size=batch_size) for part in (module, in_float64))
    metric = ParityMetric(spec, FP32)
    for image in images:
        expected, trace = reference(image), segmenter.trace(image)
        for _ in range(_DRAWS):
            try:
                other = exact(image)
            except Exception:  # a module may be written for float32 alone
                return None
            rounded = replace(trace, outputs={spec.output.name: other.output}, mask=other.labels)
            metric.update(expected, rounded, other.output)
    return metric if metric.is_network_off() else None


class InFloat64(nn.Module):
    """Copy of a module in float64, with inputs moved by rounding."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).double()
        self._generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Any:
        """Run the module on a batch of any floating-point type."""
        unit = ROUNDINGS * torch.finfo(torch.float32).eps * float(x.abs().max())
        moves = torch.rand(x.shape, generator=self._generator, dtype=torch.float64) * 2 - 1
        return self.module(x.double() + unit * moves.to(x.device))
