"""Comparison of graphs and modules at other sizes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from seginfer._errors import BackendError, ExportError
from seginfer._segmenter import Segmenter

from .._network import Network
from .._program import example_batch
from .dense import upsample_output

# Odd and even multiples of small steps, a square, and a size above usual thresholds.
_SIZES = ((100, 100), (131, 67), (67, 131), (384, 512))
_TOLERANCE = 0.02  # mean error, as a share of the largest value; rounding is far below, in float16 too


def check_other_sizes(module: nn.Module, segmenter: Segmenter) -> None:
    """Compare a graph with its module at other sizes.

    A module that reads the size of its input in Python may compute something else at another size. A graph is traced at
    one size and cannot. Graphs of fixed size are not compared.

    Raises:
        ExportError: if the graph fails or differs at a size that the module takes.
    """
    spec = segmenter.spec
    if spec.input.size is not None:
        return
    network, k, batch_size = Network(module, spec), spec.input.multiple_of, segmenter.backend.batch_size or 1
    for size in _SIZES:
        height, width = (-(-side // k) * k for side in size)
        batch = example_batch(network, spec, batch_size, (height, width))
        try:
            with torch.inference_mode():
                expected = network(batch)[0].float().cpu().numpy()
        except Exception:  # the user's module may raise anything at a size that it does not take
            continue
        where = f"at {height} x {width} the exported graph"
        remedy = "the module depends on its input's size in Python, or takes other steps: set input.size or multiple_of"
        try:
            output = segmenter.backend.infer(batch.cpu().numpy())[spec.output.name]
        except BackendError as error:
            raise ExportError(f"{where} fails ({error}); {remedy}") from error
        output = upsample_output(output, spec.output)
        if output.shape != expected.shape:
            raise ExportError(f"{where} yields {output.shape}, PyTorch {expected.shape}; {remedy}")
        share = np.abs(output - expected).mean() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
        if not share <= _TOLERANCE:
            raise ExportError(f"{where} is {share:.1%} of the largest value off PyTorch; {remedy}")
