"""`seginfer cache list` and `seginfer cache clear`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._spec.schema import unstructure
from .._system.environment import cache_folder
from .._tensorrt.entries import CacheEntry, Cleared, clear, list_entries
from .._tensorrt.report import ShapeRange
from .output import Output

PARTLY_DONE = 1


def list_cache(args: argparse.Namespace, output: Output) -> int:
    """List the cached engines, and whether they work here."""
    del args
    folder = cache_folder()
    with output.waiting(f"reading {folder}"):
        entries = list_entries(folder)
    data = {"folder": folder, "entries": [_data(entry) for entry in entries]}
    output.result(data, lambda: _show(output, folder, entries))
    return 0


def clear_cache(args: argparse.Namespace, output: Output) -> int:
    """Delete cached engines.

    The exit code is 1 if one is left because it is being built.
    """
    folder = cache_folder()
    cleared = clear(folder, stale_only=args.stale)
    data = {"folder": folder, **unstructure(cleared), "building": [str(path) for path in cleared.building]}
    output.result(data, lambda: _show_cleared(output, folder, cleared))
    return PARTLY_DONE if cleared.building else 0


def engines_in_words(count: int, size_bytes: int) -> str:
    """Format a summary such as "2 engines, 3.1 MB"."""
    size = f"{size_bytes / 1e6:.1f} MB" if size_bytes < 1e9 else f"{size_bytes / 1e9:.2f} GB"
    return f"{count} engine{'' if count == 1 else 's'}, {size}"


def _data(entry: CacheEntry) -> dict[str, Any]:
    data = {"path": entry.path, "state": entry.state, "reason": entry.reason, "size_bytes": entry.size_bytes}
    engine = entry.engine
    if engine is None:
        return data
    return data | {
        "model": engine.model,
        "built": engine.built,
        "key": unstructure(engine.key),
        "report": unstructure(engine.report),
    }


def _show(output: Output, folder: Path, entries: Sequence[CacheEntry]) -> None:
    if not entries:
        output.say(f"no engines in {folder}")
        return
    columns = ("model", "size", "built (UTC)", "library", "GPU", "profiles", "state")
    output.table(str(folder), columns, [_row(entry) for entry in entries])
    for entry in entries:
        if entry.reason:
            output.say(f"{entry.path.name} is {entry.state}: {entry.reason}")
    total = engines_in_words(len(entries), sum(entry.size_bytes for entry in entries))
    output.say(f"{total}; {sum(entry.state == 'usable' for entry in entries)} usable here")
    if any(entry.state in ("stale", "broken") for entry in entries):
        output.say("`seginfer cache clear --stale` deletes the stale and broken ones")


def _row(entry: CacheEntry) -> tuple[str, ...]:
    size, engine = f"{entry.size_bytes / 1e6:.1f} MB", entry.engine
    if engine is None:
        return entry.path.name, size, "", "", "", "", entry.state
    key = engine.key
    return (
        engine.model,
        size,
        engine.built.partition("+")[0].replace("T", " "),
        f"{key.library} {key.library_version}",
        "any" if key.gpu is None else key.gpu.name,
        "; ".join(map(_range, engine.report.profiles)),
        entry.state,
    )


def _range(profile: ShapeRange) -> str:
    shapes = (profile.max,) if profile.is_fixed else (profile.min, profile.opt, profile.max)
    return " .. ".join("x".join(map(str, shape)) for shape in shapes)


def _show_cleared(output: Output, folder: Path, cleared: Cleared) -> None:
    freed = engines_in_words(cleared.engines, cleared.freed_bytes)
    output.say(f"deleted {freed} ({cleared.freed_bytes} bytes), in {folder}")
    for path in cleared.building:
        output.say(f"left {path.name}: a process is building it; clear again afterwards")
