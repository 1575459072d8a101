"""Make the objects that a library starts with, and say why where it cannot start."""

from __future__ import annotations

from typing import Any, Literal

from .._errors import BackendUnavailableError
from .library import Library, MessageLog
from .words import first_error, gpu_error


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
