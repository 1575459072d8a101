"""Export of a PyTorch module to one certified .onnx file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

from seginfer._errors import ExportError, InputError
from seginfer._files.activation import activation_problem
from seginfer._files.model_file import check_name, pipeline_sha256
from seginfer._inputs.preprocess import preprocess
from seginfer._segmenter import Segmenter
from seginfer._spec.certificate import Certificate, ParityError
from seginfer._spec.model_spec import ModelSpec, Provenance
from seginfer._system.atomic import atomic_path

from . import surgery
from ._graph import OPSET, append_spec, onnx_graph, write_graph
from ._images import Images, select_images
from ._network import Network, check_outputs, eval_mode
from ._program import example_batch, export_program
from ._weights import weights_sha256
from .parity.certify import Progress, certify
from .parity.evidence import versions
from .parity.labels import Labels
from .parity.other_sizes import check_other_sizes
from .parity.user_reference import Reference
from .precision import Conversion, Precision, find_precision

_TILE_REMEDY = (
    "tiles and one pass over the whole image differ: raise input.tile_margin to the radius of the receptive field, set "
    "input.multiple_of to the product of the network's strides; networks that pool over the whole image cannot be tiled"
)
_NAMED = 5  # layers in a message

_log = logging.getLogger("seginfer")


def export_onnx(
    module: nn.Module,
    spec: ModelSpec,
    path: str | Path,
    *,
    images: Images | None = None,
    reference: Reference | None = None,
    labels: Labels | None = None,
    calibration: Sequence[NDArray[np.uint8]] | None = None,
    batch_size: int | None = None,
    split_head: bool = True,
    precision: str = "fp32",
    on_progress: Progress | None = None,
) -> Certificate:
    """Export a segmentation module to a certified ONNX file.

    The file is kept only if its pipeline agrees with PyTorch's.

    Args:
        module: any module that maps (N, C, h, w) float32 to a tensor, a dict with `out` or `logits`, an object with
            `.logits`, or a tuple. It is left as it was.
        spec: the model's contract. Its provenance is filled in.
        path: the .onnx file to write, replaced only on success.
        images: (H, W, 3) uint8 RGB, or (H, W) for a gray model, for the certificate, with names if it is a mapping.
            Best from where the model will run. None takes synthetic pictures.
        reference: your own pipeline, from an image to labels, logits or probabilities, see `certify`.
        labels: class ids by the names of images, see `certify`.
        calibration: images to learn ranges from, for "fp16". An image that is also in `images` is left out. None takes
            every second one of `images` if these are 8 or more, and compares the others. With fewer, ranges are learned
            from synthetic pictures.
        batch_size: bind the graph to this many images. None leaves the batch free.
        split_head: leave a final bilinear upsampling to the mask step, with the same masks.
        precision: "fp32" or "fp16". In fp16, weights and activations are float16, except for nodes that would overflow
            or lose agreement. Inputs have the type of the spec, outputs are float32. The certificate is measured on a
            CPU that rounds every float16 value. A GPU may add in another order, and rounds less in fused kernels.
        on_progress: called with (images compared, images in all). It starts again if a graph is changed after its
            comparison failed.

    Returns:
        The certificate, which is in the file too.

    Raises:
        InputError: if an argument is not as above, or `calibration` is given for "fp32".
        ExportError: if the module is random, its output contradicts the spec, or PyTorch cannot export it.
        ParityError: if the exported pipeline disagrees with PyTorch or the reference. No file is left behind.
        OutputWriteError: if the file cannot be written. An old file stays intact.
    """
    check_name(path)
    target = find_precision(precision)
    _check_module(module)
    compared, calibration = select_images(spec.input, target, images, calibration)
    if target.needs_calibration:
        _log.info("ranges are learned from %d images, parity is measured on %d others", len(calibration), len(compared))
    with eval_mode(module), atomic_path(path) as part:
        network = Network(module, spec)
        example = example_batch(network, spec, batch_size)
        check_outputs(network, spec, example)
        program = export_program(network, spec, example, batch_size)
        spec = _apply_rewrites(program, spec, split_head=split_head)
        conversion = target.convert(onnx_graph(program, spec), _inputs(calibration, spec))
        compare = partial(certify, reference=reference, labels=labels, on_progress=on_progress)
        size, certificate = _measure(module, spec, conversion, target, compared, part, compare)
        if not certificate.passed:
            raise ParityError(_refusal(certificate, path, spec, conversion.suspects), certificate)
        spec = replace(spec, provenance=_provenance(module, spec, precision, conversion))
        if target.simulated:
            size = write_graph(conversion.model, part)
            append_spec(part, size, spec)
            Segmenter.open(part, device="cpu").close()  # it must load too
            certificate = replace(certificate, runtime=f"{certificate.runtime}, {precision} values rounded explicitly")
        certificate = replace(certificate, pipeline_sha256=pipeline_sha256(part, spec))
        append_spec(part, size, replace(spec, provenance=replace(spec.provenance, certificate=certificate)))
    for warning in certificate.warnings:
        _log.warning("%s: %s", Path(path).name, warning)
    _log.info("wrote %s: %s", path, certificate.summary())
    return certificate


def _measure(
    module: nn.Module,
    spec: ModelSpec,
    conversion: Conversion,
    precision: Precision,
    images: Images,
    part: Path,
    compare: Callable[..., Certificate],
) -> tuple[int, Certificate]:
    """Write and measure a graph, and retry while it can change.

    Returns:
        The size of the graph in the file, and its certificate.
    """
    while True:
        size = write_graph(conversion.simulated, part)
        append_spec(part, size, spec)
        if problem := activation_problem(part, spec):
            raise ExportError(problem)
        with Segmenter.open(part, device="cpu") as segmenter:
            check_other_sizes(module, segmenter)
            certificate = compare(module, segmenter, images, precision=precision.name)
        if certificate.stage != "network" or not conversion.retry():
            return size, certificate


def _inputs(images: Sequence[NDArray[np.uint8]], spec: ModelSpec) -> Iterator[NDArray[Any]]:
    """Yield the network inputs of images one by one."""
    for image in images:
        batch, _ = preprocess([image], spec)
        yield from np.split(batch, len(batch))


def _apply_rewrites(program: ExportedProgram, spec: ModelSpec, *, split_head: bool) -> ModelSpec:
    """Rewrite operators that TensorRT lacks, and return the new spec."""
    rewrites = surgery.apply_rewrites(program)
    upsample = surgery.split_head(program, spec) if split_head else None
    if upsample:
        rewrites.append(surgery.Rewrite("", f"final upsampling by {upsample.factor} left to the mask step"))
    for rewrite in rewrites:
        _log.info("surgery: %s: %s", rewrite.module_path or "(outermost module)", rewrite.what)
    provenance = replace(spec.provenance, certificate=None)  # an earlier one belongs to another graph
    outputs = (replace(spec.output, upsample=upsample), *spec.outputs[1:])
    return replace(spec, outputs=outputs, provenance=provenance)


def _check_module(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a torch.nn.Module, got {type(module).__name__}; build the model first")
    types = {str(tensor.dtype) for tensor in module.parameters() if tensor.is_floating_point()} - {"torch.float32"}
    if types:
        raise InputError(f"the module holds {', '.join(sorted(types))} weights, expected float32; call module.float()")


def _provenance(module: nn.Module, spec: ModelSpec, precision: str, conversion: Conversion) -> Provenance:
    source = spec.provenance.source or f"{type(module).__module__}.{type(module).__qualname__}"
    return Provenance(source, weights_sha256(module), precision, OPSET, versions(), fp32_nodes=conversion.fp32_nodes)


def _refusal(certificate: Certificate, path: str | Path, spec: ModelSpec, suspects: Sequence[str]) -> str:
    if certificate.finding:  # it names the cause
        return f"{path} was not kept: {certificate.summary()}"
    if suspects:
        names = ", ".join(suspects[:_NAMED]) + (", ..." if len(suspects) > _NAMED else "")
        return (
            f"{path} was not kept: {certificate.summary()}; {certificate.precision} loses too much in {names}; "
            "export with precision 'fp32'"
        )
    kind: str = "labels" if spec.output.kind == "labels" else certificate.stage or "network"
    if certificate.undecided_share > 0.5:
        kind = "undecided"
    remedies = {
        "undecided": "either PyTorch itself hardly decides (check the weights, and give images like those of the "
        "application), or the exported graph is wrong (report this with the module)",
        "labels": "export the model with its logits: labels decided inside the graph flip at near-ties",
        "preprocess": "check input.resampling, color, mean and std of the spec",
        "network": "the exported graph is wrong: report this with the module",
        "postprocess": "check outputs.align_corners and stride of the spec",
    }
    remedy = remedies[kind]
    if spec.input.resize == "tile" and kind != "preprocess":
        remedy = _TILE_REMEDY if kind != "undecided" else f"{_TILE_REMEDY}; or {remedy}"
    return f"{path} was not kept: {certificate.summary()}; {remedy}"
