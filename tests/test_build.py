"""Engines built by TensorRT for RTX: options, progress, timing caches, and refusals that leave nothing behind."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nvidia_models
import pytest
from models import make_spec, save_model
from refusal import refuses
from rtx import needs_rtx

from seginfer import BackendError, InputError, MissingFileError, OutputWriteError
from seginfer._errors import BackendUnavailableError, MissingDependencyError
from seginfer._spec.schema import structure, unstructure
from seginfer._tensorrt import BuildError, BuildStep, EngineOptions, EngineReport, ShapeRange, check, isolated, make
from seginfer._tensorrt.build import build_network, create_config, explain_failure, load_timing_cache
from seginfer._tensorrt.isolated import build_isolated, scratch_copy
from seginfer._tensorrt.library import RTX, TENSORRT, Library, Message, find_library
from seginfer._tensorrt.parse import ParsedNetwork, parse
from seginfer.assets import SOCCER

PITCH = SOCCER / "pitch.onnx"
IMAGE = (3, 192, 320)

pytestmark = needs_rtx


def fixed(*shape: int) -> ShapeRange:
    return ShapeRange(shape, shape, shape)


def parsed_pitch(library: Library | None = None) -> ParsedNetwork:
    return parse(library or find_library(), PITCH)


ONE = [{"image": fixed(1, *IMAGE)}]


def test_an_engine_is_written_and_described(tmp_path: Path) -> None:
    report = build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine")
    assert (report.library, report.version) == (RTX, find_library().version)
    assert (tmp_path / "p.engine").stat().st_size == report.engine_bytes > 1_000_000
    assert report.profiles == (fixed(1, *IMAGE),)
    assert report.precisions == {"float32": 23}
    assert report.weighted_layers == 23
    assert report.kernels == sum(report.kernel_kinds.values()) == 33
    assert report.layers == 49
    assert report.evidence == "build log"
    assert report.weights_bytes is not None
    assert report.activation_bytes is not None
    assert report.weights_bytes > 1_000_000 < report.activation_bytes
    assert [(t.name, t.dtype, t.shape) for t in report.inputs] == [("image", "float32", (-1, *IMAGE))]
    assert structure(EngineReport, unstructure(report), "report") == report
    assert [path.name for path in tmp_path.iterdir()] == ["p.engine"]


def test_operators_that_the_parser_lacks_are_named(tmp_path: Path) -> None:
    for cases in (nvidia_models.UNSUPPORTED, nvidia_models.NEEDS_PLUGIN):
        make, problems = next(iter(cases.values()))
        path = nvidia_models.save(make, tmp_path / "m.onnx")
        with pytest.raises(BuildError) as caught:
            build_isolated(path, EngineOptions(), tmp_path / "m.engine")
        assert problems[0][2] in caught.value.reason
        with refuses(BackendError, "m.onnx", *problems[0][:2]):
            raise caught.value


def test_hardware_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with refuses(InputError, "options.dla_core is 0", "sees 0 DLA cores"):
        build_isolated(PITCH, EngineOptions(dla_core=0), tmp_path / "p.engine")
    with pytest.raises(MissingDependencyError, match=r"TensorRT builds engines on an NVIDIA GPU .* 'tensorrt_rtx'"):
        build_isolated(PITCH, EngineOptions(library="tensorrt"), tmp_path / "p.engine")
    with pytest.raises(BackendUnavailableError, match="cuda:3"):
        build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine", device_id=3)
    assert not list(tmp_path.iterdir())


def test_files_and_folders_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with refuses(MissingFileError, "nowhere.onnx"):
        build_isolated(tmp_path / "nowhere.onnx", EngineOptions(), tmp_path / "p.engine")
    with pytest.raises(OutputWriteError, match="nowhere"):
        build_isolated(PITCH, EngineOptions(), tmp_path / "nowhere" / "p.engine")
    with refuses(BackendError, "given up after 0.05 s", "fewer profiles"):
        build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine", timeout_s=0.05)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_fails_is_reported_as_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_START", "import sys; sys.exit('broken')")
    with refuses(BackendError, "could not be built (broken)"):
        build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine")
    with refuses(BackendError, "could not be checked (broken)"):
        check(PITCH)


def test_a_name_that_nvidia_cannot_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.onnx")
    shutil.copy(PITCH, path)
    with refuses(InputError, "not UTF-8", "rename it"):
        build_isolated(path, EngineOptions(), tmp_path / "p.engine")
    with refuses(InputError, "not UTF-8", "rename it"):
        check(path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_engine_that_the_gpu_here_does_not_load_is_built_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU, the library refuses to load its engine just as on one that it does not support."""
    monkeypatch.setattr(make, "has_gpu", lambda: True)
    warnings: list[str] = []
    target = tmp_path / "p.engine"
    report = make.build_in_process(
        PITCH, EngineOptions(), target, None, on_stage=lambda _: None, on_warning=warnings.append
    )
    (warning,) = warnings
    assert "cannot load the engine on this machine's GPU: " in warning
    assert "no reason given" not in warning
    assert report.evidence == "build log"
    assert target.stat().st_size == report.engine_bytes


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", make_spec(size=None, resize="pad"))
    code = (
        "import logging, sys; from pathlib import Path; logging.basicConfig(level='INFO');"
        "from seginfer._tensorrt import EngineOptions, EngineProfile;"
        "from seginfer._tensorrt.isolated import build_isolated;"
        "options = EngineOptions(profiles=tuple(map(EngineProfile.fixed, range(1, 200))));"
        "build_isolated(sys.argv[1], options, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "m.engine")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        assert any("building" in line for line in parent.stderr or ())
        (worker,) = _workers(parent.pid)
        time.sleep(0.5)
        assert _is_running(worker)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(worker)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_option_reaches_the_builder() -> None:
    parsed = parsed_pitch()
    pools, usual = parsed.library.module.MemoryPoolType, create_config(parsed, ONE, EngineOptions())
    options = EngineOptions(workspace_mb=16, optimization_level=5, max_aux_streams=0, cuda_graph=False)
    config = create_config(parsed, ONE * 2, options)
    assert (usual.num_optimization_profiles, config.num_optimization_profiles) == (1, 2)
    assert (usual.builder_optimization_level, config.builder_optimization_level) == (3, 5)
    assert config.max_aux_streams == 0
    assert config.get_memory_pool_limit(pools.WORKSPACE) == 16 << 20
    assert usual.get_memory_pool_limit(pools.WORKSPACE) != 16 << 20
    flags = parsed.library.module.BuilderFlag
    assert not usual.get_flag(flags.TF32)
    assert (usual.get_flag(flags.REQUIRE_USER_ALLOCATION), config.get_flag(flags.REQUIRE_USER_ALLOCATION)) == (1, 0)


def test_progress_is_told_phase_by_phase_inside_of_phases(tmp_path: Path) -> None:
    steps: list[BuildStep] = []
    build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine", on_progress=steps.append)
    assert steps[0] == BuildStep("Building engine", 0, 0, 6)
    assert max(step.depth for step in steps) >= 2
    open_phases: dict[str, BuildStep] = {}
    for step in steps:
        before = open_phases.pop(step.phase, None)
        if before is None:
            assert step.done == 0
            assert step.depth == 0 or step.depth - 1 in {phase.depth for phase in open_phases.values()}
        else:
            assert (step.depth, step.total) == (before.depth, before.total)
            assert before.done <= step.done <= step.total
        if before is None or step.done < step.total:
            open_phases[step.phase] = step
    assert open_phases == {}


def test_an_exception_from_progress_ends_the_build_and_leaves_the_old_engine(tmp_path: Path) -> None:
    (tmp_path / "p.engine").write_bytes(b"old")

    def interrupt(_: BuildStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine", on_progress=interrupt)
    assert (tmp_path / "p.engine").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["p.engine"]
    assert not _workers()


def _workers(parent: int | None = None) -> list[str]:
    pid = parent or os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_an_exception_from_progress_comes_out_of_the_builder_itself() -> None:
    parsed = parsed_pitch()
    calls = []

    def interrupt(step: BuildStep) -> None:
        calls.append(step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_network(parsed, ONE, on_progress=interrupt)
    assert len(calls) == 1
    assert len(build_network(parsed, ONE).engine) > 100_000


def test_a_network_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    make = nvidia_models.NEEDS_PLUGIN["NonMaxSuppression"][0]
    parsed = parse(find_library(), nvidia_models.save(make, tmp_path / "m.onnx"))
    assert parsed.problems == ()
    with refuses(BackendError, "no runners"):
        build_network(parsed, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
            ("ran out of the GPU's memory", "workspace_mb", "smaller batch"),
        ),
        (
            "[executionContext.cpp::initialize::560] Error Code 2: OutOfMemory (Requested size was 4 bytes.)",
            ("ran out of the GPU's memory", "other processes"),
        ),
        (
            "[optimizer.cpp::computeCosts::4048] Error Code 10: Internal Error (Could not find any implementation for "
            "node head/Conv due to insufficient workspace. See verbose log for requested sizes.)",
            ("head/Conv", "raise workspace_mb"),
        ),
        (
            "IBuilder::build: Error Code 4: API Usage Error (BuilderFlag::kREQUIRE_USER_ALLOCATION is not "
            "compatible with networks that contain data-dependent dynamic shapes or other features that prevent stream "
            "capture. The Myelin graph is not stream capturable, which means runtime allocation is required. )",
            ("cannot build for CUDA graphs", "data-dependent dynamic shapes", "--no-cuda-graph"),
        ),
        ("", ("no reason given",)),
    ],
)
def test_failures_with_a_remedy_are_told_apart(text: str, words: tuple[str, ...]) -> None:
    with refuses(BackendError, *words):
        raise explain_failure(find_library(), [Message("ERROR", text)])


def test_a_timing_cache_is_made_and_one_that_is_refused_is_replaced() -> None:
    """TensorRT for RTX keeps this part of the API and refuses every cache; it is never asked to, but for this test."""
    library = Library(TENSORRT, find_library().module)
    built = build_network(parsed_pitch(library), ONE)
    assert built.timing_problem == ""
    assert len(built.timing_cache) > 20
    again = build_network(parsed_pitch(library), ONE, timing_cache=b"garbage")
    assert "timing cache" in again.timing_problem
    assert len(again.timing_cache) > 20
    config = create_config(parsed_pitch(), ONE, EngineOptions())
    assert load_timing_cache(library, config, b"") == ""


def test_tensorrt_for_rtx_is_not_asked_for_a_timing_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "timing").write_bytes(b"of another library")
    with caplog.at_level(logging.WARNING, logger="seginfer"):
        build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine", timing_cache=tmp_path / "timing")
    assert caplog.messages == []
    assert (tmp_path / "timing").read_bytes() == b"of another library"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.engine", "timing"]


def test_a_timing_cache_is_kept_when_the_build_succeeds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept, beside = tmp_path / "timing", tmp_path / "part"
    with scratch_copy(kept, beside) as scratch:
        assert scratch is not None
        assert not scratch.exists()
        scratch.write_bytes(b"first")
    assert kept.read_bytes() == b"first"
    killed = scratch_copy(kept, beside)
    scratch = killed.__enter__()
    assert scratch is not None
    assert scratch.read_bytes() == b"first"
    scratch.write_bytes(b"half writ")
    assert killed.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert kept.read_bytes() == b"first"
    with scratch_copy(tmp_path / "nowhere" / "timing", beside) as scratch:
        assert scratch is not None
        scratch.write_bytes(b"second")
    assert "nowhere/timing cannot be used" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["timing"]


def test_a_timing_cache_hides_no_error_of_the_build(tmp_path: Path) -> None:
    timing = tmp_path / "timing"
    with refuses(MissingFileError, "nowhere.onnx"):
        build_isolated(tmp_path / "nowhere.onnx", EngineOptions(), tmp_path / "p.engine", timing_cache=timing)
    with pytest.raises(OutputWriteError, match="nowhere"):
        build_isolated(PITCH, EngineOptions(), tmp_path / "nowhere" / "p.engine", timing_cache=timing)
    timing.mkdir()  # which no cache is
    assert build_isolated(PITCH, EngineOptions(), tmp_path / "p.engine", timing_cache=timing).kernels == 33


def test_builds_at_once_do_not_meet(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda i: build_isolated(PITCH, EngineOptions(), tmp_path / f"{i}.engine"), range(2)))
    assert reports[0].kernels == reports[1].kernels
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.engine", "1.engine"]
