"""Record that is on the disk while a benchmark runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seginfer._system.atomic import atomic_path


class Kept(dict[str, Any]):
    """The record of a run. It is on the disk after every `keep`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def keep(self, **entries: Any) -> None:
        """Add entries and write the file."""
        self.update(entries)
        with atomic_path(self._path) as part:
            part.write_text(json.dumps(self, indent=2) + "\n", encoding="utf-8")

    def in_words(self) -> str:
        """Return what the file holds."""
        return f"{len(self['cases'])} cases are in {self._path}" if self else "nothing was written"


def find_wrong(node: Any) -> Iterator[str]:
    """Yield the reasons of all wrong results in a record."""
    if isinstance(node, dict):
        yield from (reason for reason in [node.get("wrong")] if reason)
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from find_wrong(child)
