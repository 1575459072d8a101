"""Comparison of PyTorch's pipeline with an exported one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from seginfer._errors import ExportError, InputError
from seginfer._segmenter import Segmenter
from seginfer._spec.certificate import Certificate
from seginfer._spec.model_spec import ModelSpec

from .._behaviour import check_repeatable, find_batch_dependence
from .._images import Image, Images, name_images
from .._network import Network, check_outputs, eval_mode
from .._program import example_batch
from ..precision import Precision, find_precision
from ..precision.fp32 import FP32
from .comparison import ParityMetric
from .dense import upsample_output
from .diagnosis import compare_inputs, diagnose
from .evidence import evidence
from .labels import Labels, score_labels
from .lints import Lints
from .noise_floor import measure_noise_floor
from .torch_reference import ReferenceOutput, TorchReference, crop_tile_outputs
from .user_reference import Answer, Reference, UserMetric, UserReference

Progress = Callable[[int, int], None]

_SLACK = 1e-3  # a softmax may sum to a little more than one
_KEPT = 4  # answers of the user's pipeline, to search the cause of a difference


def certify(
    module: nn.Module | None,
    segmenter: Segmenter,
    images: Images,
    *,
    precision: str = "fp32",
    reference: Reference | None = None,
    labels: Labels | None = None,
    on_progress: Progress | None = None,
) -> Certificate:
    """Compare an exported pipeline with PyTorch's own, stage by stage.

    Args:
        module: the module that was exported. It runs in eval mode, and its mode is restored. None compares with the
            reference alone, for a graph from elsewhere.
        segmenter: the exported pipeline, opened with the default channel order.
        images: (H, W, 3) uint8 RGB of any sizes, or (H, W) for a gray model. A mapping gives them names.
        precision: of the exported graph.
        reference: your own pipeline, from one image of this form to integer labels (H, W), or to logits or
            probabilities (C, H, W), all at the size of the image, as an array or a tensor. Without it, the spec is
            believed. With it, a wrong mean or channel order fails.
        labels: (H, W) class ids by the names of images. They do not decide whether the certificate passes. A low mean
            IoU is a warning that names a usual mistake, if one explains it.
        on_progress: called with (images done, images in all).

    Returns:
        The certificate. `passed` is True if every limit was met, `stage` names the first stage that diverged.

    Raises:
        InputError: if there is no image, an image does not fit the model, or the precision is unknown. If there is
            neither module nor reference.
        ExportError: if PyTorch's own logits are not finite, the module or the reference is random, fails, or its output
            contradicts the spec.
    """
    target, named, spec = find_precision(precision), name_images(images), segmenter.spec
    if not named:
        raise InputError("a certificate needs at least one image, got none; give a few from where the model will run")
    if module is None and reference is None:
        raise InputError("a certificate needs the module or a reference, got neither; give one of them")
    if module is None and spec.input.resize == "tile":
        raise InputError("tiles are compared with one pass of the module over the whole image; give the module")
    with eval_mode(module) if module is not None else nullcontext():
        if module is not None:
            _check_module(module, segmenter)
        comparison = _Comparison(module, segmenter, target, reference)
        for i, (name, image) in enumerate(named.items()):
            comparison.update(name, image)
            if on_progress:
                on_progress(i + 1, len(named))
        certificate = comparison.compute(named)
        if labels is not None:
            score = score_labels(module, segmenter, named, labels)
            warnings = (*certificate.warnings, *filter(None, [score.warning]))
            certificate = replace(certificate, labels_mean_iou=score.mean_iou, warnings=warnings)
    return replace(certificate, runtime=segmenter.backend.description, **evidence(named, spec.input))


class _Comparison:
    """Pipelines to compare, and their differences so far."""

    def __init__(
        self, module: nn.Module | None, segmenter: Segmenter, target: Precision, reference: Reference | None
    ) -> None:
        spec = segmenter.spec
        self._module, self._segmenter, self._target = module, segmenter, target
        network = segmenter.backend if module is None else module
        self._torch = TorchReference(network, spec, batch_size=segmenter.backend.batch_size or 1)
        self._metric, self._lints = ParityMetric(spec, target), Lints(spec)
        self._user = None if reference is None else UserReference(reference, spec)
        self._user_metric = UserMetric(spec, target.limits)
        self._answers: dict[str, Answer] = {}

    def update(self, name: str, image: Image) -> None:
        """Compare one image."""
        segmenter, spec = self._segmenter, self._segmenter.spec
        expected = self._torch(image)
        _check_values(expected, spec, name)
        trace = segmenter.trace(image)
        trace = replace(trace, outputs={spec.output.name: _align_output(trace.output, spec)})
        self._metric.update(expected, trace, _align_output(_network_output(segmenter, expected), spec))
        self._lints.update(image, expected, trace)
        if self._user is not None:
            answer = self._user(image)
            self._user_metric.update(answer, trace)
            if len(self._answers) < _KEPT:
                self._answers[name] = answer

    def compute(self, images: dict[str, Image]) -> Certificate:
        """Return the certificate of all images."""
        module, segmenter = self._module, self._segmenter
        if self._lints.is_softmax() and segmenter.spec.output.kind == "logits":
            raise ExportError(
                "outputs[0].kind is 'logits', but all outputs lie in 0..1 and sum to 1: use kind='probabilities'"
            )
        if self._lints.is_sigmoid():
            raise ExportError(
                "outputs[0].kind is 'logits', but all outputs lie in 0..1 and every pixel is set: use "
                "kind='probabilities', or check the weights"
            )
        certificate = self._metric.compute()
        if module is not None and self._target is FP32 and certificate.stage == "network":
            if segmenter.spec.output.kind != "labels":
                certificate = self._metric.compute(measure_noise_floor(module, segmenter, list(images.values())))
            certificate = _name_batch_dependence(certificate, module, segmenter)
        certificate = replace(certificate, has_module=module is not None, warnings=self._lints.warnings(module))
        if self._user is None:
            return certificate
        certificate = self._user_metric.add_to(certificate, self._user.name)
        if not certificate.passed:
            return certificate
        if self._user_metric.passes():
            # A small mistake leaves nearly all labels as they are.
            is_same, told = compare_inputs(segmenter, images, self._answers)
            warnings = (f"the masks agree, but {told}",) if is_same is False else ()
            return replace(certificate, warnings=(*certificate.warnings, *warnings))
        stage, finding = diagnose(module, segmenter, images, self._answers, self._user_metric)
        return replace(certificate, passed=False, stage=stage, finding=finding)


def _check_module(module: nn.Module, segmenter: Segmenter) -> None:
    """Raise an ExportError if a module is random, or its output contradicts the spec."""
    network = Network(module, segmenter.spec)
    batch = example_batch(network, segmenter.spec, segmenter.backend.batch_size or 1)
    check_outputs(network, segmenter.spec, batch)
    check_repeatable(module, network.module_input(batch))


def _name_batch_dependence(certificate: Certificate, module: nn.Module, segmenter: Segmenter) -> Certificate:
    """Add the cause if the module itself mixes the images of a batch."""
    if certificate.passed or certificate.finding or segmenter.backend.batch_size:
        return certificate
    network = Network(module, segmenter.spec)
    part = find_batch_dependence(module, network.module_input(example_batch(network, segmenter.spec, 1)))
    if not part:
        return certificate
    finding = f"in PyTorch itself, {part} makes an image's result depend on its batch: export with batch_size=1"
    return replace(certificate, finding=finding)


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


def _check_values(expected: ReferenceOutput, spec: ModelSpec, name: str) -> None:
    """Raise an ExportError if PyTorch's own output contradicts the spec."""
    output = expected.output
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise ExportError(f"PyTorch's own output for {name} holds NaN or infinite values; check the weights")
    if spec.output.kind == "probabilities" and not (output.min() >= -_SLACK and output.max() <= 1 + _SLACK):
        raise ExportError(
            f"outputs[0].kind is 'probabilities', PyTorch yields {output.min():.3g}..{output.max():.3g} "
            f"for {name}; use kind 'logits'"
        )
