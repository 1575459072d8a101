"""What NVIDIA's libraries say when something fails, cut to the one line that a person needs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .library import Message

_LENGTH = 240
_NOISE = ("cudaError", "Cuda Error", "CUDA driver version", "While parsing node", "--- Begin", "--- End", "Node name:")
_LOCATION = re.compile(r"\s*\bIn \w+ at \S+\.?$")
_API_ERROR = re.compile(r"Error Code \d+: ([\w ]+) \((.*)", re.DOTALL)
_USUAL_KINDS = ("API Usage Error", "Internal Error")
_ASSERTION = re.compile(r'^Assertion (?:failed: .*(?:: |&& "(?=\w))|\S+(?: \S+)*? failed\. )', re.DOTALL)
_NO_MEMORY = re.compile(r"out of memory|OutOfMemory|cuda ?error:? 2\b", re.IGNORECASE)
_CUDA_ERROR = re.compile(r"cudaError \d+: [^()\n]+")
_QUOTED = re.compile(r'&& "([^"]+)"')


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
