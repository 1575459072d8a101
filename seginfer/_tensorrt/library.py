"""Find TensorRT or TensorRT for RTX, import it, and collect what it logs."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from .._errors import MissingDependencyError
from .._system.driver import has_gpu as has_gpu  # the name that this room uses

TENSORRT = "TensorRT"
RTX = "TensorRT for RTX"

# The second name is that of the wheel `tensorrt_rtx_cu13_bindings` when the package around it is not installed.
_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}


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
