"""export_onnx(): a PyTorch module becomes one .onnx file that carries its spec and its parity certificate."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seginfer._atomic import atomic_path
from seginfer._certificate import Certificate, ParityError
from seginfer._errors import ExportError, InputError
from seginfer._model_file import attach_spec, pipeline_sha256
from seginfer._preprocess import check_image
from seginfer._segmenter import Segmenter
from seginfer._spec import ModelSpec, Provenance
from seginfer.backends.torch import device_of

from ._certify import Progress, certify, versions
from ._network import Network, check_outputs, evaluating
from ._oracle import batches
from ._samples import sample_images
from ._weights import weights_sha256
from .precision import PRECISIONS, Conversion, check_precision

OPSET = 18
IR_VERSION = 8  # all that opset 18 needs; older runtimes on devices refuse newer ones
_MAX_BATCH = 1024
_MAX_SIDE = 16384
_NAMED = 5  # layers in a message

_log = logging.getLogger("seginfer")


def export_onnx(
    module: nn.Module,
    spec: ModelSpec,
    path: str | Path,
    *,
    images: Sequence[NDArray[np.uint8]] | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    on_progress: Progress | None = None,
) -> Certificate:
    """Export a segmentation module to ONNX, and keep the file only if it says what PyTorch says.

    Args:
        module: any module that maps (N, C, h, w) float32 to a tensor, a dict with `out` or `logits`, an object with
            `.logits`, or a tuple. It is left as it was.
        spec: the model's contract; its provenance is filled in.
        path: the .onnx file to write; replaced only on success.
        images: (H, W, 3) uint8 RGB, or (H, W) for a gray model, for the certificate; best from where the model will
            run. None takes synthetic pictures.
        batch_size: bind the graph to this many images; None leaves the batch free.
        precision: "fp32", or "fp16": weights and activations in float16, but for nodes that would overflow or lose
            agreement; inputs stay what the spec says, outputs are float32. Its certificate is measured on a CPU with
            every float16 value rounded; a GPU may add in another order, and round less often in fused kernels.
        on_progress: called with (images compared, images in all); from the start again where a graph is changed after
            a first comparison failed.

    Returns:
        The certificate, which the file carries too.

    Raises:
        ExportError: if the module's output is not what the spec says, or PyTorch cannot export it.
        ParityError: if the exported pipeline disagrees with PyTorch; no file is left behind.
        OutputWriteError: if the file cannot be written; an old file stays intact.
    """
    check_precision(precision)
    _check_module(module)
    images = sample_images(spec.input) if images is None else list(images)
    if not images:
        raise InputError("images is empty; give at least one, or None for synthetic pictures")
    for image in images:
        check_image(image, spec.input)
    with evaluating(module), atomic_path(path) as part:
        network = Network(module, spec)
        # A batch of 2, because torch.export would take 1 for a constant.
        example = _example(spec, batch_size or 2).to(device_of(module))
        check_outputs(network, spec, example)
        graph = _graph(network, spec, example, batch_size)
        conversion = PRECISIONS[precision](graph, batches(images, spec.input))
        while True:
            spec = replace(spec, provenance=_provenance(module, spec, precision, conversion))
            _write(conversion.witness, part)
            attach_spec(part, spec, part)
            with Segmenter.open(part, device="cpu") as segmenter:
                certificate = certify(module, segmenter, images, precision=precision, on_progress=on_progress)
            if certificate.stage != "network" or not conversion.retry():
                break
        if not certificate.passed:
            raise ParityError(_refusal(certificate, path, spec, conversion.suspects), certificate)
        if conversion.model is not conversion.witness:
            _write(conversion.model, part)
            attach_spec(part, spec, part)
            Segmenter.open(part, device="cpu").close()  # it must load too
            certificate = replace(certificate, runtime=f"{certificate.runtime}, {precision} values rounded explicitly")
        certificate = replace(certificate, pipeline_sha256=pipeline_sha256(part, spec))
        attach_spec(part, replace(spec, provenance=replace(spec.provenance, certificate=certificate)), part)
    _log.info("wrote %s: %s", path, certificate.summary())
    return certificate


def _check_module(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a torch.nn.Module, got {type(module).__name__}; build the model first")
    types = {str(tensor.dtype) for tensor in module.parameters() if tensor.is_floating_point()} - {"torch.float32"}
    if types:
        raise InputError(f"the module holds {', '.join(sorted(types))} weights, expected float32; call module.float()")


def _example(spec: ModelSpec, batch_size: int) -> Tensor:
    k = spec.input.multiple_of
    height, width = spec.input.size or (k * -(-96 // k), k * -(-160 // k))
    shape = (batch_size, spec.input.channels, height, width)
    if spec.input.layout == "NHWC":
        shape = (batch_size, height, width, spec.input.channels)
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return (
        (pixels * 255).to(torch.uint8) if spec.input.dtype == "uint8" else pixels.to(getattr(torch, spec.input.dtype))
    )


def _dynamic_shapes(spec: ModelSpec, batch_size: int | None) -> dict[int, Any]:
    """Return which dimensions of the input vary, and in what steps."""
    shapes: dict[int, Any] = {} if batch_size else {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}
    if spec.input.size is None:
        k = spec.input.multiple_of
        first = 2 if spec.input.layout == "NCHW" else 1
        for axis, name in ((first, "height"), (first + 1, "width")):
            if k == 1:
                shapes[axis] = torch.export.Dim(name, min=2, max=_MAX_SIDE)
            else:
                shapes[axis] = k * torch.export.Dim(f"{name}_{k}", min=1, max=_MAX_SIDE // k)
    return shapes


def _graph(network: Network, spec: ModelSpec, example: Tensor, batch_size: int | None) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.input.name],
                output_names=[output.name for output in spec.outputs],
                dynamic_shapes=(_dynamic_shapes(spec, batch_size),),
                verbose=False,
            )
    except Exception as error:  # torch.onnx wraps every failure of the user's module in its own kinds
        cause = _innermost(error)
        if isinstance(cause, KeyboardInterrupt):  # Ctrl-C too
            raise KeyboardInterrupt from error
        raise ExportError(_reason(cause)) from error
    if program is None:
        raise ExportError("torch.onnx.export returned no program; update torch")
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    model.producer_name = "seginfer"
    model.ir_version = IR_VERSION
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and other notes of the exporter: they hold the paths of the machine that exported."""
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for name in ("input", "output", "value_info", "initializer"):
            for value in getattr(graph, name, ()):
                if not isinstance(value, str):  # a function lists its inputs and outputs by name
                    value.doc_string = ""
                    del value.metadata_props[:]
    model.doc_string = ""
    del model.metadata_props[:]


def _write(model: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(model)
        onnx.save_model(model, path)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ExportError(
            f"the exported graph is not a valid ONNX file: {error}; report this with the module"
        ) from error


def _provenance(module: nn.Module, spec: ModelSpec, precision: str, conversion: Conversion) -> Provenance:
    source = spec.provenance.source or f"{type(module).__module__}.{type(module).__qualname__}"
    return Provenance(source, weights_sha256(module), precision, OPSET, versions(), islands=conversion.islands)


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(cause: BaseException) -> str:
    """Say in one line why torch could not export, with a remedy."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return (
        f"PyTorch cannot export the module ({type(cause).__name__}: {lines[0]}); "
        "avoid Python branches on tensor values, or check input.size and input.multiple_of of the spec"
    )


def _refusal(certificate: Certificate, path: str | Path, spec: ModelSpec, suspects: Sequence[str]) -> str:
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
        "undecided": "PyTorch itself hardly decides: check the weights, and give images like those it will see",
        "labels": "export the model with its logits: labels decided inside the graph flip at near-ties",
        "preprocess": "check input.resampling, color, mean and std of the spec",
        "network": "the exported graph computes something else than the module: report this with the module",
        "postprocess": "check outputs.align_corners and stride of the spec",
    }
    return f"{path} was not kept: {certificate.summary()}; {remedies[kind]}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines, log and deprecation warnings away from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
