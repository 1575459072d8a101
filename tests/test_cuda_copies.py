"""Copies to and from a GPU: they overlap, take kept memory, and wait without spinning; on the fake."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np
import pytest
from fake_network import FakeDeviceBackend
from fake_pipelines import assert_same, both, on_gpu, picture
from models import SPECS

from seginfer import InputError, Segmenter, _native
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.packing import Piece, pieces
from seginfer._pipelines import context as contexts
from seginfer._pipelines import frame as frames
from seginfer._pipelines.gpu import GpuPipeline
from seginfer.backends._on_device import HostCalls

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def backend(semantic_model: Path, world: fake_cuda_core.World) -> FakeDeviceBackend:
    """The network of three colours on the fake GPU."""
    del world
    return FakeDeviceBackend(semantic_model, ("logits",))


@pytest.mark.usefixtures("world")
def test_each_image_goes_while_the_next_is_copied_and_results_come_likewise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "_BYTES_AT_ONCE", 1)
    images = [picture((40, 50), seed=2 * i) for i in range(3)]
    order: list[str] = []

    def noting(name: str, call: Any) -> Any:
        def noted(*given: Any) -> Any:
            order.append(name)
            return call(*given)

        return noted

    with both(tmp_path, SPECS["semantic"]) as (fake, host):
        fake(images)
        monkeypatch.setattr(_native, "copy", noting("host", _native.copy))
        monkeypatch.setattr(Gpu, "copy", noting("bus", Gpu.copy))
        monkeypatch.setattr(fake_cuda_core.Event, "sync", noting("wait", fake_cuda_core.Event.sync))
        found = fake(images)
        monkeypatch.undo()
        for one, expected in zip(found, host(images), strict=True):
            assert_same(one, expected)
    assert order == ["host", "bus"] * 3 + ["bus"] * 3 + ["wait", "host"] * 3


def test_the_pool_of_the_compiled_core_copies(backend: FakeDeviceBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[Any] = []
    with Segmenter(SPECS["semantic"], backend, threads=3) as segmenter:
        monkeypatch.setattr(_native, "copy", lambda *given: pools.append(given[2]))
        segmenter(picture((40, 50)))
    assert len(pools) == 2
    assert _native.core is None or [pool.size for pool in pools] == [3, 3]


def test_small_copies_are_joined() -> None:
    assert pieces([5, 9, 30, 31], 8) == [Piece(0, 9, range(2)), Piece(9, 30, range(2, 3)), Piece(30, 31, range(3, 4))]
    assert pieces([5], 8) == [Piece(0, 5, range(1))]


def test_copies_of_arrays_take_pinned_memory_that_is_kept(
    backend: FakeDeviceBackend, world: fake_cuda_core.World, rng: np.random.Generator
) -> None:
    gpu = Gpu(0)
    array = rng.integers(0, 256, (1 << 24) + 3, np.uint8)  # more than is kept
    buffer = gpu.upload(array)
    calls = HostCalls(backend, gpu, "NCHW")
    batch = rng.random((1, 3, 24, 32), np.float32)
    expected = calls(batch, None)
    world.allocations_left = 0
    gpu.fill(buffer, array[::-1].copy(), gpu.stream)
    found = np.empty_like(array)
    gpu.download(buffer, found, gpu.stream)
    np.testing.assert_array_equal(found, array[::-1])
    np.testing.assert_array_equal(calls(batch, None)["logits"], expected["logits"])
    calls.close()
    gpu.close()


@pytest.mark.parametrize(("value", "is_blocking"), [(None, True), ("block", True), ("spin", False)])
def test_a_wait_takes_no_core_unless_told_to(
    value: str | None, is_blocking: bool, backend: FakeDeviceBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("SEGINFER_WAIT", value)
    made: list[Any] = []
    create = fake_cuda_core.Device.create_event

    def note(self: Any, options: Any) -> Any:
        made.append(options)
        return create(self, options)

    monkeypatch.setattr(fake_cuda_core.Device, "create_event", note)
    with on_gpu(backend) as segmenter:
        image = picture((40, 50))
        segmenter(image)
        monkeypatch.setattr(fake_cuda_core.Stream, "sync", waits_of_events_only)
        segmenter(image)
        monkeypatch.undo()
    assert {options.blocking_sync for options in made} == {is_blocking}


def waits_of_events_only(self: Any) -> None:
    """Run the work of a stream, if an event is waited for."""
    import sys

    assert sys._getframe(1).f_code is fake_cuda_core.Event.sync.__code__, "a wait for a stream spins"
    works, self.fake_queue = self.fake_queue, []
    for work in works:
        work.run()


@pytest.mark.usefixtures("world")
def test_an_unknown_way_to_wait_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGINFER_WAIT", "sleep")
    with pytest.raises(InputError, match="SEGINFER_WAIT must be one of block, spin, got 'sleep'; unset it"):
        Gpu(0)


@pytest.mark.parametrize("is_integrated", [False, True])
def test_frames_count_the_memory_of_gpu_and_host(
    is_integrated: bool, backend: FakeDeviceBackend, world: fake_cuda_core.World
) -> None:
    world.is_integrated = is_integrated
    pipeline = GpuPipeline(backend, SPECS["semantic"], "rgb")
    segmenter = Segmenter(SPECS["semantic"], backend, pixels="cpu")
    segmenter.pipeline = pipeline
    segmenter(picture((40, 50)))
    (context,) = pipeline._contexts._free
    before = {id(buffer) for buffer in world.buffers.values()}
    segmenter(picture((400, 500)))
    new = sum(buffer.size for buffer in world.buffers.values() if id(buffer) not in before)
    newest = next(reversed(context._frames.values()))
    assert newest.nbytes == new > (1 if is_integrated else 2) * 400 * 500 * 4
    limits = contexts.INTEGRATED_BYTES_KEPT, contexts.FRAME_BYTES_KEPT
    assert context._bytes_kept == limits[0 if is_integrated else 1]
    assert 4 * limits[0] <= limits[1] <= 512 << 20
    pipeline.close()
