"""Count the kernels of an engine by kind: from its inspector where there is a GPU, from the build log otherwise."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

HOST_KINDS = frozenset({"shape_call"})
"""Layers that compute shapes on the CPU, and launch nothing."""

_HEADING = "Layers:\n"
_LINE = re.compile(r"Name: .*?, LayerType: (\w+), Inputs: ")

Kinds = dict[str, int]


def kinds_of_log(texts: Iterable[str]) -> Kinds | None:
    """Read the list of layers that a detailed build logs at its end; None if there is not exactly one, in full.

    Builds with less detail list "Layer(Myelin)" instead, which stands for any number of kernels.
    """
    lists = [text for text in texts if text.startswith(_HEADING)]
    if len(lists) != 1:
        return None
    # splitlines() would also split metadata, whose names control characters separate.
    lines = lists[0].removeprefix(_HEADING).partition("\n\n")[0].split("\n")
    found = [_LINE.match(line) for line in lines]
    return _counted(match[1] if match else None for match in found)


def kinds_of_json(text: str) -> Kinds | None:
    """Count what an engine's inspector lists; None if that is bare names."""
    try:
        layers: list[Any] = json.loads(text)["Layers"]
        return _counted(layer["LayerType"] for layer in layers)
    except (ValueError, KeyError, TypeError):  # without details, layers are bare names
        return None


def _counted(kinds: Iterable[str | None]) -> Kinds | None:
    counts = Counter(kinds)
    if not counts or None in counts:
        return None
    return {str(kind): count for kind, count in sorted(counts.items(), key=str) if kind not in HOST_KINDS}
