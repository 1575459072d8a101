"""Find TensorRT or TensorRT for RTX, and read its log."""

from __future__ import annotations

import functools
import importlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, NamedTuple

from .._errors import BackendUnavailableError, MissingDependencyError
from .._system.driver import GpuInfo, has_gpu

TENSORRT = "TensorRT"
RTX = "TensorRT for RTX"

# The second name is that of the wheel `tensorrt_rtx_cu13_bindings` when the package around it is not installed.
_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}

# Of log messages: what `extract_reason` leaves out, and its longest result.
_NOISE = ("cudaError", "Cuda Error", "CUDA driver version", "While parsing node", "--- Begin", "--- End", "Node name:")
_LOCATION = re.compile(r"\s*\bIn \w+ at \S+\.?$")
_API_ERROR = re.compile(r"Error Code \d+: ([\w ]+) \((.*)", re.DOTALL)
_USUAL_KINDS = ("API Usage Error", "Internal Error")
_ASSERTION = re.compile(r'^Assertion (?:failed: .*(?:: |&& "(?=\w))|\S+(?: \S+)*? failed\. )', re.DOTALL)
_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|cuda ?error:? 2\b", re.IGNORECASE)
_CUDA_ERROR = re.compile(r"cudaError \d+: [^()\n]+")
_QUOTED = re.compile(r'&& "([^"]+)"')
_MAX_LENGTH = 240


@dataclass(frozen=True)
class Library:
    """An imported TensorRT or TensorRT for RTX."""

    name: str
    module: Any

    @property
    def version(self) -> str:
        """Version, such as "1.7.1.116"."""
        return str(self.module.__version__)

    @property
    def description(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


class Message(NamedTuple):
    """One line or block of the library's log."""

    severity: str
    """INTERNAL_ERROR, ERROR, WARNING, INFO or VERBOSE."""
    text: str


@dataclass
class MessageLog:
    """Log of a library. Messages are kept while a `collect` block is open and dropped otherwise."""

    logger: Any = None
    _collections: dict[int, list[Message]] = field(default_factory=dict)
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def add(self, severity: str, text: str) -> None:
        """Append a message to every open collection."""
        for collection in list(self._collections.values()):  # other threads open and close theirs
            collection.append(Message(severity, text))

    @contextmanager
    def collect(self) -> Iterator[list[Message]]:
        """Collect the messages of all threads in a list, until the block ends."""
        number = next(self._serial)
        collection = self._collections[number] = []
        try:
            yield collection
        finally:
            del self._collections[number]


def find_library(requested: str = "auto", gpu: GpuInfo | None = None) -> Library:
    """Import TensorRT or TensorRT for RTX.

    Args:
        requested: as `EngineOptions.library`: "tensorrt", "tensorrt_rtx", or "auto" for TensorRT where it and a GPU are
            present and TensorRT for RTX otherwise.
        gpu: the GPU to build for or run on. None is any.

    Raises:
        MissingDependencyError: if the requested library cannot be imported.
        BackendUnavailableError: if it does not support the GPU.
    """
    if requested == "tensorrt" and not has_gpu():
        raise MissingDependencyError(
            "TensorRT builds engines on an NVIDIA GPU only, and there is none here; "
            "build on the device, or with library 'tensorrt_rtx'"
        )
    if requested == "auto":
        names = [TENSORRT, RTX] if has_gpu() else [RTX]
    else:
        names = [TENSORRT] if requested == "tensorrt" else [RTX]
    reasons = []
    for name in names:
        for module in _MODULES[name]:
            imported = _try_import(module)
            if isinstance(imported, ModuleType):
                library = Library(name, imported)
                _refuse_unsupported(library, gpu)
                return library
            reasons.append(str(imported))
    raise MissingDependencyError(
        "expected TensorRT and a GPU, or TensorRT for RTX, which works without a GPU; cannot import either "
        f"({'; '.join(reasons)}); pip install 'seginfer[check]'"
    )


def supports_gpu(library: Library, gpu: GpuInfo) -> bool:
    """Tell whether a library has kernels for a GPU. True if it does not say."""
    known = _capabilities(library)
    return not known or gpu.compute_capability in known


def _capabilities(library: Library) -> list[tuple[int, int]]:
    """List the compute capabilities that TensorRT for RTX names. Its engines run on no others."""
    members = getattr(getattr(library.module, "ComputeCapability", None), "__members__", ())
    found = filter(None, (re.fullmatch(r"SM(\d+)(\d)", name) for name in members))
    return [(int(match[1]), int(match[2])) for match in found] if library.name == RTX else []


def _refuse_unsupported(library: Library, gpu: GpuInfo | None) -> None:
    if gpu is None or supports_gpu(library, gpu):
        return
    known = ", ".join(f"{major}.{minor}" for major, minor in _capabilities(library))
    major, minor = gpu.compute_capability
    raise BackendUnavailableError(
        f"{library.description} runs on compute capabilities {known}, got {gpu.name} ({major}.{minor}); use TensorRT "
        "there, the library and backend 'tensorrt': pip install 'seginfer[tensorrt]', on a Jetson JetPack's package"
    )


def _try_import(module: str) -> ModuleType | Exception:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a binary package without its libraries raises whatever its loader does
        return error


def message_log(library: Library) -> MessageLog:
    """Return the log of a library. A process has one, because TensorRT keeps its first logger."""
    return _message_log(library.module)


@functools.cache
def _message_log(module: Any) -> MessageLog:
    log = MessageLog()

    class Logger(module.ILogger):  # type: ignore[misc]  # the module is known when the program runs
        def log(self, severity: Any, text: str) -> None:
            log.add(severity.name, text)

    log.logger = Logger()
    if hasattr(module, "init_libnvinfer_plugins"):
        module.init_libnvinfer_plugins(log.logger, "")
    return log


def create(library: Library, kind: Literal["Builder", "Runtime"], log: MessageLog) -> Any:
    """Create a builder or runtime of a library.

    Raises:
        BackendUnavailableError: if the library cannot start: its driver is too old, or GPU memory ran out.
    """
    with log.collect() as messages:
        try:
            return getattr(library.module, kind)(log.logger)
        except TypeError as error:  # what the bindings raise for a null pointer
            raise BackendUnavailableError(
                f"{library.description} does not start here: {find_reason(messages)}; update NVIDIA's driver, free GPU "
                f"memory, or install a {library.name} that fits the driver"
            ) from error


def extract_reason(text: str) -> str:
    """Extract a one-line reason from a log message.

    Locations in NVIDIA's source, tested conditions and line breaks are removed.

    Returns:
        At most 240 characters. Empty if the message has no reason that helps a user.
    """
    lines = [line for line in text.splitlines() if line.strip() and not any(noise in line for noise in _NOISE)]
    causes = [line for line in lines if _API_ERROR.search(line)]
    reason = (causes or lines or [""])[0].strip()
    if api_error := _API_ERROR.search(reason):
        reason = _LOCATION.sub("", api_error[2].rstrip(" )"))
    quoted = _QUOTED.search(reason)
    reason = quoted[1] if quoted else _ASSERTION.sub("", reason)
    if api_error and api_error[1] not in _USUAL_KINDS:
        reason = f"{api_error[1]}: {reason}"
    reason = " ".join(reason.split()).rstrip('"')
    if reason.startswith("Invalid Node") or reason == "false":
        return ""
    return reason if len(reason) <= _MAX_LENGTH else f"{reason[: _MAX_LENGTH - 3]}..."


def find_error(messages: Iterable[Message], *, skip_parser: bool = False) -> str:
    """Return the first error of a log, or "".

    Args:
        messages: the log.
        skip_parser: ignore errors of the ONNX parser, which report effects of earlier errors.
    """
    for message in messages:
        is_parser = message.text.startswith(("ModelImporter.cpp", "WeightsContext.cpp"))
        if "ERROR" in message.severity and not (skip_parser and is_parser):
            reason = extract_reason(message.text)
            if reason:
                return reason
    return ""


def find_reason(messages: Sequence[Message]) -> str:
    """Return the first error of a log, or "no reason given". CUDA errors come last."""
    # `extract_reason` leaves CUDA errors out: where a file is parsed without a GPU, they are noise.
    errors = (message.text for message in messages if "ERROR" in message.severity)
    cuda_error = next(filter(None, map(_CUDA_ERROR.search, errors)), None)
    return find_error(messages) or (cuda_error[0].strip() if cuda_error else "no reason given")


def is_out_of_memory(messages: Iterable[Message]) -> bool:
    """Tell whether a log reports exhausted GPU memory."""
    return any("ERROR" in message.severity and _NO_MEMORY.search(message.text) for message in messages)
