"""Engines as the manual of TensorRT for RTX wants them: memory, recordings, and kernels that are compiled once."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import fake_cuda_core
import fake_tensorrt
import numpy as np
import pytest
from engine_cases import edit_sidecar, flip_byte
from fake_tensorrt import REAL
from models import make_spec, save_model

from seginfer import BackendError, EngineOptions, EngineProfile, InputError, Segmenter, build_engine
from seginfer._pipelines import context
from seginfer._tensorrt.engine_file import EngineFile, read_engine, sidecar_path
from seginfer._tensorrt.entries import clear, list_entries
from seginfer._tensorrt.library import RTX, TENSORRT
from seginfer._tensorrt.runtime_cache import runtime_cache_path
from seginfer.backends._tensorrt_execution import LoadedEngine

SIZES = [(64, 64), (40, 56), (128, 128)]

needs_kernels = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineFile]:
    """Build an engine for a range of sizes, of which graphs could keep the wrong kernels."""
    folder = tmp_path_factory.mktemp("engines")
    model = save_model(folder / "m.onnx", make_spec(size=None, multiple_of=8, resize="pad"))
    options = EngineOptions(profiles=(EngineProfile(size=((16, 16), (64, 64), (128, 128))),))
    return model, build_engine(model, folder / "m.engine", options=options)


@pytest.fixture
def engine(built: tuple[Path, EngineFile], tmp_path: Path) -> EngineFile:
    """Return the engine alone in a folder."""
    for copy in (shutil.copy, lambda a, b: shutil.copy(sidecar_path(a), sidecar_path(b))):
        copy(built[1].path, tmp_path / "m.engine")
    return read_engine(tmp_path / "m.engine")


@pytest.fixture
def fakes(
    world: fake_cuda_core.World, engine: EngineFile, built: tuple[Path, EngineFile]
) -> Iterator[fake_tensorrt.Fakes]:
    del world
    with fake_tensorrt.installed() as fakes:
        fakes.knows(engine, built[0])
        yield fakes


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)


def run(engine: EngineFile) -> str:
    """Run images of every size in a new process, as it were, and return how."""
    with Segmenter.open(engine.path) as segmenter, Segmenter.open(engine.path.with_name("m.onnx"), device="cpu") as cpu:
        for _ in range(2):
            for size in SIZES:
                np.testing.assert_array_equal(segmenter(picture(size)).mask, cpu(picture(size)).mask)
        return segmenter.pipeline.description


@pytest.fixture(autouse=True)
def _model(built: tuple[Path, EngineFile], engine: EngineFile) -> None:
    shutil.copy(built[0], engine.path.with_name("m.onnx"))


# ------------------------------------------------------------------------------------------------ kernels are kept


@needs_kernels
def test_a_second_process_compiles_nothing_and_writes_nothing(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    run(engine)
    assert len(fakes.compiled) == len(SIZES)
    file = runtime_cache_path(engine.path)
    before = file.stat()
    assert before.st_mode & 0o777 == 0o600
    fakes.compiled.clear()
    run(engine)
    assert fakes.compiled == []
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@needs_kernels
def test_kernels_are_kept_before_the_engine_is_closed(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    """A robot is switched off, and closes nothing."""
    del fakes
    with Segmenter.open(engine.path) as segmenter:
        segmenter(picture(SIZES[0]))
        assert runtime_cache_path(engine.path).is_file()


def _swap(file: Path) -> None:
    """Replace the cache by that of another engine."""
    from seginfer._tensorrt.runtime_cache import RuntimeCache

    file.unlink()
    cache = RuntimeCache(file.with_suffix(""), "0" * 64, fake_tensorrt.IRuntimeCache())
    cache.cache.fake_kernels.add("EVIL")
    cache.save()
    assert file.is_file()


def _give_away(file: Path) -> None:
    file.chmod(0o666)


@needs_kernels
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: os.truncate(file, 40), id="truncated"),
        pytest.param(lambda file: os.truncate(file, 0), id="empty"),
        pytest.param(lambda file: flip_byte(file, 36), id="flipped bit"),
        pytest.param(_swap, id="of another engine"),
        pytest.param(_give_away, id="others may write it"),
    ],
)
def test_a_cache_that_is_not_ours_or_not_whole_is_ignored_and_replaced(
    damage: Callable[[Path], object],
    engine: EngineFile,
    fakes: fake_tensorrt.Fakes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(engine)
    file = runtime_cache_path(engine.path)
    content = file.read_bytes()
    damage(file)
    fakes.compiled.clear()
    run(engine)
    assert len(fakes.compiled) == len(SIZES)
    assert str(file) in caplog.text
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (content, 0o600)


@needs_kernels
def test_a_cache_of_another_gpu_is_replaced(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    run(engine)
    fakes.environment = "GPU 2"
    fakes.compiled.clear()
    for count in (len(SIZES), 0):
        run(engine)
        assert len(fakes.compiled) == count
        fakes.compiled.clear()


@needs_kernels
def test_links_are_not_followed_and_what_is_no_file_is_left_alone(
    engine: EngineFile, fakes: fake_tensorrt.Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    del fakes
    file, victim = runtime_cache_path(engine.path), engine.path.with_name("victim")
    victim.write_text("precious")
    file.symlink_to(victim)
    run(engine)
    assert victim.read_text() == "precious"
    assert not file.is_symlink()
    file.unlink()
    os.mkfifo(file)
    run(engine)
    assert "cannot be kept" in caplog.text
    assert file.is_fifo()


@needs_kernels
def test_the_cache_of_a_linked_engine_lies_beside_the_engine(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    del fakes
    link = engine.path.with_name("link.engine")
    link.symlink_to(engine.path)
    with Segmenter.open(link) as segmenter:
        segmenter(picture(SIZES[0]))
    assert runtime_cache_path(engine.path).is_file()
    assert not runtime_cache_path(link).exists()


def test_clearing_the_cache_frees_the_kernels_too(engine: EngineFile, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    entry = folder / f"m-{engine.key.digest()[:16]}.engine"
    for path in (engine.path, sidecar_path(engine.path)):
        shutil.copy(path, folder / path.name.replace("m.engine", entry.name))
    runtime_cache_path(entry).write_bytes(b"1234")
    (found,) = list_entries(folder)
    assert found.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert clear(folder).engines == 1
    assert not list(folder.iterdir())


# ------------------------------------------------------------------------------------------- memory and recordings


@needs_kernels
def test_frames_of_a_range_of_sizes_are_graphs_of_their_own_kernels(
    engine: EngineFile, fakes: fake_tensorrt.Fakes, world: fake_cuda_core.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "CUDA graphs" in run(engine)
    assert world.launched
    configure = LoadedEngine._configure

    def forget(self: LoadedEngine) -> object:
        config = configure(self)
        config.dynamic_shapes_kernel_specialization_strategy = REAL.DynamicShapesKernelSpecializationStrategy.LAZY
        return config

    monkeypatch.setattr(LoadedEngine, "_configure", forget)
    run(engine)
    assert set(world.violations) == {"a graph keeps the substitutes of kernels"}
    world.violations.clear()
    assert fakes.is_capturable


@needs_kernels
def test_a_network_that_cannot_be_recorded_runs_call_by_call_and_says_why(
    engine: EngineFile, fakes: fake_tensorrt.Fakes, world: fake_cuda_core.World, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.is_capturable = False
    assert "allows no recording of this network" in f"{run(engine)} {caplog.text}"
    assert not world.captures
    fakes.is_capturable = True
    edit_sidecar(
        engine.path, lambda document: document["content"]["key"]["options"].update(cuda_graph=False), seal=True
    )
    assert "built without CUDA graphs" in f"{run(engine)} {caplog.text}"
    assert not world.captures


@needs_kernels
def test_an_engine_for_graphs_takes_no_memory_of_the_library(
    engine: EngineFile, fakes: fake_tensorrt.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    del fakes
    monkeypatch.setattr(fake_tensorrt.IRuntimeConfig, "set_execution_context_allocation_strategy", lambda *_: None)
    with pytest.raises(BackendError, match="has no memory to run"):
        run(engine)


def test_the_library_says_itself_that_an_engine_for_graphs_takes_no_other_memory() -> None:
    spec = find_spec("tensorrt_rtx_libs")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("TensorRT for RTX is not from its wheel")
    (library,) = Path(spec.submodule_search_locations[0]).glob("libtensorrt_rtx.so.*")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for text in (
            b"Engine was built with BuilderFlag::kREQUIRE_USER_ALLOCATION. Execution context creation requires "
            b"ExecutionContextAllocationStrategy::kUSER_MANAGED allocation strategy.",
            b"BuilderFlag::kREQUIRE_USER_ALLOCATION is not compatible with networks that contain data-dependent",
        ):
            assert content.find(text) > 0


@needs_kernels
def test_without_memory_for_its_settings_an_engine_is_refused(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    fakes.refuses_to = {"create_runtime_config"}
    with pytest.raises(BackendError, match="does not load"):
        Segmenter.open(engine.path)
    assert fakes.live == 0


@needs_kernels
def test_the_library_waits_for_the_device_in_no_steady_frame_and_in_no_recording(
    engine: EngineFile, fakes: fake_tensorrt.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "EXECUTIONS_KEPT", 1)
    with Segmenter.open(engine.path) as segmenter:
        for size in SIZES:
            segmenter(picture(size))
        waits = fakes.waits
        for _ in range(3):
            segmenter(picture(SIZES[-1]))
        assert fakes.waits == waits > len(SIZES)
    assert fakes.waits > waits, "freeing a network waits too"
    assert fakes.waits_in_captures == 0


@needs_kernels
def test_tensorrt_takes_memory_of_seginfer_and_has_no_runtime_cache(
    built: tuple[Path, EngineFile], engine: EngineFile, world: fake_cuda_core.World
) -> None:
    edit_sidecar(engine.path, lambda document: document["content"]["key"].update(library=TENSORRT), seal=True)
    with fake_tensorrt.installed(name=TENSORRT) as fakes:
        fakes.knows(read_engine(engine.path), built[0])
        assert "CUDA graphs" in run(engine)
    assert world.launched
    assert not runtime_cache_path(engine.path).exists()
    assert engine.key.library == RTX


# ------------------------------------------------------------------------------------------ arrays that do not fit


@needs_kernels
def test_arrays_that_do_not_fit_are_refused_and_never_converted(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    """A batch of another dtype has another size than the memory of the network."""
    del fakes
    batch = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    with Segmenter.open(engine.path) as segmenter:
        infer = segmenter.backend.infer
        found = infer(batch)
        kept = {name: array.copy() for name, array in found.items()}
        for wrong, words in (
            (batch.astype(np.float64), "takes batches of float32, got float64"),
            (batch[0], r"4 dimensions, got float32 \(3, 64, 64\)"),
            (batch[..., ::2], "contiguous"),
            (batch.tolist(), "got list"),
        ):
            with pytest.raises(InputError, match=words):
                infer(wrong)
        logits = found["logits"]
        read_only = logits.copy()
        read_only.flags.writeable = False
        for out in ({}, {"logits": logits.astype(np.float64)}, {"logits": logits[..., :1]}, {"logits": read_only}):
            with pytest.raises(InputError, match=r"out\['logits'\] must be a writable array of float32 \(1, "):
                infer(batch, out)
        np.testing.assert_array_equal(infer(batch)["logits"], kept["logits"])


@needs_kernels
def test_tensors_that_the_library_keeps_on_the_host_are_refused(engine: EngineFile, fakes: fake_tensorrt.Fakes) -> None:
    fakes.on_host = {"logits"}
    with pytest.raises(BackendError, match="'logits' in memory of the host"):
        Segmenter.open(engine.path)
    assert fakes.live == 0
