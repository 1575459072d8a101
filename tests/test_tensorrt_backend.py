"""TensorRtBackend without a GPU: real engines and sidecars, loaded and run by stand-ins for driver and run-time."""

from __future__ import annotations

import gc
import inspect
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_cuda_core
import fake_tensorrt
import numpy as np
import pytest
from models import SPECS, save_model
from numpy.typing import NDArray

from seginfer import BackendError, BackendUnavailableError, InputError, ModelFileError, ModelSpec, Segmenter
from seginfer._system.driver import has_gpu
from seginfer._tensorrt.engine_file import EngineFile, write_engine
from seginfer._tensorrt.engines import build_engine
from seginfer._tensorrt.key import EngineGpu
from seginfer._tensorrt.options import EngineOptions, EngineProfile
from seginfer.backends.tensorrt import TensorRtBackend

Image = NDArray[np.uint8]

needs_kernels = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def fakes(world: fake_cuda_core.World) -> Iterator[fake_tensorrt.Fakes]:
    del world
    with fake_tensorrt.installed() as fakes:
        yield fakes


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, EngineFile]]:
    """Build the engine of a spec's network, once per module."""
    folder = tmp_path_factory.mktemp("engines")
    made: dict[str, tuple[Path, EngineFile]] = {}

    def build(name: str, spec: ModelSpec, *profiles: EngineProfile) -> tuple[Path, EngineFile]:
        label = f"{name}-{len(profiles)}".replace(" ", "-")
        if label not in made:
            path = save_model(folder / f"{label}.onnx", spec)
            options = EngineOptions(profiles=profiles or (EngineProfile((1, 2, 4)),))
            made[label] = path, build_engine(path, folder / f"{label}.engine", options=options)
        return made[label]

    return build


Built = Callable[..., tuple[Path, EngineFile]]


def picture(size: tuple[int, int], seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


# ------------------------------------------------------------------------------------------- without any stand-in


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_without_a_gpu_no_engine_is_built_and_the_error_says_why(
    backend: str, semantic_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGINFER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackendUnavailableError, match="driver"):
        Segmenter.open(semantic_model, backend=backend)
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_an_engine_is_read_and_refused(built: Built) -> None:
    _, engine = built("semantic", SPECS["semantic"])
    with pytest.raises(BackendUnavailableError, match="driver"):
        Segmenter.open(engine.path)


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "gpu"])
def test_a_device_that_is_no_gpu_is_refused(device: str, built: Built) -> None:
    _, engine = built("semantic", SPECS["semantic"])
    with pytest.raises((BackendUnavailableError, InputError), match=re.escape(repr(device))):
        Segmenter.open(engine.path, device=device)


def test_an_engine_takes_no_other_backend_and_no_options(built: Built) -> None:
    _, engine = built("semantic", SPECS["semantic"])
    with pytest.raises(BackendUnavailableError, match="engine of tensorrt_rtx, got backend 'onnxruntime'"):
        Segmenter.open(engine.path, backend="onnxruntime")
    with pytest.raises(InputError, match="is built already"):
        Segmenter.open(engine.path, engine=EngineOptions())


def test_engine_options_are_for_tensorrt_alone_and_name_no_other_library(semantic_model: Path) -> None:
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(InputError, match="give backend='tensorrt'"):
            Segmenter.open(semantic_model, backend=backend, engine=EngineOptions())
    with pytest.raises(InputError, match="name the library tensorrt_rtx, got backend 'tensorrt'"):
        Segmenter.open(semantic_model, backend="tensorrt", engine=EngineOptions(library="tensorrt_rtx"))


def test_a_truncated_engine_is_refused_before_anything_loads_it(built: Built, tmp_path: Path) -> None:
    _, engine = built("semantic", SPECS["semantic"])
    for suffix in ("", ".json"):
        shutil.copy(f"{engine.path}{suffix}", tmp_path / f"m.engine{suffix}")
    with open(tmp_path / "m.engine", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(ModelFileError, match="got 1000"):
        Segmenter.open(tmp_path / "m.engine")


# ------------------------------------------------------------------------------------------------ on the stand-ins


@needs_kernels
@pytest.mark.parametrize("name", sorted(set(SPECS) - {"dynamic size"}))
def test_every_kind_of_network_says_what_onnxruntime_says(
    name: str, built: Built, fakes: fake_tensorrt.Fakes, world: fake_cuda_core.World
) -> None:
    model, engine = built(name, SPECS[name])
    fakes.knows(engine, model)
    images = [picture(size, seed) for seed, size in enumerate([(24, 32), (61, 50), (9, 100), (48, 20), (7, 7)])]
    with Segmenter.open(engine.path) as on_gpu, Segmenter.open(model, device="cpu", threads=1) as on_host:
        for _ in range(2):
            for found, expected in zip(on_gpu(images), on_host(images), strict=True):
                np.testing.assert_array_equal(found.labels, expected.labels)
        assert "CUDA graphs" in on_gpu.pipeline.description
    assert world.launched, "no graph ran"


@needs_kernels
def test_opening_makes_it_warm(built: Built, fakes: fake_tensorrt.Fakes, world: fake_cuda_core.World) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)
    with Segmenter.open(engine.path, image_hw=(61, 50)) as segmenter:
        graphs = len(world.executables)
        assert graphs == 1
        segmenter(picture((61, 50)))
        assert len(world.executables) == graphs


@needs_kernels
def test_batches_take_the_narrowest_profile_and_fill_it_up(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    profiles = EngineProfile((1, 1, 4)), EngineProfile.fixed(1), EngineProfile.fixed(4)
    model, engine = built("semantic", SPECS["semantic"], *profiles)
    fakes.knows(engine, model)
    with Segmenter.open(engine.path) as segmenter:
        backend = segmenter.backend
        assert isinstance(backend, TensorRtBackend)
        assert [backend.padded_batch_size(count, (24, 32)) for count in (1, 2, 3, 4)] == [1, 2, 3, 4]
        assert [backend._profile((count, 3, 24, 32)) for count in (1, 2, 4)] == [1, 0, 2]
        images = [picture((24, 32), seed) for seed in range(9)]
        results = segmenter(images)
        assert {result.timings.batch_size for result in results} == {4, 1}
        with Segmenter.open(model, device="cpu") as host:
            for result, image in zip(results, images, strict=True):
                np.testing.assert_array_equal(result.mask, host(image).mask)


@needs_kernels
def test_fixed_batches_are_filled_up(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    model, engine = built("semantic", SPECS["semantic"], EngineProfile.fixed(2), EngineProfile.fixed(4))
    fakes.knows(engine, model)
    with Segmenter.open(engine.path) as segmenter, Segmenter.open(model, device="cpu") as host:
        backend = segmenter.backend
        assert isinstance(backend, TensorRtBackend)
        assert [backend.padded_batch_size(count, (24, 32)) for count in (1, 2, 3, 4)] == [2, 2, 4, 4]
        images = [picture((24, 32), seed) for seed in range(3)]
        for result, image in zip(segmenter(images), images, strict=True):
            np.testing.assert_array_equal(result.mask, host(image).mask)
        np.testing.assert_array_equal(segmenter(images[0]).mask, host(images[0]).mask)


@needs_kernels
def test_networks_of_any_size_take_what_their_profile_takes(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    profile = EngineProfile((1, 1, 2), ((16, 16), (64, 64), (128, 128)))
    model, engine = built("dynamic size", SPECS["dynamic size"], profile)
    fakes.knows(engine, model)
    with Segmenter.open(engine.path) as segmenter, Segmenter.open(model, device="cpu") as host:
        for size in ((64, 64), (17, 100), (128, 16)):
            np.testing.assert_array_equal(segmenter(picture(size)).mask, host(picture(size)).mask)
        with pytest.raises(InputError, match="build one with a profile for this shape"):
            segmenter(picture((129, 64)))
        np.testing.assert_array_equal(segmenter(picture((64, 64))).mask, host(picture((64, 64))).mask)


@needs_kernels
def test_every_size_has_the_batches_of_its_own_profiles(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    small, large = (64, 64), (128, 128)
    profiles = EngineProfile((1, 1, 4), (small,) * 3), EngineProfile.fixed(8, large)
    model, engine = built("dynamic size", SPECS["dynamic size"], *profiles)
    fakes.knows(engine, model)
    images = [picture(size, seed) for seed, size in enumerate([small] * 6 + [large])]
    with Segmenter.open(engine.path) as segmenter, Segmenter.open(model, device="cpu") as host:
        for result, image in zip(segmenter(images), images, strict=True):
            np.testing.assert_array_equal(result.mask, host(image).mask)
            assert result.timings.batch_size in ((4, 2) if image.shape[0] == 64 else (1,))


@needs_kernels
def test_arrays_of_the_host_run_too_in_any_number(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    model, engine = built("semantic", SPECS["semantic"], EngineProfile.fixed(2), EngineProfile.fixed(4))
    fakes.knows(engine, model)
    batch = np.random.default_rng(0).random((7, 3, 24, 32), np.float32)
    with Segmenter.open(engine.path, pixels="cpu") as segmenter, Segmenter.open(model, device="cpu") as host:
        expected = host.backend.infer(batch)
        found = segmenter.backend.infer(batch)
        np.testing.assert_array_equal(found["logits"], expected["logits"])
        again = segmenter.backend.infer(batch[::-1].copy(), found)
        assert again is found
        np.testing.assert_array_equal(found["logits"], expected["logits"][::-1])
        np.testing.assert_array_equal(segmenter(picture((61, 50))).mask, host(picture((61, 50))).mask)


@needs_kernels
def test_a_trace_is_of_the_graph_itself(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    model, engine = built("letterbox", SPECS["letterbox"])
    fakes.knows(engine, model)
    with Segmenter.open(engine.path) as on_gpu, Segmenter.open(model, device="cpu") as on_host:
        found, expected = (segmenter.trace(picture((61, 50))) for segmenter in (on_gpu, on_host))
    for name in ("batch", "output", "mask"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.geometry == expected.geometry


@needs_kernels
def test_threads_get_the_masks_of_their_own_images(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)
    wrong: list[int] = []
    with Segmenter.open(engine.path) as segmenter, Segmenter.open(model, device="cpu") as host:
        images = [picture((24 + seed, 32), seed) for seed in range(4)]
        expected = [host(image).mask for image in images]

        def work(k: int) -> None:
            for _ in range(10):
                if (segmenter(images[k]).mask != expected[k]).any():
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@needs_kernels
def test_200_times_opened_run_and_closed_leave_nothing_behind(
    built: Built, fakes: fake_tensorrt.Fakes, world: fake_cuda_core.World
) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)
    for seed in range(200):
        with Segmenter.open(engine.path, threads=1) as segmenter:
            segmenter(picture((24, 32), seed))
            segmenter.backend.infer(np.zeros((1, 3, 24, 32), np.float32))
    del segmenter
    gc.collect()
    assert (fakes.live, len(world.executables), len(world.graphs), world.of_device()) == (0, 0, 0, 0)


@needs_kernels
def test_a_closed_segmenter_says_so_and_closes_again(built: Built, fakes: fake_tensorrt.Fakes) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)
    segmenter = Segmenter.open(engine.path)
    segmenter.close()
    segmenter.close()
    for run in (
        lambda: segmenter(picture((24, 32))),
        lambda: segmenter.backend.infer(np.zeros((1, 3, 24, 32), np.float32)),
    ):
        with pytest.raises(BackendError, match="closed"):
            run()


@needs_kernels
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("deserialize_cuda_engine", "does not load .*no more memory.*free GPU memory"),
        ("create_execution_context", "has no memory to run"),
        ("execute_async_v3", "could not start the network"),
        ("set_tensor_address", "rejects the address of"),
    ],
)
def test_what_the_library_refuses_is_an_error_that_leaves_nothing_behind(
    method: str, message: str, built: Built, fakes: fake_tensorrt.Fakes, world: fake_cuda_core.World
) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)
    fakes.refuses_to = {method}
    with pytest.raises(BackendError, match=message):
        Segmenter.open(engine.path)
    gc.collect()
    assert (fakes.live, world.of_device()) == (0, 0)
    fakes.refuses_to = set()
    with Segmenter.open(engine.path) as segmenter:
        assert segmenter(picture((24, 32))).mask.shape == (24, 32)


@needs_kernels
def test_a_library_that_does_not_start_is_an_error_with_its_reason(
    built: Built, fakes: fake_tensorrt.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)

    def refuse(logger: Any) -> None:
        text = "Error Code 1: Cuda Runtime (In f at /_src/a.cpp:1 (cudaError 35: CUDA driver version is insufficient))"
        logger.log(fake_tensorrt.REAL.ILogger.Severity.ERROR, text)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(fake_tensorrt.Module, "Runtime", staticmethod(refuse))
    with pytest.raises(BackendError, match=r"engine is not loaded: .*driver version is insufficient; update NVIDIA's"):
        Segmenter.open(engine.path)


@needs_kernels
def test_an_engine_that_is_not_what_its_sidecar_says_is_refused(
    built: Built, fakes: fake_tensorrt.Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, engine = built("semantic", SPECS["semantic"])
    fakes.knows(engine, model)
    monkeypatch.setattr(fake_tensorrt.ICudaEngine, "get_tensor_dtype", lambda *_: fake_tensorrt.REAL.DataType.HALF)
    with pytest.raises(BackendError, match="float16"):
        Segmenter.open(engine.path)


def with_key(engine: EngineFile, folder: Path, **changes: Any) -> Path:
    """Write the engine again, as if another machine had built it."""

    def copy(part: Path) -> Any:
        shutil.copy(engine.path, part)
        return engine.report

    key = replace(engine.key, **changes)
    return write_engine(folder / "other.engine", Path(engine.model), key, engine.spec, copy).path


@needs_kernels
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": EngineGpu("Orin", (8, 7), "12.6")}, "GPU Orin, compute capability 8.7, and here is A CPU"),
        ({"library_version": "1.0.0.0"}, "TensorRT for RTX 1.0.0.0"),
        ({"platform": "linux-sparc"}, "platform linux-sparc"),
        ({"seginfer": "99.0.0"}, "seginfer 99.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_engines_of_others_are_refused_with_what_differs(
    changes: dict[str, Any], message: str, built: Built, fakes: fake_tensorrt.Fakes, tmp_path: Path
) -> None:
    _, engine = built("semantic", SPECS["semantic"])
    other = with_key(engine, tmp_path, **changes)
    with pytest.raises(BackendError, match=re.escape(message)) as caught:
        Segmenter.open(other)
    assert "seginfer build" in str(caught.value)
    assert fakes.live == 0


def test_every_name_of_the_stand_in_is_real() -> None:
    for name, fake in vars(fake_tensorrt.IMITATED).items():
        real = getattr(fake_tensorrt.REAL, name)
        for member, value in vars(fake).items():
            if member.startswith(("_", "fake_")):
                continue
            assert hasattr(real, member), f"{name} has no {member}"
            if inspect.isfunction(value):
                said = str(getattr(real, member).__doc__)
                for parameter in list(inspect.signature(value).parameters)[1:]:
                    assert re.search(rf"\b{parameter}: ", said), f"{name}.{member} takes no {parameter}: {said}"
