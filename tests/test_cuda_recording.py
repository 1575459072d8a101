"""Recordings and other threads: nothing that allocates, frees or waits for the GPU happens during one; on the fake."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_cuda_core
import fake_cuda_driver
import numpy as np
import pytest
from fake_network import FakeDeviceBackend, FakeExecution
from fake_pipelines import on_gpu, picture, pipeline_of

from seginfer._cuda.gpu import Gpu
from seginfer._cuda.graph import CaptureError, Recording
from seginfer._cuda.recording import making, recording, would_wait
from seginfer._pipelines import context as contexts
from seginfer._system.fork import hold_forks
from seginfer.backends._on_device import HostCalls
from seginfer.backends.onnxruntime import OnnxRuntimeBackend

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def backend(semantic_model: Path, world: fake_cuda_core.World) -> FakeDeviceBackend:
    """The network of three colours on the fake GPU."""
    del world
    return FakeDeviceBackend(semantic_model, ("logits",))


@contextmanager
def held_recording(gpu: Gpu) -> Iterator[Callable[[], None]]:
    """Record in another thread until the function that this yields is called, and fail if something broke it."""
    is_recording, may_end = threading.Event(), threading.Event()

    def start(_: Any) -> None:
        is_recording.set()
        assert may_end.wait(30)

    def record() -> None:
        gpu.use()
        Recording(gpu, gpu.new_stream(), start).close()

    with ThreadPoolExecutor(1) as pool:
        recorder = pool.submit(record)
        assert is_recording.wait(30)
        try:
            yield may_end.set
        finally:
            may_end.set()
        recorder.result()


def used(segmenter: Any) -> Any:
    segmenter(picture((40, 50)))
    return segmenter


CALLS: dict[str, Callable[[Any, Gpu, FakeDeviceBackend], Callable[[], object]]] = {
    "a frame is made": lambda one, _, __: lambda: one(picture((30, 30))),
    "a network is made": lambda one, _, __: lambda: one([picture((30, 30))] * 2),
    "idle contexts are cleared": lambda one, _, __: pipeline_of(one)._contexts.clear_idle,
    "a model is closed": lambda one, _, __: one.close,
    "a GPU is opened": lambda _, __, ___: lambda: Gpu(0).close(),
    "pinned memory is freed": lambda _, gpu, __: lambda: gpu.free(gpu.allocate_pinned(64)),
    "memory is uploaded": lambda _, gpu, __: lambda: gpu.upload(np.zeros(64)),
    "a backend runs arrays of the host": lambda _, gpu, backend: (
        lambda: HostCalls(backend, gpu, "NCHW")(np.zeros((1, 3, 24, 32), np.float32), None)
    ),
}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", CALLS)
def test_what_would_break_a_recording_waits_for_its_end(name: str, backend: FakeDeviceBackend) -> None:
    gpu = Gpu(0)
    with on_gpu(backend) as segmenter, ThreadPoolExecutor(1) as pool:
        call = CALLS[name](used(segmenter), gpu, backend)

        def attempt() -> None:
            gpu.use()
            call()

        with held_recording(gpu) as end:
            waiting = pool.submit(attempt)
            assert not wait([waiting], 0.05).done
            end()
            waiting.result(30)
    gpu.close()


def test_networks_that_are_evicted_are_destroyed_in_turn(
    backend: FakeDeviceBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts, "FRAMES_KEPT", 1)
    seen = []
    close = FakeExecution.close

    def watched(self: Any) -> None:
        seen.append(can_record())
        close(self)

    monkeypatch.setattr(FakeExecution, "close", watched)
    with on_gpu(backend) as segmenter:
        segmenter([picture((24, 32))])
        segmenter([picture((24, 32)), picture((24, 32), seed=1)])
        assert seen == [False]
        pipeline_of(segmenter)._contexts.clear_idle()
    assert seen == [False, False]


def can_record(seconds: float = 0.05) -> bool:
    """Tell whether another thread gets the turn to record in time."""
    with_turn = threading.Event()

    def record() -> None:
        with recording():
            with_turn.set()

    thread = threading.Thread(target=record, daemon=True)
    thread.start()
    return with_turn.wait(seconds)


def test_recordings_of_two_threads_take_turns_and_makers_do_not_hinder_each_other() -> None:
    assert can_record(30)
    with making():
        with ThreadPoolExecutor(1) as pool:

            def make() -> bool:
                with making(), making():
                    return True

            assert pool.submit(make).result(30)
        assert not can_record()


def test_a_recording_within_a_turn_of_makers_is_an_error_and_no_deadlock() -> None:
    with making(), pytest.raises(RuntimeError, match="would wait for ever"), recording():
        pass


@pytest.mark.parametrize("is_on", [True, False])
def test_garbage_is_not_collected_within_a_recording(is_on: bool) -> None:
    def fail() -> None:
        with recording():
            assert not gc.isenabled()
            raise ZeroDivisionError

    try:
        (gc.enable if is_on else gc.disable)()
        with pytest.raises(ZeroDivisionError):
            fail()
        assert gc.isenabled() == is_on
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------------ the fake's bad manners


def test_a_wait_for_the_fake_gpu_breaks_every_recording_and_fails_itself(world: fake_cuda_core.World) -> None:
    gpu, code = Gpu(0), fake_cuda_driver.CUresult
    found = []

    def wait_for_gpu() -> None:
        fake_cuda_core.Device(0).set_current()
        found.append(fake_cuda_driver.cuCtxSynchronize()[0])

    with ThreadPoolExecutor(1) as other:
        for wait_once in (wait_for_gpu, lambda: other.submit(wait_for_gpu).result()):
            with pytest.raises(CaptureError, match="CAPTURE_INVALIDATED"):
                Recording(gpu, gpu.new_stream(), lambda _, wait_once=wait_once: wait_once())  # type: ignore[misc]
    assert found == [code.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, code.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED]
    assert fake_cuda_driver.cuCtxSynchronize()[0] == code.CUDA_SUCCESS
    gpu.close()
    assert not world.graphs


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("what", ["allocate", "allocate_pinned", "free"])
def test_allocating_and_freeing_break_a_recording_of_their_thread(what: str) -> None:
    gpu = Gpu(0)
    held = gpu.allocate_pinned(64)
    calls: dict[str, Callable[[], object]] = {
        "allocate": lambda: gpu.allocate(64),
        "allocate_pinned": lambda: gpu.allocate_pinned(64),
        "free": lambda: gpu.free(held),
    }

    def start(_: Any) -> None:
        calls[what]()

    with pytest.raises(CaptureError, match="CAPTURE_"):
        Recording(gpu, gpu.new_stream(), start)


@pytest.mark.usefixtures("world")
def test_a_recording_on_one_fake_gpu_is_not_broken_by_a_wait_for_another() -> None:
    gpu = Gpu(0)

    def start(_: Any) -> None:
        fake_cuda_core.Device(1).set_current()
        assert int(fake_cuda_driver.cuCtxSynchronize()[0]) == 0
        fake_cuda_core.Device(0).set_current()

    Recording(gpu, gpu.new_stream(), start).close()


@pytest.mark.usefixtures("world")
def test_the_fake_refuses_cubins_of_other_gpus_and_what_is_none() -> None:
    Gpu(0)
    for content, error in [(b"cubin of sm_87", "NO_BINARY_FOR_GPU"), (b"\x7fELF", "INVALID_IMAGE")]:
        with pytest.raises(fake_cuda_core.CUDAError, match=error):
            fake_cuda_core.ObjectCode.from_cubin(content)


def test_a_model_is_opened_while_another_is_made_and_a_third_waits_to_record(semantic_model: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        with making():

            def record() -> None:
                with recording():
                    pass

            recorded = pool.submit(record)
            while not would_wait():
                time.sleep(0.01)
            opened = pool.submit(OnnxRuntimeBackend, semantic_model, ("logits",), device="cpu")
            time.sleep(0.3)  # it waits for its turn, and must not hold up forks meanwhile
            with hold_forks():
                pass
        recorded.result(20)
        opened.result(20).close()


@pytest.mark.usefixtures("world")
def test_a_lent_array_that_goes_while_a_thread_waits_for_a_recording_waits_for_nobody() -> None:
    gpu = Gpu(0)
    lent = [gpu.lend((4,), np.dtype(np.uint8))]
    done = threading.Event()

    def record() -> None:
        with recording():
            done.set()

    with making():
        thread = threading.Thread(target=record)
        thread.start()
        while not would_wait():
            pass
        lent.clear()  # with a recorder waiting, and this thread's own turn
    thread.join(20)
    assert done.is_set()
    gpu.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_recording_of_another_thread_does_not_hold_up_a_fork_for_ever() -> None:
    script = (
        "import os, signal, threading\n"
        "from seginfer._cuda.recording import making, recording\n"
        "begun, end = threading.Event(), threading.Event()\n"
        "def record():\n"
        "    with recording():\n"
        "        begun.set()\n"
        "        end.wait()\n"
        "thread = threading.Thread(target=record)\n"
        "thread.start()\n"
        "begun.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(20)\n"
        "    with making():\n"
        "        os._exit(0)\n"
        "end.set()\n"
        "thread.join()\n"
        "raise SystemExit(os.waitpid(child, 0)[1])\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
