"""NVIDIA's parser as a gate: what it takes, what it refuses and why, and that no file brings the caller down."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nvidia_models
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from models import SPECS, make_spec, save_model
from nvidia_models import CRASHING, MALFORMED, NEEDS_PLUGIN, SUPPORTED, UNSUPPORTED, Problems, save
from refusal import refuses
from rtx import needs_rtx

from seginfer import BackendError, InputError, MissingFileError, ModelFileError, SegInferError
from seginfer._files.onnx_file import read_nodes
from seginfer._tensorrt import BuildStep, CheckReport, check
from seginfer._tensorrt.library import RTX, find_library
from seginfer.assets import SOCCER


@needs_rtx
@pytest.mark.parametrize("name", SUPPORTED)
def test_a_supported_graph_is_built(name: str, tmp_path: Path) -> None:
    report = check(save(SUPPORTED[name], tmp_path / "m.onnx"))
    assert report.status == "supported"
    assert report.problems == ()
    assert report.kernels == sum(report.kernel_kinds.values()) > 0
    assert report.layers
    assert report.build_s
    assert report.engine_bytes
    assert report.engine_bytes > 10_000
    assert (report.library, report.version) == (RTX, find_library().version)


@needs_rtx
def test_tensors_keep_the_types_and_shapes_of_the_file(tmp_path: Path) -> None:
    tensors = {}
    for name in ("half precision", "half precision throughout", "raw pixels", "any size"):
        report = check(save(SUPPORTED[name], tmp_path / "m.onnx"))
        tensors[name] = [(t.name, t.dtype, t.shape) for t in (*report.inputs, *report.outputs)]
    image, result = (1, 3, 32, 32), (1, 4, 32, 32)
    assert tensors["half precision"] == [("x", "float32", image), ("y", "float32", result)]
    assert tensors["half precision throughout"] == [("x", "float16", image), ("y", "float16", result)]
    assert tensors["raw pixels"] == [("x", "uint8", (1, 32, 32, 3)), ("y", "uint8", (1, 32, 32))]
    assert tensors["any size"] == [("x", "float32", (-1, 3, -1, -1)), ("y", "float32", (-1, 4, -1, -1))]


@needs_rtx
@pytest.mark.parametrize(
    ("status", "make", "expected"),
    [
        *(pytest.param("unsupported", *case, id=name) for name, case in UNSUPPORTED.items()),
        *(pytest.param("needs_plugin", *case, id=name) for name, case in NEEDS_PLUGIN.items()),
    ],
)
def test_every_node_in_the_way_is_named_with_its_reason(
    status: str, make: Callable[[], onnx.ModelProto], expected: Problems, tmp_path: Path
) -> None:
    report = check(save(make, tmp_path / "m.onnx"))
    assert report.status == status
    assert [(problem.name, problem.op) for problem in report.problems] == [case[:2] for case in expected]
    for problem, (_, _, word) in zip(report.problems, expected, strict=True):
        assert word in problem.reason
        assert "\n" not in problem.reason
        assert "/_src/" not in problem.reason
        assert problem.needs_plugin == (status == "needs_plugin")
    assert report.kernels is report.build_s is report.engine_bytes is None
    assert report.problems[0].name in report.summary()


@needs_rtx
def test_one_real_failure_among_plugins_makes_a_file_unsupported(tmp_path: Path) -> None:
    mixed = nvidia_models.model(
        [
            node
            for graph in (nvidia_models.max_pool_with_indices(), NEEDS_PLUGIN["NonZero"][0]())
            for node in graph.graph.node[1:]
        ],
        inputs=[("c", nvidia_models.F32, [1, 4, 8, 8])],
        outputs=[("p", nvidia_models.F32, None), ("y", nvidia_models.I64, None)],
    )
    report = check(save(lambda: mixed, tmp_path / "m.onnx"))
    assert report.status == "unsupported"
    assert [(p.op, p.needs_plugin) for p in report.problems] == [("MaxPool", False), ("NonZero", True)]


@needs_rtx
def test_the_shipped_model_is_supported_for_batches() -> None:
    report = check(SOCCER / "pitch.onnx")
    assert report.status == "supported"
    assert report.nodes == len(read_nodes(SOCCER / "pitch.onnx")) == 49
    (image,) = report.inputs
    assert image.shape == (-1, 3, 192, 320)
    assert (image.min, image.opt, image.max) == ((1, 3, 192, 320), (1, 3, 192, 320), (4, 3, 192, 320))


@needs_rtx
def test_sizes_to_build_for_are_the_multiples_that_the_spec_names(tmp_path: Path) -> None:
    spec = make_spec(size=None, multiple_of=48, resize="pad")
    (image,) = check(save_model(tmp_path / "m.onnx", spec)).inputs
    assert image.min == (1, 3, 96, 96)
    assert image.opt == (1, 3, 528, 528)
    assert image.max == (4, 3, 1056, 1056)


@needs_rtx
def test_every_kind_of_spec_is_supported(tmp_path: Path) -> None:
    for spec in SPECS.values():
        report = check(save_model(tmp_path / "m.onnx", spec))
        assert report.status == "supported", spec


@needs_rtx
@pytest.mark.parametrize("name", CRASHING)
def test_a_file_that_crashes_the_library_is_an_error_and_no_more(name: str, tmp_path: Path) -> None:
    with refuses(BackendError, "m.onnx", "crashed", "onnx.checker"):
        check(save(CRASHING[name], tmp_path / "m.onnx"))


@needs_rtx
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_graph_is_refused(name: str, tmp_path: Path) -> None:
    make, word = MALFORMED[name]
    with refuses(ModelFileError, "m.onnx", word):
        check(save(make, tmp_path / "m.onnx"))


@needs_rtx
def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    whole = save(SUPPORTED["convolution"], path).read_bytes()
    for content in (b"", b"\x89PNG\r\n", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with refuses(ModelFileError, "m.onnx"):
            check(path)
    with refuses(MissingFileError, "nowhere.onnx"):
        check(tmp_path / "nowhere.onnx")


@needs_rtx
def test_weights_in_another_file_are_found_and_missed(tmp_path: Path) -> None:
    onnx.save(
        SUPPORTED["convolution"](), tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    assert check(tmp_path / "m.onnx").status == "supported"
    (tmp_path / "w").unlink()
    with refuses(ModelFileError, "m.onnx", "copy that file too"):
        check(tmp_path / "m.onnx")


@needs_rtx
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@example([(96, 12)])  # a line break in a name
def test_a_damaged_file_ends_in_a_report_or_an_error(tmp_path: Path, damage: list[tuple[int, int]]) -> None:
    content = bytearray(SUPPORTED["raw pixels"]().SerializeToString())
    for place, byte in damage:
        content[place % len(content)] = byte
    (tmp_path / "m.onnx").write_bytes(content)
    try:
        report = check(tmp_path / "m.onnx", timeout_s=60)
    except SegInferError as error:
        said = str(error)
    else:
        assert (report.status == "supported") == (report.problems == ())
        said = f"{report.path}: {report.summary()}"
    assert "m.onnx" in said
    assert "\n" not in said


@needs_rtx
def test_a_check_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    path = save(SUPPORTED["convolution"], tmp_path / "m.onnx")
    start = time.monotonic()
    with refuses(BackendError, "given up after 0.05 s", "give more time"):
        check(path, timeout_s=0.05)
    assert time.monotonic() - start < 60
    with refuses(InputError, "timeout_s"):
        check(path, timeout_s=0)


@needs_rtx
def test_progress_is_told_and_an_exception_from_it_stops_the_check() -> None:
    steps: list[BuildStep] = []
    check(SOCCER / "pitch.onnx", on_progress=steps.append)
    assert steps[0] == BuildStep("Building engine", 0, 0, 6)
    assert steps[-1] == BuildStep("Building engine", 0, 6, 6)

    def interrupt(_: BuildStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(SOCCER / "pitch.onnx", on_progress=interrupt)


@needs_rtx
def test_a_check_says_which_precision_the_kernels_have(tmp_path: Path) -> None:
    precisions = {name: check(save(make, tmp_path / "m.onnx")).precisions for name, make in SUPPORTED.items()}
    assert precisions["convolution"] == precisions["raw pixels"] == precisions["any size"] == {"float32": 1}
    assert precisions["half precision"] == precisions["half precision throughout"] == {"float16": 1}


@needs_rtx
def test_an_engine_that_would_be_refused_makes_a_file_unsupported(tmp_path: Path) -> None:
    spec = make_spec()
    spec = replace(spec, provenance=replace(spec.provenance, precision="fp16"))
    report = check(save_model(tmp_path / "m.onnx", spec))
    assert report.status == "unsupported"
    assert "all 1 layers with weights are float32" in report.summary()


def test_a_check_in_an_install_without_the_libraries_names_the_extra(tmp_path: Path) -> None:
    """The worker's own error comes out of the caller's process."""
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden by a test')\n")
    code = "import sys; from seginfer._cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run([*command, "check", str(SOCCER / "pitch.onnx")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'seginfer[check]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_nodes_are_read_as_onnx_reads_them() -> None:
    graph = onnx.load(SOCCER / "pitch.onnx").graph
    assert [(n.name, n.op, n.domain) for n in read_nodes(SOCCER / "pitch.onnx")] == [
        (n.name, n.op_type, n.domain) for n in graph.node
    ]


def test_a_report_says_its_verdict_in_one_line() -> None:
    report = CheckReport("m.onnx", "supported", RTX, "1.7", 3)
    assert "unknown number of kernels" in report.summary()
