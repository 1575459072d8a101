"""What fails on a GPU is an error with a remedy or a slower way, and leaves nothing behind; on a fake cuda-core."""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_cuda_core
import fake_cuda_driver
import fake_network
import numpy as np
import pytest
from fake_network import FakeDeviceBackend
from fake_pipelines import SIZES, assert_same, both, on_gpu, picture, pipeline_of
from models import SPECS, make_spec, save_model

from seginfer import BackendError, InputError
from seginfer._cuda import loader
from seginfer._cuda.gpu import Gpu
from seginfer._pipelines import network

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def backend(semantic_model: Path, world: fake_cuda_core.World) -> FakeDeviceBackend:
    """The network of three colours on the fake GPU."""
    del world
    return FakeDeviceBackend(semantic_model, ("logits",))


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("waits", "a wait"), ("allocates", "allocate"), ("raises", "cannot be started now")],
)
def test_work_that_cannot_be_recorded_is_started_call_by_call(
    trouble: str, reason: str, tmp_path: Path, world: fake_cuda_core.World, caplog: pytest.LogCaptureFixture
) -> None:
    with both(tmp_path, SPECS["semantic"]) as (fake, host), caplog.at_level(logging.WARNING, "seginfer"):
        backend: Any = fake.backend
        backend.trouble = trouble
        for seed, size in enumerate(SIZES):
            image = picture(size, seed=seed)
            for _ in range(2):
                assert_same(fake(image, margin=True, confidence=True), host(image, margin=True, confidence=True))
        assert "plain launches: " in fake.pipeline.description
        assert reason in fake.pipeline.description
        assert world.captures == 2
        assert len(world.launched) == 4 * len(SIZES)  # a graph before the network, and one after it
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert reason in caplog.text
    assert not world.graphs


def test_networks_of_other_batches_are_recorded_anew_after_one_broke(
    tmp_path: Path, world: fake_cuda_core.World
) -> None:
    with both(tmp_path, SPECS["semantic"]) as (fake, host):
        backend: Any = fake.backend
        good, bad = picture((40, 50)), picture((50, 40))
        fake(good)
        backend.trouble = "waits"
        fake([bad, bad])
        backend.trouble = ""
        for image in (good, bad, good):
            assert_same(fake(image), host(image))
        assert_same(fake([bad, good])[0], host(bad))
        assert world.captures == 3
        assert "plain launches" in fake.pipeline.description


def test_a_new_image_size_needs_no_recording(tmp_path: Path, world: fake_cuda_core.World) -> None:
    with both(tmp_path, SPECS["semantic"]) as (fake, host):
        for seed, size in enumerate(SIZES):
            assert_same(fake(picture(size, seed=seed)), host(picture(size, seed=seed)))
        assert (world.captures, len(world.executables)) == (1, len(SIZES))


@pytest.mark.parametrize("broken", [1, 2])
def test_a_recording_that_another_thread_broke_is_tried_again(
    broken: int, backend: FakeDeviceBackend, world: fake_cuda_core.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_FIRST_WAIT", 3)
    found: list[Any] = []
    enqueue = fake_network.FakeExecution.enqueue

    def wait_elsewhere(self: Any, stream: Any) -> None:
        if stream.fake_record is not None and len(found) < broken:
            with ThreadPoolExecutor(1) as other:
                found.append(other.submit(device_wait).result())
        enqueue(self, stream)

    monkeypatch.setattr(fake_network.FakeExecution, "enqueue", wait_elsewhere)
    with on_gpu(backend) as segmenter:
        plain = []
        for _ in range(14):
            segmenter(picture((40, 50)))
            plain.append("plain launches" in segmenter.pipeline.description)
    assert found == [fake_cuda_driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED] * broken
    assert plain.index(False) == (3 if broken == 1 else 3 + 6)
    assert not any(plain[plain.index(False) :])
    assert world.captures == broken + 1


def device_wait() -> Any:
    """Wait for the GPU, as `torch.cuda.synchronize` does, and return the driver's code."""
    fake_cuda_core.Device(0).set_current()
    return fake_cuda_driver.cuCtxSynchronize()[0]


@pytest.mark.parametrize(
    "function", ["cuGraphInstantiate", "cuGraphUpload", "cuGraphAddKernelNode", "cuGraphAddChildGraphNode"]
)
def test_a_graph_that_the_driver_refuses_is_no_failure(
    function: str, tmp_path: Path, world: fake_cuda_core.World
) -> None:
    world.refuses_to.add(function)
    with both(tmp_path, SPECS["semantic"]) as (fake, host):
        image = picture((40, 50))
        assert_same(fake(image), host(image))
        assert "plain launches: CUDA_ERROR_INVALID_VALUE" in fake.pipeline.description
    assert not world.graphs
    assert not world.executables


def test_an_obstacle_is_named_and_nothing_is_recorded(
    backend: FakeDeviceBackend, world: fake_cuda_core.World, caplog: pytest.LogCaptureFixture
) -> None:
    backend.obstacle = "its shapes depend on values"
    with on_gpu(backend) as segmenter:
        segmenter(picture((40, 50)))
        segmenter(picture((40, 51)))
        assert segmenter.pipeline.description.endswith("plain launches: its shapes depend on values")
    assert sum("its shapes depend on values" in record.message for record in caplog.records) == 1
    assert not world.captures


def test_memory_that_runs_out_is_an_error_with_a_remedy_and_smaller_frames_still_run(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    image = picture((40, 50))
    with on_gpu(backend) as segmenter:
        expected = segmenter(image).mask
        world.memory_limit = world.of_device() + (1 << 20)
        for _ in range(2):
            with pytest.raises(
                BackendError, match=r"GPU memory ran out while allocating a buffer, \d.*MiB requested; close"
            ):
                segmenter(picture((2000, 3000)))
            assert pipeline_of(segmenter).gpu.live_buffers == 0
            np.testing.assert_array_equal(segmenter(image).mask, expected)


def test_memory_that_runs_out_at_any_point_leaves_nothing(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    image, plenty = picture((40, 50)), 1000
    with on_gpu(backend) as segmenter:
        expected = segmenter(image).mask
        pipeline_of(segmenter)._contexts.clear_idle()
        world.allocations_left = plenty
        segmenter(image)
        needed = plenty - world.allocations_left
        assert needed > 8
        for left in range(needed):
            pipeline_of(segmenter)._contexts.clear_idle()
            world.allocations_left = left
            with pytest.raises(BackendError, match=r"(GPU memory|pinned memory of the host) ran out"):
                segmenter(image)
            assert not world.buffers
            assert not backend.opened
        world.allocations_left = needed
        np.testing.assert_array_equal(segmenter(image).mask, expected)


def test_memory_that_is_kept_for_other_sizes_is_given_up_first(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    with on_gpu(backend) as segmenter:
        segmenter(picture((900, 900)))
        world.memory_limit = world.of_device() + (1 << 20)
        segmenter(picture((900, 901)))
        assert len(world.executables) == 1


def test_a_network_that_finds_no_memory_leaves_nothing(backend: FakeDeviceBackend, world: fake_cuda_core.World) -> None:
    backend.scratch_bytes, world.memory_limit = 1 << 30, 1 << 20
    with on_gpu(backend) as segmenter:
        with pytest.raises(BackendError, match=r"GPU memory ran out.*1024\.0 MiB"):
            segmenter(picture((40, 50)))
        assert not world.buffers
        backend.scratch_bytes = 0
        segmenter(picture((40, 50)))


def test_memory_that_an_idle_slot_keeps_is_given_up_too(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    with on_gpu(backend) as segmenter:
        segmenter(picture((40, 50)))
        contexts = pipeline_of(segmenter)._contexts
        (first,) = contexts._free
        with contexts.borrow(next(iter(first._frames)), InputError):  # so that another context is made
            segmenter(picture((900, 900)))
        world.memory_limit = world.of_device() + (1 << 20)
        segmenter(picture((900, 901)))
        assert len(world.executables) == 1
        assert len(contexts._free) == 2


def test_a_network_that_does_not_start_leaves_nothing(backend: FakeDeviceBackend, world: fake_cuda_core.World) -> None:
    with on_gpu(backend) as segmenter:
        for _ in range(2):
            backend.trouble = "fails"
            with pytest.raises(BackendError, match="cannot be started; restart"):
                segmenter(picture((40, 50)))
            assert not world.buffers
        backend.trouble = ""
        segmenter(picture((40, 50)))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinite"), (-np.inf, "NaN or infinite")])
def test_values_that_are_not_finite_are_an_error_and_the_next_frame_is_fine(
    value: float, message: str, backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    with on_gpu(backend) as segmenter:
        expected = segmenter(picture((40, 50))).mask
        backend.spoils = value
        out = np.full((40, 50), 9, np.uint8)
        with pytest.raises(InputError, match=message):
            segmenter(picture((40, 50)), out=out)
        assert (out == 9).all()
        backend.spoils = None
        np.testing.assert_array_equal(segmenter(picture((40, 50))).mask, expected)
    assert len(world.launched) == 3


@pytest.mark.usefixtures("world")
def test_labels_that_are_no_classes_are_an_error(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", SPECS["labels"])
    backend = FakeDeviceBackend(path, ("labels",))
    with on_gpu(backend, SPECS["labels"]) as segmenter:
        backend.spoils = 3
        with pytest.raises(InputError, match="expected labels below 3"):
            segmenter(picture((40, 50)))


def test_an_output_that_the_spec_does_not_say_is_refused(semantic_model: Path, world: fake_cuda_core.World) -> None:
    spec = make_spec(names=("a", "b", "c", "d"))
    backend = FakeDeviceBackend(semantic_model, ("logits",))
    with on_gpu(backend, spec) as segmenter:
        with pytest.raises(InputError, match=r"output of 1 x 4 channels in NCHW, got shape \(1, 3, 24, 32\)"):
            segmenter(picture((40, 50)))
        assert not world.buffers


def test_a_run_that_fails_gives_up_its_slot_and_the_next_makes_another(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    with on_gpu(backend) as segmenter:
        expected = segmenter(picture((40, 50))).mask
        world.refuses_to.add("cuGraphLaunch")
        with pytest.raises(BackendError, match="CUDA_ERROR_INVALID_VALUE; restart the process"):
            segmenter(picture((40, 50)))
        assert not world.buffers
        world.refuses_to.clear()
        np.testing.assert_array_equal(segmenter(picture((40, 50))).mask, expected)


@pytest.mark.usefixtures("world")
def test_a_stream_of_another_gpu_is_refused_by_name() -> None:
    gpu = Gpu(0)
    gpu.check_stream(gpu.new_stream())
    other = Gpu(1)
    with pytest.raises(InputError, match=r"CUDA device 0 \(A CPU\), where the model is, got one of device 1 \(A CPU\)"):
        gpu.check_stream(other.new_stream())


def test_kernels_that_the_driver_refuses_are_replaced_by_the_next(
    world: fake_cuda_core.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.refuses_to.add("newer")
    found = [("the wheel", b"newer"), ("NVRTC", b"cubin of sm_90")]
    monkeypatch.setattr(loader, "cubins", lambda *_: iter(found))
    Gpu(0).close()
    monkeypatch.setattr(loader, "cubins", lambda *_: iter(found[:1]))
    with pytest.raises(ImportError, match=r"CUDA_ERROR_INVALID_IMAGE.*run on the CPU"):
        Gpu(0)
