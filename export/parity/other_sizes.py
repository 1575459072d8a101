"""check_other_sizes(): a graph of free height and width says what PyTorch says at sizes that nothing was traced at."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from seginfer._errors import BackendError, ExportError
from seginfer._segmenter import Segmenter

from .._network import Network
from .._program import example_batch
from .dense import upsample_output

# Pixels that sizes are made from: odd and even multiples of small steps, square ones, and one above usual thresholds.
_SIZES = ((100, 100), (131, 67), (67, 131), (384, 512))
_TOLERANCE = 0.02  # mean error relative to the largest value: rounding, in half precision too, is far below


def check_other_sizes(module: nn.Module, segmenter: Segmenter) -> None:
    """Compare a graph with its module at sizes of its own choosing; a graph of fixed size passes.

    A module that asks for its input's size in Python may take another way at another size, of which the graph, traced
    at one, knows nothing.

    Raises:
        ExportError: if the graph fails at a size that the module takes, or says something else there.
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
        except Exception:  # whatever the user's module raises: it does not take this size
            continue
        where = f"at {height} x {width} the exported graph"
        remedy = (
            "the module depends on its input's size in Python, or takes other steps: set input.size, or multiple_of"
        )
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
