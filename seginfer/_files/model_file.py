"""ModelSpec in an .onnx file: read, write, and check against the graph."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .._errors import InputError, ModelFileError, SpecError
from .._spec.model_spec import InputSpec, ModelSpec
from .._spec.schema import unstructure
from .._spec.tensor_info import UNKNOWN_SHAPE, TensorInfo
from .._system.atomic import check_target
from .._tasks import task_of
from .activation import activation_problem
from .external import beside, external_files
from .hashes import with_weights_sha256
from .onnx_file import OnnxFile, graph_sha256, read_onnx, write_metadata

METADATA_KEY = "seginfer"
ENGINE_SUFFIX = ".engine"  # of engines, see `_tensorrt`

_log = logging.getLogger("seginfer")


@dataclass(frozen=True)
class ModelFile:
    """An .onnx file and its ModelSpec, checked for consistency."""

    path: Path
    spec: ModelSpec
    graph: OnnxFile
    weight_files: tuple[Path, ...] = ()
    """Files with external weights."""


def read_model(path: str | Path, *, verify: bool = False) -> ModelFile:
    """Read an .onnx file that carries a ModelSpec.

    Args:
        path: the file.
        verify: read all of it, with external weights, and compare its hash with the certificate's, if it has one.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the file is truncated, foreign, without a spec, contradicts its spec, keeps weights outside
            its folder, or is not the file that its certificate was measured on.
    """
    graph = read_onnx(path)
    text = graph.metadata.get(METADATA_KEY)
    if text is None:
        raise ModelFileError(
            f"{path} has no ModelSpec; add one with `seginfer attach {Path(path).name} spec.json -o out.onnx`"
        )
    try:
        spec = ModelSpec.from_json(text)
    except SpecError as error:
        raise ModelFileError(f"{path} has an unusable ModelSpec: {error}; attach a corrected one") from error
    check_spec(spec, graph, path)
    model = ModelFile(Path(path), spec, graph, tuple(beside(path, name) for name in graph.weight_files))
    if verify:
        verify_certificate(model)
    return model


def verify_certificate(model: ModelFile) -> None:
    """Compare the hash of a model with its certificate, if any.

    External weights count.

    Raises:
        ModelFileError: if they differ, or a file cannot be read.
    """
    certificate = model.spec.provenance.certificate
    if certificate is None or certificate.pipeline_sha256 == _sha256(model.path, model.spec, model.weight_files):
        return
    raise ModelFileError(
        f"{model.path} is not the file that its certificate was measured on: it was damaged or edited; copy or export "
        "it again, or open it with verify=False (--no-verify)"
    )


def attach_spec(source: str | Path, spec: ModelSpec, target: str | Path) -> None:
    """Write a copy of an .onnx file with a ModelSpec.

    A certificate of another pipeline is left out of the copy, with a warning in the log.

    Args:
        source: the .onnx file.
        spec: replaces a spec in the file.
        target: the file to write, which may be `source`.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if `source` is not a complete ONNX model, the spec contradicts the graph, or `target` is in
            another folder than external weights.
        InputError: if `target` has the suffix of an engine.
        OutputWriteError: if the file system refuses.
    """
    check_name(target)
    graph = read_onnx(source)
    check_spec(spec, graph, source)
    if problem := activation_problem(source, spec):
        raise ModelFileError(f"{source} contradicts the ModelSpec: {problem}")
    if graph.weight_files and Path(source).resolve().parent != Path(target).resolve().parent:
        raise ModelFileError(
            f"{source} has weights in other files; write the output into the same folder, or save the model as one file"
        )
    if spec.provenance.certificate is not None and not certificate_matches(source, spec):
        _log.warning("the certificate belongs to another graph or spec and is left out; run `seginfer export` again")
        spec = replace(spec, provenance=replace(spec.provenance, certificate=None))
    write_metadata(source, target, METADATA_KEY, spec.to_json())


def check_name(target: str | Path) -> None:
    """Raise if a model file cannot be written, or would be taken for an engine.

    Raises:
        InputError: if the suffix is that of engines.
        OutputWriteError: as of `check_target`.
    """
    if Path(target).suffix == ENGINE_SUFFIX:
        raise InputError(f"{target} is the name of an engine, expected an .onnx file; `seginfer build` makes engines")
    check_target(Path(target))


def certificate_matches(path: str | Path, spec: ModelSpec) -> bool:
    """Return whether the certificate in `spec` belongs to this pipeline."""
    certificate = spec.provenance.certificate
    return certificate is not None and certificate.pipeline_sha256 == pipeline_sha256(path, spec)


def pipeline_sha256(path: str | Path, spec: ModelSpec) -> str:
    """Return a hash of everything that decides masks.

    This is the graph with its weights, in other files too, and the spec without colours, class names and provenance.
    """
    return _sha256(path, spec, external_files(path))


def _sha256(path: str | Path, spec: ModelSpec, weight_files: Sequence[Path]) -> str:
    decisive = {
        "task": spec.task,
        "input": unstructure(spec.input),
        "outputs": unstructure(spec.outputs),
        "ignore_index": spec.classes.ignore_index,
    }
    graph = with_weights_sha256(graph_sha256(path, ignore=METADATA_KEY), path, weight_files)
    return hashlib.sha256(f"{graph} {json.dumps(decisive, sort_keys=True)}".encode()).hexdigest()


def check_spec(spec: ModelSpec, graph: OnnxFile, path: str | Path) -> None:
    """Check a spec against its graph.

    Raises:
        ModelFileError: if they contradict each other.
    """
    problem = _input_problem(spec.input, graph.inputs) or _outputs_problem(spec, graph.outputs)
    if problem:
        raise ModelFileError(f"{path} contradicts its ModelSpec: {problem}; correct the spec and attach it again")


def _input_problem(spec: InputSpec, inputs: tuple[TensorInfo, ...]) -> str | None:
    if [info.name for info in inputs] != [spec.name]:
        return f"input.name is {spec.name!r}, the graph takes {[info.name for info in inputs]}"
    info = inputs[0]
    if info.dtype not in (spec.dtype, "unknown"):
        return f"input.dtype is {spec.dtype}, the graph takes {info.dtype}"
    if info.shape == UNKNOWN_SHAPE:
        return None
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
