"""The record of the full ring: when `pytest -m full` last ran, on which commit, and with what result."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

NAME = "full-record.json"
OUTCOMES = ("passed", "failed", "error", "skipped")
_NARROWING = ("keyword", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "maxfail", "collectonly")


def summarize(terminal: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Record a whole run of the full ring; below a whole run of the short ring, show the age of that record."""
    if not _is_whole(config):
        return
    folder = config.rootpath / "tests"
    if config.option.markexpr == "not full" and (line := age(folder)):
        terminal.write_line(f"warning: {line}", yellow=True)
    is_complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if config.option.markexpr == "full" and is_complete:
        write(folder, {name: len(terminal.stats.get(name, [])) for name in OUTCOMES})


def _is_whole(config: pytest.Config) -> bool:
    """Tell whether a run selects all of a ring: no path, no further selection, no stop at a failure."""
    is_narrowed = any(getattr(config.option, name, None) for name in _NARROWING)
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not is_narrowed


def write(folder: Path, counts: dict[str, int]) -> None:
    """Write the record of a run that ends now; nothing outside of a git repository, where no commit names the code."""
    if not _is_tracked(folder):
        return
    changes = _git(folder.parent, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{folder.name}/{NAME}")
    commit = _git(folder, "rev-parse", "HEAD")
    record = {"commit": commit, "has_changes": bool(changes), "date": date.today().isoformat(), **counts}
    (folder / NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def age(folder: Path) -> str:
    """Return one line: how many commits came after the record, and its result; nothing outside of a git repository."""
    if not _is_tracked(folder):
        return ""
    if not (folder / NAME).is_file():
        return f"the full ring has no record; `pytest -m full` writes tests/{NAME}"
    record: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    count = _git(folder, "rev-list", "--count", f"{record['commit']}..HEAD")
    when = "on a commit that is not in this clone" if count is None else f"{count} commits ago"
    changes = " with uncommitted changes" if record["has_changes"] else ""
    counts = ", ".join(f"{record[name]} {name}" for name in OUTCOMES if record[name])
    return f"the full ring last ran {when}{changes}, {record['date']}: {counts}"


def _is_tracked(folder: Path) -> bool:
    """Tell whether the parent of a folder is the top of a git repository with a commit."""
    is_top = _git(folder, "rev-parse", "--show-prefix") == f"{folder.name}/"
    return is_top and _git(folder, "rev-parse", "--verify", "HEAD") is not None


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None where there is no git, or it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
