"""The seginfer entry of an .onnx file: read the ModelSpec, put one in, and hold it against the graph."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from .._errors import ModelFileError, SpecError
from .._spec.model_spec import InputSpec, ModelSpec
from .._spec.schema import unstructure
from .._spec.tensor_info import TensorInfo
from .._tasks import task_of
from .onnx_file import OnnxFile, graph_sha256, read_onnx, write_metadata

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
    """Raise a ModelFileError if the graph contradicts the spec."""
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
    _, channels, height, width = info.nchw(spec.layout)
    if isinstance(channels, int) and channels != spec.channels:
        return f"input.color {spec.color!r} ({spec.layout}) has {spec.channels} channels, the graph takes {info.shape}"
    if spec.size is None:
        fixed = [n for n in (height, width) if isinstance(n, int)]
        return f"input.size is null (dynamic), the graph takes {info.shape}" if fixed else None
    for name, expected, got in (("height", spec.size[0], height), ("width", spec.size[1], width)):
        if isinstance(got, int) and got != expected:
            return f"input.size has {name} {expected}, the graph takes {info.shape}"
    return None


def _outputs_problem(spec: ModelSpec, outputs: tuple[TensorInfo, ...]) -> str | None:
    by_name = {info.name: info for info in outputs}
    for output in spec.outputs:
        if output.name not in by_name:
            return f"outputs names {output.name!r}, the graph yields {sorted(by_name)}"
    return task_of(spec).find_problem(by_name)
