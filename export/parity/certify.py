"""Comparison of PyTorch's pipeline with an exported one."""

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

from .._network import eval_mode
from ..precision import find_precision
from ..precision.fp32 import FP32
from .comparison import ParityMetric
from .dense import upsample_output
from .noise_floor import measure_noise_floor
from .torch_reference import ReferenceOutput, TorchReference, crop_tile_outputs

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
    """Compare an exported pipeline with PyTorch's own, stage by stage.

    Args:
        module: the module that was exported. It runs in eval mode, and its mode is restored.
        segmenter: the exported pipeline, opened with the default channel order.
        images: (H, W, 3) uint8 RGB of any sizes, or (H, W) for a gray model.
        precision: of the exported graph.
        on_progress: called with (images done, images in all).

    Returns:
        The certificate. `passed` is True if every limit was met, `stage` names the first stage that diverged.

    Raises:
        InputError: if there is no image, an image does not fit the model, or the precision is unknown.
        ExportError: if PyTorch's own logits are not finite.
    """
    target = find_precision(precision)
    if not images:
        raise InputError("a certificate needs at least one image, got none; give a few from where the model will run")
    metric = ParityMetric(segmenter.spec, target)
    with eval_mode(module):
        reference = TorchReference(module, segmenter.spec, batch_size=segmenter.backend.batch_size or 1)
        for i, image in enumerate(images):
            expected = reference(image)
            _check_values(expected, segmenter.spec, i)
            trace = segmenter.trace(image)
            trace = replace(trace, outputs={segmenter.spec.output.name: _align_output(trace.output, segmenter.spec)})
            metric.update(expected, trace, _align_output(_network_output(segmenter, expected), segmenter.spec))
            if on_progress:
                on_progress(i + 1, len(images))
        certificate = metric.compute()
        if target is FP32 and certificate.stage == "network" and segmenter.spec.output.kind != "labels":
            certificate = metric.compute(measure_noise_floor(module, segmenter, images))
    return replace(certificate, runtime=segmenter.backend.description, versions=versions())


def versions() -> dict[str, str]:
    """Return the versions of the packages in an export."""
    import onnx

    return {
        "seginfer": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _network_output(segmenter: Segmenter, expected: ReferenceOutput) -> NDArray[Any]:
    """Run the exported network on PyTorch's batch."""
    size, name = segmenter.backend.batch_size, segmenter.spec.output.name
    outputs = []
    for i in range(len(expected.batch)):
        one = expected.batch[i : i + 1]
        # In a free batch, an image beside it must not change the result.
        batch = np.repeat(one, size, axis=0) if size else np.concatenate((one, np.flip(one, axis=2)))
        outputs.append(segmenter.backend.infer(batch)[name][:1])
    return np.concatenate(outputs)


def _align_output(output: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """Bring the exported graph's output into the form of PyTorch's."""
    return crop_tile_outputs(upsample_output(output, spec.output), spec)


def _check_values(expected: ReferenceOutput, spec: ModelSpec, index: int) -> None:
    """Raise an ExportError if PyTorch's own output contradicts the spec."""
    output = expected.output
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise ExportError(f"PyTorch's own output for image {index} holds NaN or infinite values; check the weights")
    if spec.output.kind == "probabilities" and not (output.min() >= -_SLACK and output.max() <= 1 + _SLACK):
        raise ExportError(
            f"outputs[0].kind is 'probabilities', PyTorch yields {output.min():.3g}..{output.max():.3g} "
            f"for image {index}; use kind 'logits'"
        )
