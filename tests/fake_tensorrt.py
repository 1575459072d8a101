"""TensorRT's run-time on the fake GPU: engines that were really built are run by ONNX Runtime from their ONNX files.

What builds and parses is the real TensorRT for RTX, whose module this stands in front of; only loading and running an
engine, which take a GPU, are imitated. `test_tensorrt_backend.py` holds every imitated name against the real classes.

It is as unkind as the library. Contexts have the substitutes of kernels until they are told otherwise, and a graph
keeps them. Engines for CUDA graphs take memory of the user only. Making or freeing a network waits for the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cuda_core
import numpy as np
import onnxruntime as ort
import pytest

from seginfer import MissingDependencyError
from seginfer._system.driver import GpuInfo
from seginfer._tensorrt.engine_file import EngineFile
from seginfer._tensorrt.library import RTX, Library, find_library, message_log
from seginfer.backends import _tensorrt_execution
from seginfer.backends import tensorrt as backend_module

try:
    REAL: Any = find_library("tensorrt_rtx").module
except MissingDependencyError as missing:
    pytest.skip(str(missing), allow_module_level=True)
_USER_MANAGED = REAL.ExecutionContextAllocationStrategy.USER_MANAGED
_EAGER = REAL.DynamicShapesKernelSpecializationStrategy.EAGER


class Fakes:
    """What the fake library knows, and how it is made to fail.

    Attributes:
        models: the .onnx file of every engine, and what is known of it, by the engine's bytes.
        spoils: what is added to the first value of every output.
        refuses_to: names of methods that fail, as a library does without memory.
        live: engines and contexts that were made and not dropped.
        environment: GPU, driver and version, on which a runtime cache depends.
        compiled: shapes that kernels were compiled for.
        is_capturable: whether contexts can be recorded.
        on_host: names of tensors that lie in memory of the host.
        waits: how often the library waited for the device.
        waits_in_captures: how often it did so while a stream was recorded.
    """

    def __init__(self) -> None:
        self.models: dict[bytes, tuple[Path, EngineFile]] = {}
        self.spoils = 0.0
        self.refuses_to: set[str] = set()
        self.live = 0
        self.environment = "GPU 1"
        self.compiled: list[str] = []
        self.is_capturable = True
        self.on_host: set[str] = set()
        self.waits = self.waits_in_captures = 0

    def knows(self, engine: EngineFile, model: Path) -> None:
        """Let an engine run as the model that it was built from."""
        self.models[engine.path.read_bytes()] = model, engine


_fakes = Fakes()


def _wait_for_device() -> None:
    """Do what cudaMalloc and cudaFree do; what that breaks is the driver's part, if it plays it."""
    _fakes.waits += 1
    _fakes.waits_in_captures += any(s.fake_record is not None for s in list(fake_cuda_core._world.streams.values()))
    getattr(fake_cuda_core._world, "wait_for_device", lambda _: None)("make or free a network")


class Counted:
    """An object of the library, which lives until it is dropped."""

    def __init__(self) -> None:
        _fakes.live += 1

    def __del__(self) -> None:
        _fakes.live -= 1


class OnDevice(Counted):
    """One with memory of the GPU."""

    def __del__(self) -> None:
        super().__del__()
        with suppress(fake_cuda_core.CUDAError):
            _wait_for_device()


class Runtime(Counted):
    """Loads engines."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        if "deserialize_cuda_engine" in _fakes.refuses_to:
            self._logger.log(REAL.ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (no more memory)")
            return None
        model, engine = _fakes.models[bytes(memoryview(serialized_engine))]
        with suppress(fake_cuda_core.CUDAError):
            _wait_for_device()
            return ICudaEngine(model, engine)
        return None


class ICudaEngine(OnDevice):
    """An engine; its session stands for its weights."""

    def __init__(self, model: Path, engine: EngineFile) -> None:
        super().__init__()
        self._report, self.fake_is_for_graphs = engine.report, engine.key.options.cuda_graph
        self.fake_session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self._tensors = [*self._report.inputs, *self._report.outputs]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._report.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def _tensor(self, name: str) -> Any:
        return next(tensor for tensor in self._tensors if tensor.name == name)

    def get_tensor_mode(self, name: str) -> Any:
        is_input = name in {tensor.name for tensor in self._report.inputs}
        return REAL.TensorIOMode.INPUT if is_input else REAL.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        names = {"float32": "FLOAT", "float16": "HALF"}
        dtype = self._tensor(name).dtype
        return getattr(REAL.DataType, names.get(dtype, dtype.upper()))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensor(name).shape)

    def get_tensor_location(self, name: str) -> Any:
        return REAL.TensorLocation.HOST if name in _fakes.on_host else REAL.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name == self._report.inputs[0].name
        shapes = self._report.profiles[profile_index]
        return [shapes.min, shapes.opt, shapes.max]

    def create_runtime_config(self) -> IRuntimeConfig | None:
        return None if "create_runtime_config" in _fakes.refuses_to else IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any) -> IExecutionContext | None:
        """Take a configuration, or a strategy, as TensorRT does."""
        config = runtime_config
        if not isinstance(config, IRuntimeConfig):
            config = IRuntimeConfig()
            config.set_execution_context_allocation_strategy(runtime_config)
            config.dynamic_shapes_kernel_specialization_strategy = _EAGER  # chosen by the builder
        if self.fake_is_for_graphs and config.fake_strategy is not _USER_MANAGED:
            return None  # test_tensorrt_runtime.py shows that the library does so
        with suppress(fake_cuda_core.CUDAError):
            _wait_for_device()
            return None if "create_execution_context" in _fakes.refuses_to else IExecutionContext(self, config)
        return None


class IRuntimeCache(Counted):
    """The shapes that kernels were compiled for."""

    def __init__(self) -> None:
        super().__init__()
        self.fake_kernels: set[str] = set()

    def deserialize(self, blob: Any) -> bool:
        environment, *kernels = bytes(memoryview(blob)).decode().split("\n")
        if environment != _fakes.environment:
            return False
        self.fake_kernels |= set(kernels)
        return True

    def serialize(self) -> bytes:
        return "\n".join([_fakes.environment, *sorted(self.fake_kernels)]).encode()


class IRuntimeConfig(Counted):
    """Settings of a context; those of the library, until they are changed."""

    dynamic_shapes_kernel_specialization_strategy = REAL.DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self) -> None:
        super().__init__()
        self.fake_strategy = REAL.ExecutionContextAllocationStrategy.STATIC
        self.fake_cache = IRuntimeCache()

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.fake_strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.fake_cache = cache
        return True


class IExecutionContext(OnDevice):
    """One run of an engine at a time; addresses stay until they are changed."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__()
        self._engine, self._config = engine, config
        self._profile: int | None = None
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._scratch = -1

    def is_stream_capturable(self, stream: int) -> bool:
        assert fake_cuda_core._world.streams[stream].fake_record is None, "asked too late"
        return _fakes.is_capturable

    def update_device_memory_size_for_shapes(self) -> int:
        return 2 * self._zeros().nbytes if self._shape else 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert fake_cuda_core._world.kind_at(memory) == fake_cuda_core._world.kind_at(memory + size - 1) == "device"
        self._scratch = size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in fake_cuda_core._world.streams
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shape = tuple(shape)
        return all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name == self._engine.get_tensor_name(0):
            return self._shape
        (found,) = self._engine.fake_session.run([name], {self._engine.get_tensor_name(0): self._zeros()})
        return tuple(found.shape)

    def _zeros(self) -> Any:
        return np.zeros(self._shape, self._engine._tensor(self._engine.get_tensor_name(0)).dtype)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert fake_cuda_core._world.kind_at(memory) == "device"
        self._addresses[name] = memory
        return "set_tensor_address" not in _fakes.refuses_to

    def execute_async_v3(self, stream_handle: int) -> bool:
        if "execute_async_v3" in _fakes.refuses_to:
            return False
        assert set(self._addresses) == {tensor.name for tensor in self._engine._tensors}
        if self._config.fake_strategy is _USER_MANAGED:
            assert self._scratch == self.update_device_memory_size_for_shapes(), "too little memory"
        stream = fake_cuda_core._world.streams[stream_handle]
        if stream.fake_record is not None and not self._may_record():
            return False
        self._compile()
        stream.fake_start(self._run)
        return True

    def _may_record(self) -> bool:
        config = self._config
        is_lazy = config.dynamic_shapes_kernel_specialization_strategy is not _EAGER
        if is_lazy and any(profile.min != profile.max for profile in self._engine._report.profiles):
            fake_cuda_core._world.violations.append("a graph keeps the substitutes of kernels")
        return _fakes.is_capturable

    def _compile(self) -> None:
        kernel = str(self._shape)
        if kernel not in self._config.fake_cache.fake_kernels:
            _fakes.compiled.append(kernel)
            self._config.fake_cache.fake_kernels.add(kernel)

    def _run(self) -> None:
        engine = self._engine
        given = _array(self._addresses[engine.get_tensor_name(0)], self._zeros())
        names = [tensor.name for tensor in engine._report.outputs]
        for name, found in zip(names, engine.fake_session.run(names, {engine.get_tensor_name(0): given}), strict=True):
            found.flat[0] += _fakes.spoils
            _array(self._addresses[name], found)[...] = found


def _array(address: int, like: Any) -> Any:
    memory = (ctypes.c_uint8 * like.nbytes).from_address(address)
    return np.ctypeslib.as_array(memory).view(like.dtype).reshape(like.shape)


class Module:
    """The real module, but for its run-time."""

    Runtime = Runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(REAL, name)


@contextmanager
def installed(gpu: GpuInfo | None = None, name: str = RTX) -> Iterator[Fakes]:
    """Let `TensorRtBackend` find a GPU and the fake library; inside of `fake_cuda_core.installed`."""
    global _fakes
    _fakes = Fakes()
    here = gpu or GpuInfo(0, "A CPU", (8, 9), 1 << 34, "13.0", "")
    library = Library(name, Module())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_module, "find_gpu", lambda index: here if index == 0 else _no_gpu(index))
        patch.setattr(backend_module, "find_library", lambda *_: library)
        patch.setattr(_tensorrt_execution, "message_log", lambda _: message_log(Library(RTX, REAL)))
        yield _fakes


def _no_gpu(index: int) -> GpuInfo:
    raise AssertionError(f"only GPU 0 is here, got {index}")


IMITATED = SimpleNamespace(
    Runtime=Runtime,
    ICudaEngine=ICudaEngine,
    IRuntimeCache=IRuntimeCache,
    IRuntimeConfig=IRuntimeConfig,
    IExecutionContext=IExecutionContext,
)
