"""Networks in memory that somebody else allocated, through ONNX Runtime and torch, as far as a CPU can show it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cuda_core
import kernels_on_cpu as on_cpu
import numpy as np
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
