"""Find TensorRT or TensorRT for RTX, import it, and collect what it logs."""

from __future__ import annotations

import functools
import importlib
import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, NamedTuple

from .._errors import BackendUnavailableError, MissingDependencyError
from .._system.driver import has_gpu as has_gpu  # the name that this room uses

TENSORRT = "TensorRT"
RTX = "TensorRT for RTX"

# The second name is that of the wheel `tensorrt_rtx_cu13_bindings` when the package around it is not installed.
_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}

_LENGTH = 240
_NOISE = ("cudaError", "Cuda Error", "CUDA driver version", "While parsing node", "--- Begin", "--- End", "Node name:")
_LOCATION = re.compile(r"\s*\bIn \w+ at \S+\.?$")
_API_ERROR = re.compile(r"Error Code \d+: ([\w ]+) \((.*)", re.DOTALL)
_USUAL_KINDS = ("API Usage Error", "Internal Error")
_ASSERTION = re.compile(r'^Assertion (?:failed: .*(?:: |&& "(?=\w))|\S+(?: \S+)*? failed\. )', re.DOTALL)
_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|cuda ?error:? 2\b", re.IGNORECASE)
_CUDA_ERROR = re.compile(r"cudaError \d+: [^()\n]+")
_QUOTED = re.compile(r'&& "([^"]+)"')


@dataclass(frozen=True)
class Library:
    """One of the two libraries, imported."""

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
    """What a library logs goes here while somebody collects it, and nowhere otherwise."""

    logger: Any = None
    _collections: dict[int, list[Message]] = field(default_factory=dict)
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def add(self, severity: str, text: str) -> None:
        """Append a message to every collection that is open."""
        for collection in list(self._collections.values()):  # other threads open and close theirs
            collection.append(Message(severity, text))

    @contextmanager
    def collect(self) -> Iterator[list[Message]]:
        """Yield a list that grows with every message, of whichever thread, until the block ends."""
        number = next(self._serial)
        collection = self._collections[number] = []
        try:
            yield collection
        finally:
            del self._collections[number]


def find_library(wish: str = "auto") -> Library:
    """Import TensorRT where there is a GPU, which it cannot do without, and TensorRT for RTX otherwise.

    Args:
        wish: as `EngineOptions.library`: "auto", "tensorrt" or "tensorrt_rtx".

    Raises:
        MissingDependencyError: if what is asked for does not import.
    """
    if wish == "tensorrt" and not has_gpu():
        raise MissingDependencyError(
            "TensorRT builds engines on an NVIDIA GPU only, and there is none here; "
            "build on the device, or with library 'tensorrt_rtx'"
        )
    reasons = []
    for name in _wished(wish):
        for module in _MODULES[name]:
            imported = _import(module)
            if isinstance(imported, ModuleType):
                return Library(name, imported)
            reasons.append(str(imported))
    raise MissingDependencyError(
        f"NVIDIA's parser needs TensorRT and a GPU, or TensorRT for RTX, which needs none; neither is importable here "
        f"({'; '.join(reasons)}); pip install 'seginfer[check]'"
    )


def _wished(wish: str) -> tuple[str, ...]:
    if wish == "auto":
        return (TENSORRT, RTX) if has_gpu() else (RTX,)
    return (TENSORRT,) if wish == "tensorrt" else (RTX,)


def message_log(library: Library) -> MessageLog:
    """Return the log of a library: one per process, because TensorRT keeps the first logger it is given."""
    return _message_log(library.module)


def _import(module: str) -> ModuleType | Exception:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a binary package without its libraries raises whatever its loader does
        return error


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


def start(library: Library, kind: Literal["Builder", "Runtime"], log: MessageLog) -> Any:
    """Return a new builder or run-time of a library.

    Raises:
        BackendUnavailableError: if the library makes none: the driver is too old for it, or GPU memory ran out.
    """
    with log.collect() as messages:
        try:
            return getattr(library.module, kind)(log.logger)
        except TypeError as error:  # what the bindings raise for a null pointer
            reason = first_error(messages, parser=True) or gpu_error(messages) or "no reason given"
            raise BackendUnavailableError(
                f"{library.description} does not start here: {reason}; update NVIDIA's driver, free GPU memory, or "
                f"install a {library.name} that fits the driver"
            ) from error


def reason_of(text: str) -> str:
    """Return what a message says without the place in NVIDIA's source, the condition it tested, and line breaks.

    Empty if it says nothing that a person could use.
    """
    lines = [line for line in text.splitlines() if line.strip() and not any(noise in line for noise in _NOISE)]
    causes = [line for line in lines if _API_ERROR.search(line)]
    said = (causes or lines or [""])[0].strip()
    if api_error := _API_ERROR.search(said):
        said = _LOCATION.sub("", api_error[2].rstrip(" )"))
    quoted = _QUOTED.search(said)
    said = quoted[1] if quoted else _ASSERTION.sub("", said)
    if api_error and api_error[1] not in _USUAL_KINDS:
        said = f"{api_error[1]}: {said}"
    said = " ".join(said.split()).rstrip('"')
    if said.startswith("Invalid Node") or said == "false":
        return ""
    return said if len(said) <= _LENGTH else f"{said[: _LENGTH - 3]}..."


def first_error(messages: Iterable[Message], *, parser: bool) -> str:
    """Return the first error of a log in one line; with `parser`, not one of the parser, who knows effects only."""
    for message in messages:
        is_parser = message.text.startswith(("ModelImporter.cpp", "WeightsContext.cpp"))
        if "ERROR" in message.severity and (parser or not is_parser):
            reason = reason_of(message.text)
            if reason:
                return reason
    return ""


def gpu_error(messages: Iterable[Message]) -> str:
    """Return the first error of a log that CUDA gave: noise where a file is parsed without a GPU, else the reason."""
    errors = (message.text for message in messages if "ERROR" in message.severity)
    found = next(filter(None, map(_CUDA_ERROR.search, errors)), None)
    return found[0].strip() if found else ""


def is_out_of_memory(messages: Iterable[Message]) -> bool:
    """Tell whether errors of a log say that the GPU has no memory left."""
    return any("ERROR" in message.severity and _NO_MEMORY.search(message.text) for message in messages)
