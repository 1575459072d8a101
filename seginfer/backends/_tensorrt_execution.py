"""Load an engine onto a GPU, and run it there: one context per execution, all addresses set once."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._cuda.tensors import DeviceTensor, TensorMemory
from .._errors import BackendError, BackendUnavailableError, InputError, MissingFileError
from .._tensorrt.library import Library, Message, first_error, gpu_error, message_log, start
from .._tensorrt.parse import dtype_name
from .._tensorrt.report import EngineReport

if TYPE_CHECKING:
    from .._cuda.gpu import Gpu


class LoadedEngine:
    """An engine on the GPU that is current; contexts share its weights.

    Args:
        library: the one that built it.
        path: the engine, which was found whole: the library itself crashes on some that are not.

    Raises:
        MissingFileError: if it was deleted since.
        BackendError: if it cannot be read, the library refuses it, or GPU memory runs out.
    """

    def __init__(self, library: Library, path: Path) -> None:
        self._library = library
        self._path = path
        # Memory for the profile that a context uses, and not for the largest of all.
        self._strategy = library.module.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        log = message_log(library)
        self._engine: Any = None
        self._runtime: Any = None
        try:
            self._runtime = start(library, "Runtime", log)
        except BackendUnavailableError as error:
            raise BackendError(f"{path} is not loaded: {error}") from error
        with log.collect() as messages, mapped(path) as data:
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            reason = _reason(messages)
            raise BackendError(
                f"{library.description} does not load {path}: {reason}; free GPU memory, or build it again with "
                "`seginfer build --rebuild`"
            )

    def check(self, report: EngineReport) -> None:
        """Hold the engine's tensors against those that its report promises.

        Raises:
            BackendError: if one is missing, additional or of another type.
        """
        expected = {(t.name, "INPUT", t.dtype) for t in report.inputs}
        expected |= {(t.name, "OUTPUT", t.dtype) for t in report.outputs}
        found = {(name, self._mode(name), self._dtype(name)) for name in self._names()}
        if expected != found:
            raise BackendError(
                f"{self._path} is not the engine that its sidecar describes: expected tensors {sorted(expected)}, "
                f"got {sorted(found)}; build it again with `seginfer build --rebuild`"
            )

    def execution(
        self, profile: int, input_name: str, shape: tuple[int, ...], outputs: tuple[str, ...], gpu: Gpu
    ) -> EngineExecution:
        """Return a context with its memory, for inputs of one shape within a profile.

        Raises:
            InputError: if the engine does not take this shape.
            BackendError: if memory runs out.
        """
        log = message_log(self._library)
        with log.collect() as messages:
            context = self._engine.create_execution_context(self._strategy)
        if context is None:
            reason = _reason(messages)
            raise BackendError(
                f"{self._library.description} has no memory to run {self._path}: {reason}; free GPU memory, build it "
                "with a smaller batch or workspace, or open fewer models"
            )
        execution = EngineExecution(self._library, context, gpu)
        try:
            execution.choose(profile, input_name, shape)
            tensors = {name: execution.place(name, self._dtype(name)) for name in self._names()}
        except BaseException:
            execution.close()
            raise
        execution.input = tensors[input_name]
        execution.outputs = {name: tensors[name] for name in outputs}
        return execution

    def close(self) -> None:
        """Free the engine; contexts must be gone."""
        self._engine = self._runtime = None

    def _names(self) -> list[str]:
        return [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]

    def _mode(self, name: str) -> str:
        return str(self._engine.get_tensor_mode(name).name)

    def _dtype(self, name: str) -> str:
        return dtype_name(self._engine.get_tensor_dtype(name))


class EngineExecution:
    """See `Execution`; made by `LoadedEngine.execution`, which chooses a shape and places every tensor."""

    obstacle = ""

    def __init__(self, library: Library, context: Any, gpu: Gpu) -> None:
        self._library = library
        self._context = context
        self._gpu = gpu
        self._log = message_log(library)
        self.memory = TensorMemory(gpu)
        self.input: DeviceTensor
        self.outputs: dict[str, DeviceTensor]

    def choose(self, profile: int, name: str, shape: tuple[int, ...]) -> None:
        """Set the shape of the input.

        Raises:
            InputError: if the engine does not take it.
        """
        stream = self._gpu.stream
        with self._log.collect() as messages:
            is_ok = self._context.set_optimization_profile_async(profile, int(stream.handle))
            stream.sync()
            is_ok = is_ok and self._context.set_input_shape(name, shape)
        if not is_ok:
            reason = _reason(messages)
            raise InputError(f"the engine does not take {name} of shape {shape}: {reason}; build it for this shape")

    def place(self, name: str, dtype: str) -> DeviceTensor:
        """Give a tensor its memory.

        Raises:
            BackendError: if memory runs out, or the size depends on the data.
        """
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(
                f"output {name!r} has a shape {shape} that depends on the data, which is not supported; "
                "let the model pad it to a fixed number of rows"
            )
        tensor = self.memory.tensor(shape, dtype)
        if not self._context.set_tensor_address(name, tensor.address):
            raise BackendError(f"{self._library.description} refuses an address for {name!r}; report this as a bug")
        return tensor

    def enqueue(self, stream: Any) -> None:
        """Start the network; see `Execution.enqueue`."""
        with self._log.collect() as messages:
            is_started = self._context.execute_async_v3(int(stream.handle))
        if not is_started:
            reason = _reason(messages)
            raise BackendError(f"{self._library.description} could not start the network: {reason}")

    def close(self) -> None:
        """Free context and memory."""
        self._context = None
        self.memory.close()


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Yield the content of an engine, which was there a moment ago.

    Raises:
        MissingFileError: if it was deleted since.
        BackendError: if it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} was deleted while it was opened; open it or build it again") from error
    except (OSError, ValueError) as error:  # ValueError: it is empty by now
        raise BackendError(f"cannot read {path}: {error}; check its permissions, or build it again") from error
    with data:
        yield data


def _reason(messages: list[Message]) -> str:
    return first_error(messages, parser=True) or gpu_error(messages) or "no reason given"
