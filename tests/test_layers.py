"""The written order of the device half's modules, and planted imports that break it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from layers import imports, modules, violations

import seginfer

PACKAGE = Path(seginfer.__file__).parent

# From the top down. A module imports modules of later lines only, in any way: at its top, inside a function, for type
# checkers, or by a string that names it.
LAYERS = [
    "__main__",
    "_cli",
    "_cli._parser",
    "_cli.demo _cli.run",
    "_cli._opening _cli.doctor _cli.info seginfer",
    "_cli.build _segmenter",
    "_cli.cache _cli.check backends",
    "_cli._output backends.tensorrt",
    "_open_pipeline _tensorrt _tensorrt._engines",
    "_cuda._pipeline _tensorrt._isolated",
    "_cuda._slots _tensorrt._worker",
    "_cuda._frame _tensorrt._check",
    "_cuda._layout _host_pipeline _tasks.dense.steps _tensorrt._make",
    "_inputs.steps _pipeline _tasks.dense.launches _tasks.dense.postprocess _tensorrt._verify",
    "_inputs.launches _tasks.dense.decode _tensorrt._entries _tensorrt._readback",
    "_files.model_file _inputs.preprocess _tasks.dense.segmentation _tasks.dense.taps _tensorrt._build",
    "_tensorrt._engine_file _tensorrt._load backends._on_device backends.onnxruntime backends.torch",
    "_backend _cuda.steps _geometry.tiles _inputs.formats _inputs.taps _native _tasks.dense.outputs",
    "_tensorrt._cache _tensorrt._parse backends._onnxruntime_execution",
    "_cli._report _cuda.arena _cuda.graph _cuda.tensors _geometry.geometry _tensorrt._key",
    "_tensorrt._shapes _tensorrt._start",
    "_cli._certificate _cli._inputs _cuda.__main__ _cuda.gpu _files.external _spec.model_spec",
    "_tensorrt._islands _tensorrt._timing _tensorrt._words",
    "_cuda.compiler _files.onnx_file _media.images _media.video _spec.certificate _tensorrt._library",
    "_tensorrt._options _tensorrt._report",
    "_cli._latency _cuda.errors _files.protobuf _reference.mask _reference.resize _spec.schema",
    "_system.arrays _system.atomic _system.cache_folder _system.driver _system.limits _system.optional",
    "backends._onnxruntime_session",
    "_assets _cli._arguments _cuda _cuda.kernel_args _errors _ext _files _geometry _inputs _media",
    "_reference _reference.taps _spec _spec.palettes _system _tasks _tasks.dense _tasks.regions",
    "_tasks.timings _tensorrt._kernels _version _workspaces",
]


def test_every_import_goes_down_the_layers() -> None:
    assert violations(PACKAGE, LAYERS) == []


def test_the_graph_sees_most_imports() -> None:
    """Guard the check itself: an empty graph has no violations."""
    found = {(one.source, one.target) for one in imports(PACKAGE)}
    assert len(found) > 3 * len(modules(PACKAGE))
    assert ("_native", "_ext") in found


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("_cuda.compiler", "from .._tensorrt._cache import EngineCache"),
        ("_errors", "from ._tensorrt._engines import build_engine"),
        ("_cli.run", "from ..export import export_onnx"),
        ("_cli.run", "from seginfer import export"),
        ("_cli.run", "def later():\n    import_module('seginfer.export')"),
        ("_tasks.dense.postprocess", "def later():\n    from ..._segmenter import Segmenter"),
        ("_spec.model_spec", "if TYPE_CHECKING:\n    from .._tasks.dense.decode import Results"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, module: str, code: str) -> None:
    copy = tmp_path / "seginfer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("export", "include", "soccer", "__pycache__", "*.so"))
    path = modules(copy)[module]
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{code}\n", encoding="utf-8")
    (problem,) = violations(copy, LAYERS)
    assert module in problem


def test_a_new_module_must_be_given_a_layer(tmp_path: Path) -> None:
    copy = tmp_path / "seginfer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("export", "include", "soccer", "__pycache__", "*.so"))
    (copy / "_cli" / "new.py").write_text('"""A module."""\n', encoding="utf-8")
    assert violations(copy, LAYERS) == ["_cli.new is in no layer"]
