"""Cores, devices, optional packages and the cache folder of the process."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from types import ModuleType

from .._errors import InputError, MissingDependencyError, OutputWriteError

CACHE_VARIABLE = "SEGINFER_CACHE"


def usable_cores() -> int:
    """Return the number of cores available to the process.

    In a container this may be fewer than the machine has.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_threads(threads: int | None) -> int:
    """Validate a number of threads.

    Args:
        threads: 1..1024, or None for `usable_cores()`.

    Raises:
        InputError: if it is anything else.
    """
    if threads is None:
        return usable_cores()
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise InputError(f"threads must be an integer from 1 to 1024, got {threads!r}; use None for every core")
    return threads


def parse_device(device: str) -> tuple[str, int]:
    """Return (kind, index) of "auto", "cpu", "cuda" or "cuda:<index>".

    Raises:
        InputError: if it is none of them.
    """
    kind, _, index = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise InputError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>', got {device!r}")
    return kind, int(index or 0)


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package where it is used.

    Args:
        module: dotted name.
        extra: the extra of seginfer that installs it.
        purpose: the work that needs it, for the error.

    Raises:
        MissingDependencyError: if the import fails.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module}, which is not importable ({error}); pip install 'seginfer[{extra}]'"
        ) from error


def cache_folder() -> Path:
    """Return the folder for files kept between runs.

    It is $SEGINFER_CACHE, else $XDG_CACHE_HOME/seginfer, else ~/.cache/seginfer. It need not exist.

    Raises:
        OutputWriteError: if the user's home folder is needed and unknown, or other users may write into the cache.
    """
    folder = _cache_path()
    if problem := foreign_problem(folder):
        raise OutputWriteError(
            f"the cache {folder} is not used, because it holds code: {problem}; run `chmod go-w` on it, or set "
            f"{CACHE_VARIABLE} to a folder of your own"
        )
    return folder


def foreign_problem(path: Path) -> str:
    """Return the reason not to trust a file or folder, or "".

    It is not trusted if another user than this one and root owns it, or if a group or all may write it. A path that
    does not exist has no problem.
    """
    try:
        info = path.stat()
    except OSError:  # reported where it is used
        return ""
    if not hasattr(os, "geteuid"):
        return ""
    if info.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to user {info.st_uid}"
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write {path} (mode {stat.S_IMODE(info.st_mode):o})"
    return ""


def _cache_path() -> Path:
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen := os.environ.get(CACHE_VARIABLE):
            return Path(chosen).expanduser().absolute()
        if os.path.isabs(shared):  # relative paths are ignored, by the XDG Base Directory specification
            return Path(shared) / "seginfer"
        return Path.home() / ".cache" / "seginfer"
    except RuntimeError as error:
        raise OutputWriteError(f"no place for the engine cache: {error}; set {CACHE_VARIABLE} to a folder") from error
