"""Networks in memory that somebody else allocated, through ONNX Runtime and torch, as far as a CPU can show it."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cuda_core
import kernels_on_cpu as on_cpu
import numpy as np
import onnxruntime as ort
import pytest
import torch
from fake_network import array_at
from models import SPECS, make_spec, save_model

from seginfer import BackendError, BackendUnavailableError, Segmenter
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.tensors import DeviceMemory
from seginfer.backends import _onnxruntime_execution
from seginfer.backends._protocol import as_device_backend
from seginfer.backends.onnxruntime import OnnxRuntimeBackend
from seginfer.backends.torch import TorchBackend

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture
def gpu(cpu: on_cpu.Cpu) -> Iterator[Gpu]:
    with fake_cuda_core.installed(cpu):
        yield Gpu()


@pytest.fixture
def in_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let executions use the CPU's provider and memory: the fake GPU's memory is the host's."""
    monkeypatch.setattr(_onnxruntime_execution, "_MEMORY", "cpu")
    monkeypatch.setattr(_onnxruntime_execution, "cuda_first", lambda *_: ["CPUExecutionProvider"])


@pytest.mark.usefixtures("in_host_memory")
@pytest.mark.parametrize("name", ["semantic", "half precision", "raw pixels", "channels last", "labels", "multilabel"])
def test_onnxruntime_reads_and_writes_the_memory_that_it_is_given(name: str, tmp_path: Path, gpu: Gpu) -> None:
    spec = SPECS[name]
    backend = OnnxRuntimeBackend(save_model(tmp_path / "m.onnx", spec), (spec.output.name,), device="cpu")
    backend.device_index = 0
    shape = (2, 3, 24, 32) if spec.input.layout == "NCHW" else (2, 24, 32, 3)
    execution = backend.execution(shape, DeviceMemory(gpu))
    batch = np.random.default_rng(0).integers(0, 2, shape).astype(spec.input.dtype)
    expected = backend.infer(batch)[spec.output.name]
    output = execution.outputs[spec.output.name]
    assert (output.shape, output.dtype) == (expected.shape, expected.dtype.name)
    for _ in range(2):
        array_at(execution.input)[...] = batch
        array_at(output)[...] = 77
        execution.enqueue(gpu.stream)
        np.testing.assert_array_equal(array_at(output), expected)
    execution.enqueue(gpu.new_stream())
    execution.close()
    execution.close()
    assert gpu.live_buffers == 0


@pytest.mark.usefixtures("in_host_memory")
def test_all_executions_of_a_model_share_one_session_of_onnxruntime(
    semantic_model: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session would have a copy of the weights."""
    opened: list[Any] = []
    open_really = ort.InferenceSession

    def open_session(*arguments: Any, **options: Any) -> Any:
        gc.collect()
        assert not any(session() for session in opened), "two sessions at once"
        session = open_really(*arguments, **options)
        opened.append(weakref.ref(session))
        return session

    monkeypatch.setattr(ort, "InferenceSession", open_session)
    backend = OnnxRuntimeBackend(semantic_model, ("logits",), device="cpu")
    backend.device_index = 0
    batches = [np.random.default_rng(n).random((n, 3, 24, 32), np.float32) for n in (1, 2, 3)] * 2
    executions = [backend.execution(batch.shape, DeviceMemory(gpu)) for batch in batches]
    expected = [backend.infer(batch)["logits"] for batch in batches]

    def work(number: int) -> None:
        gpu.use()
        stream = gpu.new_stream()
        for _ in range(5):
            array_at(executions[number].input)[...] = batches[number]
            executions[number].enqueue(stream)
            stream.sync()
            np.testing.assert_array_equal(array_at(executions[number].outputs["logits"]), expected[number])

    with ThreadPoolExecutor(len(batches)) as pool:
        list(pool.map(work, range(len(batches))))
    assert len(opened) == 2, "one to see whether there is a GPU, and one on a stream of its own"
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        executions[0].enqueue(gpu.stream)
    for execution in executions:
        execution.close()
    gc.collect()
    assert not any(session() for session in opened)
    assert gpu.live_buffers == 0


@pytest.mark.usefixtures("in_host_memory")
def test_a_run_of_onnxruntime_waits_for_the_stream_and_the_stream_for_it(
    semantic_model: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OnnxRuntimeBackend(semantic_model, ("logits",), device="cpu")
    backend.device_index = 0
    execution = backend.execution((1, 3, 24, 32), DeviceMemory(gpu))
    done: list[tuple[str, object, object]] = []
    wait, run = fake_cuda_core.Stream.wait, _onnxruntime_execution.OnnxRuntimeExecution._run

    def note_wait(self: fake_cuda_core.Stream, other: Any) -> None:
        done.append(("wait", self, other))
        wait(self, other)

    def note_run(self: _onnxruntime_execution.OnnxRuntimeExecution, options: Any) -> None:
        done.append(("run", self, options))
        run(self, options)

    monkeypatch.setattr(fake_cuda_core.Stream, "wait", note_wait)
    monkeypatch.setattr(_onnxruntime_execution.OnnxRuntimeExecution, "_run", note_run)
    stream = gpu.new_stream()
    execution.enqueue(stream)
    (_, own, given), (what, ran, _), (_, last, behind) = done
    assert (given, what, ran, last, behind) == (stream, "run", execution, stream, own)
    assert own is not stream
    execution.close()
    backend.close()
    assert own not in fake_cuda_core._world.streams.values()


@pytest.mark.usefixtures("in_host_memory")
def test_what_onnxruntime_refuses_frees_the_memory(semantic_model: Path, gpu: Gpu) -> None:
    backend = OnnxRuntimeBackend(semantic_model, ("logits",), device="cpu")
    backend.device_index = 0
    with pytest.raises(BackendError, match="failed on a batch"):
        backend.execution((1, 3, 25, 32), DeviceMemory(gpu))
    assert gpu.live_buffers == 0


def test_a_network_on_the_cpu_has_no_memory_of_a_gpu(semantic_model: Path, gpu: Gpu) -> None:
    backend = OnnxRuntimeBackend(semantic_model, ("logits",), device="cpu")
    assert as_device_backend(backend) is None
    with pytest.raises(BackendUnavailableError, match="device='cuda'"):
        backend.execution((1, 3, 24, 32), DeviceMemory(gpu))
    assert as_device_backend(TorchBackend(torch.nn.Identity(), ("logits",))) is None


def test_pixels_on_a_gpu_need_a_network_there(semantic_model: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="pixels='cuda' needs a network on a CUDA device"):
        Segmenter.open(semantic_model, device="cpu", pixels="cuda")
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        assert segmenter.pipeline.description.startswith("pixels on the CPU")


def test_every_name_of_torch_that_executions_use_is_there() -> None:
    for name in ("MemPool", "ExternalStream", "stream", "current_stream"):
        assert hasattr(torch.cuda, name)
    for name in ("beginAllocateCurrentThreadToPool", "endAllocateToPool", "releasePool"):
        assert hasattr(torch._C, f"_cuda_{name}")


def test_without_the_packages_for_it_pixels_stay_on_the_cpu_and_the_log_says_so(
    semantic_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend: Any = OnnxRuntimeBackend(semantic_model, ("logits",), device="cpu")
    backend.device_index = 0

    def missing(_: int) -> None:
        raise BackendUnavailableError("cuda-core is missing; pip install 'seginfer[cuda]'")

    monkeypatch.setattr("seginfer._pipelines.gpu.Gpu", missing)
    with Segmenter(make_spec(), backend) as segmenter:
        assert "cuda-core is missing" in segmenter.pipeline.description
        assert "cuda-core is missing" in caplog.text
        assert segmenter(np.zeros((24, 32, 3), np.uint8)).mask.shape == (24, 32)
    with pytest.raises(BackendUnavailableError, match="cuda-core"):
        Segmenter(make_spec(), backend, pixels="cuda")


@pytest.fixture
def torch_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let executions of torch run on the CPU, without its CUDA half."""
    monkeypatch.setattr("seginfer.backends.torch._use_pool", lambda *_: nullcontext())
    monkeypatch.setattr(torch.cuda, "MemPool", object)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())


@pytest.mark.usefixtures("torch_on_cpu")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: (x.double(),), r"must be torch.float32 \(1, 3, 8, 8\) on cpu, got torch.float64"),
        (lambda x: (x[:, :1],), r"got torch.float32 \(1, 1, 8, 8\)"),
        (lambda x: (x.to("meta"),), "on meta"),
        (lambda x: (x, x), "the 1 tensors logits, got 2"),
    ],
)
def test_outputs_of_a_module_that_change_their_kind_are_refused_and_never_converted(
    change: Any, words: str, gpu: Gpu
) -> None:
    class Module(torch.nn.Module):
        change: Any = staticmethod(lambda x: (x + 1,))

        def forward(self, x: torch.Tensor) -> Any:
            return self.change(x)

    module = Module()
    execution = TorchBackend(module, ("logits",)).execution((1, 3, 8, 8), DeviceMemory(gpu))
    execution.enqueue(gpu.stream)
    assert array_at(execution.outputs["logits"]).min() == 1
    module.change = change
    with pytest.raises(BackendError, match=words):
        execution.enqueue(gpu.stream)
    with pytest.raises(BackendError):
        TorchBackend(module, ("logits",) if words[0] == "t" else ()).infer(np.zeros((1, 3, 8, 8), np.float32))
    execution.close()


@pytest.mark.usefixtures("torch_on_cpu")
def test_outputs_of_a_module_on_another_device_are_refused(gpu: Gpu) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return (x.to("meta"),)

    with pytest.raises(BackendError, match=r"on cpu, got torch.float32 \(1, 3, 8, 8\) on meta"):
        TorchBackend(Module(), ("logits",)).execution((1, 3, 8, 8), DeviceMemory(gpu))
