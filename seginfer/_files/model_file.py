"""The seginfer entry of an .onnx file: read the ModelSpec, put one in, and hold it against the graph."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from .._errors import ModelFileError, SpecError
from .._geometry.tiles import size_problem
from .._spec.model_spec import InputSpec, Layout, ModelSpec, OutputSpec
from .._spec.schema import unstructure
from .onnx_file import OnnxFile, TensorInfo, graph_sha256, read_onnx, write_metadata

METADATA_KEY = "seginfer"
ENGINE_SUFFIX = ".engine"  # of a file that is built from a model file, see `_tensorrt`

_log = logging.getLogger("seginfer")


@dataclass(frozen=True)
class ModelFile:
    """An .onnx file with its ModelSpec, found consistent with each other."""

    path: Path
    spec: ModelSpec
    graph: OnnxFile


def read_model(path: str | Path) -> ModelFile:
    """Read an .onnx file that carries a ModelSpec.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is truncated, foreign, without a spec, or contradicts its spec.
    """
    graph = read_onnx(path)
    text = graph.metadata.get(METADATA_KEY)
    if text is None:
        raise ModelFileError(
            f"{path} carries no ModelSpec; put one in with `seginfer attach {Path(path).name} spec.json -o out.onnx`"
        )
    try:
        spec = ModelSpec.from_json(text)
    except SpecError as error:
        raise ModelFileError(f"{path} carries an unusable ModelSpec: {error}; attach a corrected one") from error
    check_spec(spec, graph, path)
    return ModelFile(Path(path), spec, graph)


def attach_spec(source: str | Path, spec: ModelSpec, target: str | Path) -> None:
    """Write a copy of the model `source` that carries `spec`; `target` may be `source`.

    A certificate in `spec` that was measured on another pipeline is left out, and the log says so.

    Raises:
        ModelFileError: if the spec contradicts the graph, or `target` would be parted from weights in other files.
    """
    graph = read_onnx(source)
    check_spec(spec, graph, source)
    if graph.has_external_data and Path(source).resolve().parent != Path(target).resolve().parent:
        raise ModelFileError(
            f"{source} keeps weights in files beside it; write the output into the same folder, or make it one file"
        )
    if spec.provenance.certificate is not None and not certificate_matches(source, spec):
        _log.warning("the certificate belongs to another graph or spec and is left out; run `seginfer export` again")
        spec = replace(spec, provenance=replace(spec.provenance, certificate=None))
    write_metadata(source, target, METADATA_KEY, spec.to_json())


def certificate_matches(path: str | Path, spec: ModelSpec) -> bool:
    """Tell whether the certificate inside `spec` was measured on this very pipeline."""
    certificate = spec.provenance.certificate
    return certificate is not None and certificate.pipeline_sha256 == pipeline_sha256(path, spec)


def pipeline_sha256(path: str | Path, spec: ModelSpec) -> str:
    """Return a hash of all that decides masks: the graph, and the spec but for its colours, names and provenance."""
    decisive = {
        "task": spec.task,
        "input": unstructure(spec.input),
        "outputs": unstructure(spec.outputs),
        "ignore_index": spec.classes.ignore_index,
    }
    graph = graph_sha256(path, ignore=METADATA_KEY)
    return hashlib.sha256(f"{graph} {json.dumps(decisive, sort_keys=True)}".encode()).hexdigest()


def check_spec(spec: ModelSpec, graph: OnnxFile, path: str | Path) -> None:
    """Raise a ModelFileError if the graph cannot be what the spec describes."""
    problem = _input_problem(spec.input, graph.inputs) or _outputs_problem(spec, graph.outputs)
    if problem:
        raise ModelFileError(f"{path} contradicts its ModelSpec: {problem}; correct the spec and attach it again")


def _input_problem(spec: InputSpec, inputs: tuple[TensorInfo, ...]) -> str | None:
    if [info.name for info in inputs] != [spec.name]:
        return f"input.name is {spec.name!r}, the graph takes {[info.name for info in inputs]}"
    info = inputs[0]
    if info.dtype != spec.dtype:
        return f"input.dtype is {spec.dtype}, the graph takes {info.dtype}"
    if len(info.shape) != 4:
        return f"input must have 4 dimensions ({spec.layout}), the graph takes {info.shape}"
    _, channels, height, width = _nchw(info.shape, spec.layout)
    if isinstance(channels, int) and channels != spec.channels:
        return f"input.color {spec.color!r} ({spec.layout}) has {spec.channels} channels, the graph takes {info.shape}"
    if spec.size is None:
        fixed = [n for n in (height, width) if isinstance(n, int)]
        return f"input.size is null (dynamic), the graph takes {info.shape}" if fixed else None
    for name, wanted, got in (("height", spec.size[0], height), ("width", spec.size[1], width)):
        if isinstance(got, int) and got != wanted:
            return f"input.size has {name} {wanted}, the graph takes {info.shape}"
    return None


def _outputs_problem(spec: ModelSpec, outputs: tuple[TensorInfo, ...]) -> str | None:
    by_name = {info.name: info for info in outputs}
    for output in spec.outputs:
        if output.name not in by_name:
            return f"outputs names {output.name!r}, the graph yields {sorted(by_name)}"
    return _mask_output_problem(spec, spec.output, by_name[spec.output.name])


def _mask_output_problem(spec: ModelSpec, output: OutputSpec, info: TensorInfo) -> str | None:
    is_integer = info.dtype.startswith(("int", "uint"))
    if is_integer != (output.kind == "labels"):
        return f"outputs[0].kind is {output.kind!r}, the graph yields {info.dtype}"
    if output.kind == "labels":
        return None
    if len(info.shape) != 4:
        return f"outputs[0] must have 4 dimensions ({output.layout}), the graph yields {info.shape}"
    _, channels, height, width = _nchw(info.shape, output.layout)
    if isinstance(channels, int) and channels != spec.num_channels:
        return (
            f"{spec.num_classes} {spec.task} classes need {spec.num_channels} channels, the graph yields {info.shape}"
        )
    if spec.input.resize == "tile":
        return _tile_problem(spec, height, width)
    for wanted, got in zip(spec.input.size or (), (height, width), strict=False):
        if isinstance(got, int) and got * output.graph_stride != wanted:
            upsampled = f" with upsample.factor {output.upsample.factor}" if output.upsample else ""
            return (
                f"outputs[0].stride is {output.stride}{upsampled} for input {spec.input.size}, "
                f"the graph yields {info.shape}"
            )
    return None


def _tile_problem(spec: ModelSpec, height: int | str, width: int | str) -> str | None:
    if spec.input.size is None or not (isinstance(height, int) and isinstance(width, int)):
        return None
    return size_problem(spec.input.size, (height, width), spec.output.graph_stride, spec.input.tile_margin)


def _nchw(shape: tuple[int | str, ...], layout: Layout) -> tuple[int | str, ...]:
    return shape if layout == "NCHW" else (shape[0], shape[3], shape[1], shape[2])
