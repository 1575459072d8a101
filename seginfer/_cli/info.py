"""`seginfer info` and `seginfer attach`."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from .._errors import BackendError, BackendUnavailableError, ModelFileError
from .._files.activation import value_problem
from .._files.model_file import (
    ENGINE_SUFFIX,
    METADATA_KEY,
    ModelFile,
    attach_spec,
    certificate_matches,
    check_spec,
    read_model,
)
from .._files.onnx_file import OnnxFile, read_onnx
from .._inputs.formats import pattern_image
from .._segmenter import Segmenter
from .._spec.model_spec import InputSpec, ModelSpec, Provenance
from .._spec.tensor_info import TensorInfo
from .._tensorrt.engine_file import EngineFile, read_engine
from ..backends import open_backend
from .build import engine_data, show_engine
from .certificate import certificate_rows
from .output import Output

_PATTERN_HW = 256, 256
_log = logging.getLogger(__name__)


def info(args: argparse.Namespace, output: Output) -> int:
    """Show a model file, or the report of an engine."""
    if args.model.suffix == ENGINE_SUFFIX:
        engine = read_engine(args.model)
        output.result(engine_data(engine), lambda: _show_engine(output, engine))
        return 0
    graph = read_onnx(args.model)
    if METADATA_KEY not in graph.metadata:
        output.result(
            {"path": args.model, **_graph_data(graph), "spec": None},
            lambda: _show_graph(output, graph, "no ModelSpec in this file; add one with `seginfer attach`"),
        )
        return 0
    spec = read_model(args.model).spec
    is_own = certificate_matches(args.model, spec)
    data = {"path": args.model, **_graph_data(graph), "spec": json.loads(spec.to_json()), "certificate_matches": is_own}
    output.result(data, lambda: _show(output, graph, spec, is_own))
    return 0


def attach(args: argparse.Namespace, output: Output) -> int:
    """Write a copy of a model file with a spec."""
    spec = ModelSpec.load(args.spec)
    _check_values(args.model, spec)
    attach_spec(args.model, spec, args.output)
    output.result({"path": args.output}, lambda: output.say(f"wrote {args.output}"))
    return 0


def _check_values(path: Path, spec: ModelSpec) -> None:
    """Run a network once and compare its values with the kind of the mask output.

    Raises:
        ModelFileError: if logits are probabilities, or vice versa.
    """
    graph = read_onnx(path)
    check_spec(spec, graph, path)
    image = pattern_image(spec.input.size or _PATTERN_HW, "gray" if spec.input.color == "gray" else "rgb")
    try:
        with Segmenter(spec, open_backend(ModelFile(path, spec, graph, ()), device="cpu")) as segmenter:
            trace = segmenter.trace(image)
    except (BackendError, BackendUnavailableError) as error:  # it may be for another runtime alone
        _log.warning("the values of the network were not checked: %s", error)
        return
    if problem := value_problem(trace.output, spec):
        raise ModelFileError(f"{path} contradicts the ModelSpec: {problem}")


def _show_engine(output: Output, engine: EngineFile) -> None:
    show_engine(output, engine)
    output.table("spec", ("", "value"), _spec_rows(engine.spec))


def _graph_data(graph: OnnxFile) -> dict[str, Any]:
    return {
        "inputs": [vars(tensor) for tensor in graph.inputs],
        "outputs": [vars(tensor) for tensor in graph.outputs],
        "opset": graph.opset,
    }


def _show_graph(output: Output, graph: OnnxFile, note: str = "") -> None:
    rows = [("input", *_cells(tensor)) for tensor in graph.inputs]
    rows += [("output", *_cells(tensor)) for tensor in graph.outputs]
    output.table(f"graph, opset {graph.opset}", ("", "name", "shape", "dtype"), rows)
    if note:
        output.say(note)


def _cells(tensor: TensorInfo) -> tuple[str, str, str]:
    return tensor.name, " x ".join(map(str, tensor.shape)), tensor.dtype


def _show(output: Output, graph: OnnxFile, spec: ModelSpec, certificate_is_own: bool) -> None:
    _show_graph(output, graph)
    output.table("spec", ("", "value"), _spec_rows(spec))
    certificate = spec.provenance.certificate
    if certificate is None:
        output.say("no parity certificate in this file; `seginfer parity` compares it with PyTorch")
        return
    output.table("parity certificate", ("", "value"), certificate_rows(certificate))
    if not certificate_is_own:
        output.say("WARNING: the certificate belongs to another graph or spec; run `seginfer export` again")


def _resize(spec: InputSpec) -> str:
    if spec.resize != "tile":
        return f"{spec.resize}, {spec.resampling} resampling"
    height, width = spec.tile_step
    return f"tile: step {height} x {width}, margin {spec.tile_margin}, mirrored"


def _spec_rows(spec: ModelSpec) -> list[tuple[str, object]]:
    i, o, p = spec.input, spec.output, spec.provenance
    size = f"{i.size[0]} x {i.size[1]}" if i.size else f"any multiple of {i.multiple_of}"
    names = [f"{k} {name}" for k, name in enumerate(spec.classes.names[:24])]
    more = ["..."] if spec.num_classes > len(names) else []
    return [
        ("task", spec.task),
        ("input", f"{size}, {i.color}, {i.layout} {i.dtype}"),
        ("resize", _resize(i)),
        ("normalise", f"(pixel * {i.scale:.6g} - {list(i.mean)}) / {list(i.std)}"),
        ("output", f"{o.name}: {o.kind}, {o.layout}, stride {o.graph_stride}, align_corners {o.align_corners}"),
        *([("in the mask step", f"upsampling by {o.upsample.factor}")] if o.upsample else []),
        ("classes", ", ".join(names + more)),
        ("source", p.source or "unknown"),
        ("precision", _precision(p)),
        ("weights sha256", p.weights_sha256 or "unknown"),
        ("versions", ", ".join(f"{name} {version}" for name, version in p.versions.items()) or "unknown"),
    ]


def _precision(provenance: Provenance) -> str:
    fp32_nodes = ", ".join(f"{len(names)} {reason}" for reason, names in provenance.fp32_nodes.items())
    return (provenance.precision or "unknown") + (f"; nodes in float32: {fp32_nodes}" if fp32_nodes else "")
