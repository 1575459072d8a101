"""Contexts: several threads share the GPU, memory does not grow with callers or sizes, and all of it is freed."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np
import pytest
from fake_network import FakeDeviceBackend
from fake_pipelines import SIZES, assert_same, both, on_gpu, picture, pipeline_of
from models import SPECS

from seginfer import BackendError, InputError, Segmenter
from seginfer._pipelines import context as contexts
from seginfer._pipelines.gpu import GpuPipeline

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def backend(semantic_model: Path, world: fake_cuda_core.World) -> FakeDeviceBackend:
    """The network of three colours on the fake GPU."""
    del world
    return FakeDeviceBackend(semantic_model, ("logits",))


def test_threads_share_the_contexts(tmp_path: Path, world: fake_cuda_core.World) -> None:
    images = [picture(size, seed=i) for i, size in enumerate(SIZES * 8)]
    with both(tmp_path, SPECS["semantic"]) as (fake, host), ThreadPoolExecutor(4) as pool:
        expected = [host(image).mask for image in images]
        for found, mask in zip(pool.map(fake, images), expected, strict=True):
            np.testing.assert_array_equal(found.mask, mask)
        contexts = pipeline_of(fake)._contexts
        assert 1 <= len(contexts._free) <= 2
        assert contexts._lent == 0
    assert world.launched


def test_callers_wait_while_every_slot_is_lent(backend: FakeDeviceBackend) -> None:
    lock, now, most = threading.Lock(), 0, 0
    infer = backend.infer

    def slow(*arguments: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(now, most)
        time.sleep(0.002)
        with lock:
            now -= 1
        return infer(*arguments)

    with on_gpu(backend) as segmenter, ThreadPoolExecutor(6) as pool:
        segmenter(picture((24, 32)))
        backend.infer = slow  # type: ignore[assignment, method-assign]
        list(pool.map(segmenter, [picture((24, 32), seed=i) for i in range(24)]))
        assert most <= 2
        assert len(backend.opened) <= 2


def test_a_call_gets_the_slot_that_knows_its_images(backend: FakeDeviceBackend, world: fake_cuda_core.World) -> None:
    first, second = picture((40, 50)), picture((50, 40))
    with on_gpu(backend) as segmenter:
        segmenter(first)
        contexts = pipeline_of(segmenter)._contexts
        (key,) = contexts._free[0]._frames
        with contexts.borrow(key, InputError):  # so that another context is made
            segmenter(second)
        for image in (second, first, second, first):
            segmenter(image)
        assert len(world.executables) == 2


def test_the_limits_suit_a_small_gpu() -> None:
    assert contexts.FRAMES_KEPT <= 32
    assert contexts.FRAME_BYTES_KEPT <= 512 << 20  # a Jetson shares 8 GB with the processor


def test_memory_does_not_grow_with_the_sizes_seen(
    backend: FakeDeviceBackend, world: fake_cuda_core.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "FRAMES_KEPT", 3)
    with on_gpu(backend) as segmenter:
        found = []
        for i in range(12):
            segmenter(picture((40, 50 + i % 6)))
            found.append((len(world.buffers), len(world.executables)))
    assert {graphs for _, graphs in found[2:]} == {3}
    assert len({buffers for buffers, _ in found[2:]}) == 1


def test_frames_that_are_large_are_not_kept_in_numbers(
    backend: FakeDeviceBackend, world: fake_cuda_core.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "FRAME_BYTES_KEPT", 1)
    with on_gpu(backend) as segmenter:
        for i in range(3):
            segmenter(picture((40, 50 + i)))
            assert len(world.executables) == 1


@pytest.mark.usefixtures("world")
def test_networks_of_many_shapes_are_not_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "EXECUTIONS_KEPT", 2)
    with both(tmp_path, SPECS["dynamic size"]) as (fake, host):
        backend: Any = fake.backend
        for i in (1, 2, 3, 4, 1, 2):
            image = picture((8 * i, 16), seed=i)
            assert_same(fake(image), host(image))
            assert len(backend.opened) <= 2


def test_nothing_is_left_after_many_models(backend: FakeDeviceBackend, world: fake_cuda_core.World) -> None:
    for i in range(200):
        pipeline = GpuPipeline(backend, SPECS["semantic"], "rgb")
        segmenter = Segmenter(SPECS["semantic"], backend, pixels="cpu")
        segmenter.pipeline = pipeline
        segmenter([picture((8, 9 + i % 3)), picture((8, 9))])
        pipeline.close()
        assert not world.buffers
    assert not world.streams
    assert not world.executables
    assert pipeline.gpu.live_buffers == 0


def test_a_closed_pipeline_refuses_and_closing_twice_is_fine(backend: FakeDeviceBackend) -> None:
    segmenter = on_gpu(backend)
    segmenter(picture((40, 50)))
    for _ in range(2):
        segmenter.close()
        with pytest.raises(BackendError, match="the model is closed; open it again"):
            segmenter(picture((40, 50)))
    assert pipeline_of(segmenter).gpu.live_buffers == 0


def test_closing_waits_for_calls_in_flight_and_refuses_those_that_wait(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    pipeline = GpuPipeline(backend, SPECS["semantic"], "rgb", contexts=1)
    segmenter = Segmenter(SPECS["semantic"], backend, pixels="cpu")
    segmenter.pipeline = pipeline
    segmenter(picture((40, 50)))
    is_in_flight, may_go = threading.Event(), threading.Event()
    infer: Callable[..., Any] = backend.infer

    def held(*arguments: Any) -> Any:
        is_in_flight.set()
        assert may_go.wait(30)
        return infer(*arguments)

    backend.infer = held  # type: ignore[assignment, method-assign]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(segmenter, picture((40, 50)))
        assert is_in_flight.wait(30)
        second = pool.submit(segmenter, picture((40, 50)))
        closing = pool.submit(pipeline.close)
        with pytest.raises(BackendError, match="the model is closed"):
            second.result(30)
        assert not closing.done()
        may_go.set()
        assert first.result(30).mask.shape == (40, 50)
        closing.result(30)
    assert not world.buffers


def test_ctrl_c_gives_up_the_slot_and_the_next_call_runs(
    backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with on_gpu(backend) as segmenter:
        infer: Any = backend.infer
        segmenter(picture((40, 50)))
        backend.infer = interrupted  # type: ignore[assignment, method-assign]
        with pytest.raises(KeyboardInterrupt):
            segmenter(picture((40, 50)))
        assert not world.buffers
        backend.infer = infer  # type: ignore[method-assign]
        segmenter(picture((40, 50)))


def test_a_slot_that_cannot_be_made_is_not_counted(backend: FakeDeviceBackend, world: fake_cuda_core.World) -> None:
    with on_gpu(backend) as segmenter:
        world.refuses_to.add("create_stream")
        for _ in range(3):
            with pytest.raises(BackendError, match="ran out while creating a stream"):
                segmenter(picture((40, 50)))
        world.refuses_to.clear()
        segmenter(picture((40, 50)))
