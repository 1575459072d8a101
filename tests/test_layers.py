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
    "_cli.info",
    "_cli.build _cli.demo _cli.doctor _cli.run",
    "_cli._opening _cli._report _cli.cache _cli.check",
    "_cli._arguments _cli._certificate _cli._inputs _cli._latency _cli._output",
    "seginfer",
    "_segmenter",
    "_pipelines.open",
    "_pipelines.gpu",
    "_pipelines.contexts",
    "_pipelines.frame _pipelines.host",
    "_pipelines _pipelines.layout _pipelines.pipeline _pipelines.workspaces",
    "_tasks.dense.steps",
    "_tasks.dense.launches _tasks.dense.postprocess",
    "_tasks.dense.decode _tasks.dense.segmentation",
    "_tasks _tasks.dense _tasks.dense.outputs _tasks.dense.taps _tasks.regions _tasks.timings",
    "backends",
    "backends.onnxruntime backends.tensorrt",
    "backends._on_device backends._onnxruntime_execution backends.torch",
    "backends._onnxruntime_session backends._protocol backends._tensorrt_execution",
    "_inputs.steps",
    "_inputs.launches",
    "_inputs.preprocess",
    "_inputs _inputs.formats _inputs.taps",
    "_tensorrt _tensorrt.engines",
    "_tensorrt.isolated",
    "_tensorrt.worker",
    "_tensorrt.make",
    "_tensorrt.verify",
    "_tensorrt.inspect",
    "_tensorrt.build _tensorrt.entries",
    "_tensorrt.engine_file _tensorrt.parse",
    "_tensorrt.cache",
    "_tensorrt.key _tensorrt.shapes",
    "_tensorrt.library _tensorrt.options _tensorrt.report",
    "_files.external _files.model_file",
    "_files.onnx_file",
    "_files _files.protobuf",
    "_native",
    "_cuda.steps",
    "_cuda.arena _cuda.graph _cuda.tensors",
    "_cuda.__main__ _cuda.gpu",
    "_cuda _cuda.compiler _cuda.errors _cuda.kernel_args",
    "_geometry.tiles",
    "_geometry _geometry.geometry",
    "_media _media.images _media.video",
    "_spec.model_spec",
    "_spec.certificate",
    "_spec _spec.palettes _spec.schema",
    "_system _system.arrays _system.atomic _system.cache_folder _system.driver _system.limits",
    "_system.optional",
    "_assets",
    "_errors",
    "_ext",
    "_reference.mask _reference.resize",
    "_reference _reference.taps",
    "_version",
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
        ("_cuda.compiler", "from .._tensorrt.cache import entry_lock"),
        ("_errors", "from ._tensorrt.engines import build_engine"),
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
