"""Load an engine onto a GPU and run it there."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from .._cuda.tensors import DeviceMemory, DeviceTensor
from .._errors import BackendError, BackendUnavailableError, InputError, MissingFileError
from .._system.fork import leak_in_children
from .._tensorrt.engine_file import EngineFile
from .._tensorrt.library import RTX, Library, create, find_reason, message_log
from .._tensorrt.parse import dtype_name
from .._tensorrt.report import EngineReport
from .._tensorrt.runtime_cache import RuntimeCache


class LoadedEngine:
    """An engine on the current GPU. Contexts share its weights.

    Args:
        library: the library that built it.
        engine: an engine that was checked. The library crashes on some damaged ones.

    Raises:
        MissingFileError: if it was deleted since the check.
        BackendError: if it cannot be read, the library rejects it, or GPU memory runs out.
    """

    def __init__(self, library: Library, engine: EngineFile) -> None:
        self._library = library
        self._file = engine
        path = engine.path
        leak_in_children(self)
        log = message_log(library)
        self._engine: Any = None
        self._runtime: Any = None
        # An engine that is built for CUDA graphs requires this.
        self._settings: Any = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._cache: RuntimeCache | None = None
        try:
            self._runtime = create(library, "Runtime", log)
        except BackendUnavailableError as error:
            raise BackendError(f"{path} is not loaded: {error}") from error
        with log.collect() as messages:
            self._engine = self._runtime.deserialize_cuda_engine(read_checked(engine))
            if self._engine is not None and library.name == RTX:
                self._settings = self._configure()
        if self._engine is None or self._settings is None:
            raise BackendError(
                f"{library.description} does not load {path}: {find_reason(messages)}; free GPU memory, or build it "
                "again with `seginfer build --rebuild`"
            )

    def _configure(self) -> Any:
        """Return the settings of contexts in TensorRT for RTX. None if memory runs out."""
        config = self._engine.create_runtime_config()
        if config is not None:
            config.set_execution_context_allocation_strategy(self._settings)
            # By default a shape has slow kernels until its own are compiled. A graph would keep the slow ones.
            strategies = self._library.module.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            cache = config.create_runtime_cache()
            if cache is not None:
                self._cache = RuntimeCache(self._file.path, self._file.engine_sha256, cache)
                config.set_runtime_cache(cache)
        return config

    def check(self, report: EngineReport) -> None:
        """Compare the engine's tensors with its report.

        Raises:
            BackendError: if one is missing, additional, of another type, or not in GPU memory.
        """
        expected = {(t.name, "INPUT", t.dtype) for t in report.inputs}
        expected |= {(t.name, "OUTPUT", t.dtype) for t in report.outputs}
        found = {(name, self._mode(name), self._dtype(name)) for name in self._names()}
        if expected != found:
            raise BackendError(
                f"{self._file.path} is not the engine that its sidecar describes: expected tensors {sorted(expected)}, "
                f"got {sorted(found)}; build it again with `seginfer build --rebuild`"
            )
        for name in self._names():
            if self._engine.get_tensor_location(name).name != "DEVICE":  # the library would write there from the CPU
                raise BackendError(
                    f"{self._file.path} has {name!r} in memory of the host, as an output that holds shapes; export the "
                    "model without it"
                )

    def execution(
        self, profile: int, input_name: str, shape: tuple[int, ...], outputs: tuple[str, ...], memory: DeviceMemory
    ) -> EngineExecution:
        """Make a context with memory for inputs of one shape.

        Args:
            profile: index of a profile that takes the shape.
            input_name: name of the engine's input.
            shape: shape of the input.
            outputs: names of the outputs to expose.
            memory: memory on the GPU of the engine.

        Raises:
            InputError: if the engine does not take this shape.
            BackendError: if memory runs out.
        """
        log = message_log(self._library)
        with log.collect() as messages:
            context = self._engine.create_execution_context(self._settings)
        if context is None:
            raise BackendError(
                f"{self._library.description} has no memory to run {self._file.path}: {find_reason(messages)}; free "
                "GPU memory, build it with a smaller batch or workspace, or open fewer models"
            )
        refusal = "" if self._file.key.options.cuda_graph else "the engine was built without CUDA graphs"
        execution = EngineExecution(self._library, context, memory, self._cache, refusal)
        try:
            execution.set_shape(profile, input_name, shape)
            tensors = {name: execution.allocate(name, self._dtype(name)) for name in self._names()}
        except BaseException:
            execution.close()
            raise
        execution.input = tensors[input_name]
        execution.outputs = {name: tensors[name] for name in outputs}
        return execution

    def close(self) -> None:
        """Free the engine. Its contexts must be closed."""
        self._settings = self._cache = self._engine = self._runtime = None

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _mode(self, name: str) -> str:
        return str(self._engine.get_tensor_mode(name).name)

    def _dtype(self, name: str) -> str:
        return dtype_name(self._engine.get_tensor_dtype(name))


class EngineExecution:
    """`Execution` of an engine, made by `LoadedEngine.execution`."""

    def __init__(
        self, library: Library, context: Any, memory: DeviceMemory, cache: RuntimeCache | None, refusal: str
    ) -> None:
        self._library = library
        self._context = context
        self._log = message_log(library)
        self._memory = memory
        self._cache = cache
        self._refusal = refusal
        self._stream = int(memory.stream.handle)
        self.input: DeviceTensor
        self.outputs: dict[str, DeviceTensor]

    @property
    def obstacle(self) -> str:
        """Reason why a CUDA graph cannot record the network. See `Execution.obstacle`."""
        asked = getattr(self._context, "is_stream_capturable", None)  # TensorRT for RTX alone has it
        if self._refusal or asked is None or asked(self._stream):
            return self._refusal
        return f"{self._library.description} allows no recording of this network"

    def set_shape(self, profile: int, name: str, shape: tuple[int, ...]) -> None:
        """Set the shape of the input, and allocate the memory that the network needs for it.

        Raises:
            InputError: if the engine does not take it.
            BackendError: if memory runs out.
        """
        stream = self._memory.stream
        with self._log.collect() as messages:
            is_ok = self._context.set_optimization_profile_async(profile, int(stream.handle))
            stream.sync()
            is_ok = is_ok and self._context.set_input_shape(name, shape)
        if not is_ok:
            raise InputError(
                f"the engine does not take {name} of shape {shape}: {find_reason(messages)}; build it for this shape"
            )
        nbytes = self._context.update_device_memory_size_for_shapes()
        self._context.set_device_memory(self._memory.tensor((nbytes,), "uint8").address, nbytes)

    def allocate(self, name: str, dtype: str) -> DeviceTensor:
        """Allocate a tensor and set its address.

        Raises:
            BackendError: if memory runs out, or the shape depends on the data.
        """
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(
                f"output {name!r} has a shape {shape} that depends on the data, which is not supported; "
                "let the model pad it to a fixed number of rows"
            )
        tensor = self._memory.tensor(shape, dtype)
        if not self._context.set_tensor_address(name, tensor.address):
            raise BackendError(f"{self._library.description} rejects the address of {name!r}; report this as a bug")
        return tensor

    def enqueue(self, stream: Any) -> None:
        """Start the network. See `Execution.enqueue`."""
        with self._log.collect() as messages:
            is_started = self._context.execute_async_v3(int(stream.handle))
        if not is_started:
            raise BackendError(
                f"{self._library.description} could not start the network: {find_reason(messages)}; open it again"
            )
        self._stream = int(stream.handle)
        cache, self._cache = self._cache, None
        if cache is not None:  # the first run has compiled the last kernels
            cache.save()

    def close(self) -> None:
        """Free the context and its memory."""
        self._context = None
        self._memory.close()


def read_checked(engine: EngineFile) -> bytes:
    """Read an engine and compare its hash with that in its sidecar.

    Raises:
        MissingFileError: if it was deleted.
        BackendError: if it cannot be read, or was replaced after it was checked.
    """
    # The bytes that are loaded are the bytes that are hashed. A map of the file could change in between, and would end
    # the process if the file were cut.
    try:
        data = engine.path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"{engine.path} was deleted while it was opened; open it or build it again") from error
    except OSError as error:
        raise BackendError(f"cannot read {engine.path}: {error}; check its permissions, or build it again") from error
    if sha256(data).hexdigest() != engine.engine_sha256:
        raise BackendError(f"{engine.path} was replaced while it was opened; open it or build it again")
    return data
