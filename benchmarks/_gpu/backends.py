"""Backends of the GPU benchmark, and their networks alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seginfer import EngineOptions, EngineProfile, SegInferError, Segmenter, build_engine
from seginfer._bench.turns import Contender, make_contender
from seginfer._cuda.gpu import Gpu
from seginfer._cuda.graph import CaptureError, Graph, Recording
from seginfer._cuda.tensors import DeviceMemory
from seginfer._pipelines.gpu import GpuPipeline
from seginfer._tensorrt.library import find_library
from seginfer.backends import open_backend, read_any_model
from seginfer.backends._protocol import as_device_backend
from seginfer.backends.torch import TorchBackend
from seginfer.export._network import Network

from .clock import EventClock
from .networks import BenchNetwork

Array = NDArray[Any]
Progress = Callable[[Any], None]
BackendName = Literal["torch", "onnxruntime", "tensorrt", "tensorrt_rtx"]

GRAPH, PLAIN, HOST = "one CUDA graph", "plain launches", "calls of the host"
"""Ways to start a frame or its network."""


@dataclass(frozen=True)
class Case:
    """One network in one precision, for batches of one size."""

    network: BenchNetwork
    precision: str
    batch: int
    device: str
    """Device of every library: "cuda" or "cpu"."""

    def __str__(self) -> str:
        height, width = self.network.input_hw
        return f"{self.network.name} {height} x {width}, {self.precision}, batch {self.batch}"


def why_missing(name: str, device: str) -> str:
    """Return why a backend is missing, or an empty string.

    Opens no file, so that a backend may still refuse one later.
    """
    if name == "torch":
        return torch_missing(device)
    if name == "onnxruntime":
        return onnxruntime_missing(device)
    if device == "cpu":
        return "TensorRT runs on an NVIDIA GPU"
    try:
        find_library(name)
    except SegInferError as error:
        return str(error)
    return ""


def torch_missing(device: str) -> str:
    """Return why PyTorch lacks a device, or an empty string."""
    if device == "cpu" or torch.cuda.is_available():
        return ""
    return f"PyTorch {torch.__version__} sees no CUDA device; install a build for this machine's driver"


def onnxruntime_missing(device: str) -> str:
    """Return why ONNX Runtime lacks a device, or an empty string."""
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        return f"onnxruntime cannot be imported ({error})"
    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    if provider in ort.get_available_providers():
        return ""
    return f"onnxruntime {ort.__version__} has no {provider}; pip install 'seginfer[gpu]'"


def prepare(name: BackendName, case: Case, on_progress: Progress) -> None:
    """Build the engine of a case, unless it is cached.

    Does nothing for backends without engines.

    Raises:
        SegInferError: if the library or the GPU is missing, or the library refuses the file.
    """
    engine = _engine(name, case)
    if engine is not None:
        build_engine(case.network.files[case.precision].ours, options=engine, on_progress=on_progress)


def open_segmenter(name: BackendName, case: Case) -> Segmenter:
    """Open a case in a backend.

    Raises:
        SegInferError: if the backend or the device is missing, or the backend refuses the file.
    """
    if name == "torch":
        backend = TorchBackend(torch_module(case), [output.name for output in case.network.spec.outputs])
        return Segmenter(case.network.spec, backend)
    model = read_any_model(case.network.files[case.precision].ours)
    opened = open_backend(model, name, device=case.device, engine=_engine(name, case))
    try:
        return Segmenter(model.spec, opened)
    except BaseException:
        opened.close()
        raise


def _engine(name: BackendName, case: Case) -> EngineOptions | None:
    """Return the engine options of a case. A fixed batch is fastest."""
    if name == "torch" or name == "onnxruntime":
        return None
    return EngineOptions(library=name, profiles=(EngineProfile.fixed(case.batch),))


def torch_module(case: Case) -> nn.Module:
    """Return a copy of the network on the case's device.

    Inputs and outputs are float32, as in the files.
    """
    network = Network(case.network.module_on(case.device, case.precision), case.network.spec).eval()
    return InHalf(network) if case.precision == "fp16" else network


class InHalf(nn.Module):
    """A network in float16 behind casts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs."""
        return tuple(output.float() for output in self.network(batch.half()))


class NetworkAlone:
    """A segmenter's network on a batch in device memory.

    It has buffers of its own. On a GPU it starts as the segmenter's frames do: as one CUDA graph, or call by call.

    Attributes:
        how: description of the start and the clock.
    """

    def __init__(self, segmenter: Segmenter, batch: Array) -> None:
        self._free: list[Callable[[], None]] = []
        pipeline = segmenter.pipeline
        try:
            if isinstance(pipeline, GpuPipeline):
                self.how, self._call = self._on_gpu(segmenter, pipeline, batch)
            else:
                self.how, self._call = self._on_host(segmenter, batch)
        except BaseException:
            self.close()
            raise

    def contender(self) -> Contender:
        """Return the contender."""
        return self._call

    def _on_host(self, segmenter: Segmenter, batch: Array) -> tuple[str, Contender]:
        outputs = segmenter.backend.infer(batch)
        call = make_contender("network", lambda: segmenter.backend.infer(batch, outputs))
        return f"{HOST}, by the host's clock", call

    def _on_gpu(self, segmenter: Segmenter, pipeline: GpuPipeline, batch: Array) -> tuple[str, Contender]:
        gpu: Gpu = pipeline.gpu
        gpu.use()
        backend = as_device_backend(segmenter.backend)
        assert backend is not None  # a GpuPipeline has one
        execution = backend.execution(batch.shape, DeviceMemory(gpu))
        self._free.append(execution.close)
        stream = gpu.new_stream()
        self._free.append(stream.close)
        gpu.fill(gpu.view(execution.input.address, batch.nbytes), np.ascontiguousarray(batch), stream)
        execution.enqueue(stream)  # the first call on a stream may allocate
        stream.sync()
        start, how = execution.enqueue, PLAIN
        if runs_as(segmenter) == GRAPH:
            try:
                recording = Recording(gpu, stream, execution.enqueue)
                self._free.append(recording.close)
                graph = Graph(gpu, [recording], stream)
            except CaptureError as error:
                how = f"{PLAIN}, because the capture of the network alone failed: {error}"
                stream = gpu.new_stream()
                self._free.append(stream.close)
                execution.enqueue(stream)
            else:
                self._free.append(graph.close)
                start, how = graph.launch, GRAPH
        return f"{how}, by CUDA events", EventClock(gpu, stream).contender("network", partial(start, stream))

    def close(self) -> None:
        """Free the memory."""
        while self._free:
            self._free.pop()()


def runs_as(segmenter: Segmenter) -> str:
    """Return how a segmenter's frames start. The pipeline's description has the reason."""
    if not isinstance(segmenter.pipeline, GpuPipeline):
        return HOST
    return PLAIN if PLAIN in segmenter.pipeline.description else GRAPH
