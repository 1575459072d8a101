"""Count the kernels of an engine by kind: from its inspector where there is a GPU, from the build log otherwise."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from ._library import Library, Message, message_log

_HOST_KINDS = frozenset({"shape_call"})  # computes shapes on the CPU, and launches nothing
_HEADING = "Layers:\n"
_LINE = re.compile(r"Name: .*?, LayerType: (\w+), Inputs: ")

Kinds = dict[str, int]


def kernels_of_engine(library: Library, engine: bytes) -> Kinds | None:
    """Ask the engine's inspector, for which the engine must be loaded onto a GPU; None if it does not say."""
    runtime = library.module.Runtime(message_log(library).logger)
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        return None
    text = loaded.create_engine_inspector().get_engine_information(library.module.LayerInformationFormat.JSON)
    return _kinds_of_json(text)


def kernels_of_log(messages: Iterable[Message]) -> Kinds | None:
    """Read the list of layers that a detailed build logs at its end; None if there is not exactly one, in full.

    Builds with less detail list "Layer(Myelin)" instead, which stands for any number of kernels.
    """
    lists = [message.text for message in messages if message.text.startswith(_HEADING)]
    if len(lists) != 1:
        return None
    lines = lists[0].removeprefix(_HEADING).partition("\n\n")[0].splitlines()
    found = [_LINE.match(line) for line in lines]
    return _counted(match[1] if match else None for match in found)


def _kinds_of_json(text: str) -> Kinds | None:
    try:
        layers: list[Any] = json.loads(text)["Layers"]
        return _counted(layer["LayerType"] for layer in layers)
    except (ValueError, KeyError, TypeError):  # without details, layers are bare names
        return None


def _counted(kinds: Iterable[str | None]) -> Kinds | None:
    counts = Counter(kinds)
    if not counts or None in counts:
        return None
    return {str(kind): count for kind, count in sorted(counts.items(), key=str) if kind not in _HOST_KINDS}
