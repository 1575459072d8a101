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
    "_cli.parser",
    "_cli.info _cli.tensorrt_parser",
    "_cli.build _cli.demo _cli.doctor _cli.run",
    "_cli.cache _cli.check _cli.inputs _cli.report",
    "_cli.arguments _cli.certificate _cli.output _cli.output_folder",
    "seginfer",
    "_segmenter",
    "_pipelines.open",
    "_pipelines.gpu",
    "_pipelines.context_pool",
    "_pipelines.context",
    "_pipelines.batches _pipelines.frame _pipelines.host _pipelines.plans",
    "_pipelines _pipelines.layout _pipelines.network _pipelines.pipeline",
    "backends",
    "backends.onnxruntime backends.tensorrt",
    "backends._on_device backends._onnxruntime_execution backends.torch",
    "backends._onnxruntime_session backends._protocol backends._tensorrt_execution",
    "_tensorrt _tensorrt.engines",
    "_tensorrt.isolated",
    "_tensorrt.worker",
    "_tensorrt.make",
    "_tensorrt.entries _tensorrt.verify",
    "_tensorrt.engine_file _tensorrt.inspect _tensorrt.runtime_cache",
    "_tensorrt.build _tensorrt.cache",
    "_tensorrt.key _tensorrt.parse _tensorrt.shapes",
    "_tensorrt.library _tensorrt.options _tensorrt.report",
    "_bench _bench.statistics _bench.turns",
    "_files.model_file",
    "_files.activation _files.hashes",
    "_files.onnx_file",
    "_files.external",
    "_files _files.protobuf",
    "_files.foreign",
    "_tasks",
    "_tasks.dense.task",
    "_tasks.dense.device",
    "_tasks.dense.steps",
    "_tasks.dense.launches _tasks.dense.postprocess",
    "_tasks.dense.decode",
    "_tasks.task",
    "_tasks.segmentation",
    "_tasks.dense _tasks.dense.outputs _tasks.dense.taps _tasks.regions _tasks.timings",
    "_inputs.steps",
    "_inputs.launches",
    "_inputs.preprocess",
    "_inputs.convert",
    "_inputs _inputs.formats _inputs.taps",
    "_native",
    "_reference.mask _reference.resize _reference.yuv",
    "_reference _reference.taps",
    "_cuda.packing _cuda.steps",
    "_cuda.arena _cuda.graph _cuda.mirror _cuda.tensors",
    "_cuda.__main__ _cuda.gpu",
    "_cuda.loader",
    "_cuda.fit",
    "_cuda.arrays _cuda.memory",
    "_cuda.compiler",
    "_cuda.kernels",
    "_cuda _cuda.errors _cuda.kernel_args _cuda.recording",
    "_cuda.nvrtc",
    "_geometry.tiles",
    "_geometry.geometry",
    "_geometry _geometry.axis",
    "_media.images _media.video",
    "_media _media.files",
    "_spec.tensor_info",
    "_spec.model_spec",
    "_spec.output_spec",
    "_spec.certificate _spec.input_spec",
    "_spec _spec.palettes _spec.schema",
    "_system _system.arrays _system.atomic _system.beside _system.driver _system.environment _system.fork",
    "metrics",
    "metrics._boundaries metrics._calibration metrics._confusion metrics._sets",
    "metrics._labels",
    "_errors",
    "_ext",
    "_version",
    "assets",
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
        ("_spec.model_spec", "if TYPE_CHECKING:\n    from .._tasks.dense.decode import Decode"),
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
