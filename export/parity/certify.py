"""certify(): run PyTorch's pipeline and the exported one on the same images, and measure how far they are apart."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seginfer._errors import ExportError, InputError
from seginfer._segmenter import Segmenter
from seginfer._spec.certificate import Certificate
from seginfer._spec.model_spec import ModelSpec
from seginfer._version import __version__

from .._network import evaluating
from .comparison import ParityMeter
from .dense import upsampled
from .noise_floor import own_rounding
from .torch_reference import Opinion, Oracle, answered

Image = NDArray[np.uint8]
Progress = Callable[[int, int], None]

_SLACK = 1e-3  # a softmax may sum to a little more than one


def certify(
    module: nn.Module,
    segmenter: Segmenter,
    images: Sequence[Image],
    *,
    precision: str = "fp32",
    on_progress: Progress | None = None,
) -> Certificate:
    """Compare an exported pipeline with PyTorch's own, stage by stage, on real images.

    Args:
        module: the module that was exported; run in eval mode, its mode is restored.
        segmenter: the exported pipeline, opened with the default channel order.
        images: (H, W, 3) uint8 RGB, or (H, W) for a gray model; any sizes.
        precision: of the exported graph.
        on_progress: called with (images done, images in all).

    Returns:
        The certificate; `passed` tells whether every limit was met, `stage` which stage diverged first.

    Raises:
        InputError: if there is no image, or an image is not what the model takes.
        ExportError: if PyTorch's own logits are not finite.
    """
    if not images:
        raise InputError("a certificate needs at least one image, got none; give a few from where the model will run")
    meter = ParityMeter(segmenter.spec, precision)
    with evaluating(module):
        oracle = Oracle(module, segmenter.spec, batch_size=segmenter.backend.batch_size or 1)
        for i, image in enumerate(images):
            opinion = oracle(image)
            _check_values(opinion, segmenter.spec, i)
            trace = segmenter.trace(image)
            trace = replace(trace, outputs={segmenter.spec.output.name: _comparable(trace.output, segmenter.spec)})
            meter.add(opinion, trace, _comparable(_network_output(segmenter, opinion), segmenter.spec))
            if on_progress:
                on_progress(i + 1, len(images))
        certificate = meter.certificate()
        if precision == "fp32" and certificate.stage == "network" and segmenter.spec.output.kind != "labels":
            certificate = meter.certificate(own_rounding(module, segmenter, images))
    return replace(certificate, runtime=segmenter.backend.description, versions=versions())


def versions() -> dict[str, str]:
    """Return the versions of what takes part in an export."""
    import onnx

    return {
        "seginfer": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _network_output(segmenter: Segmenter, opinion: Opinion) -> NDArray[Any]:
    """Run the exported network on PyTorch's batch; in a free batch beside another image, which must not matter."""
    inputs = (opinion.batch[i : i + 1] for i in range(len(opinion.batch)))
    if segmenter.backend.batch_size is not None:
        return np.concatenate([segmenter.infer_one(one) for one in inputs])
    pairs = (np.concatenate((one, np.flip(one, axis=2))) for one in inputs)
    return np.concatenate([segmenter.backend.infer(pair)[segmenter.spec.output.name][:1] for pair in pairs])


def _comparable(output: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """Return of the exported graph's output what PyTorch's own is compared with."""
    return answered(upsampled(output, spec.output), spec)


def _check_values(opinion: Opinion, spec: ModelSpec, index: int) -> None:
    """Refuse PyTorch's own output if the spec cannot be right about it."""
    output = opinion.output
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise ExportError(f"PyTorch's own output for image {index} holds NaN or infinite values; check the weights")
    if spec.output.kind == "probabilities" and not (output.min() >= -_SLACK and output.max() <= 1 + _SLACK):
        raise ExportError(
            f"outputs[0].kind is 'probabilities', PyTorch yields {output.min():.3g}..{output.max():.3g} "
            f"for image {index}; use kind 'logits'"
        )
