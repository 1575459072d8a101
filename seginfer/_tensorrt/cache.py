"""The folder of the engine cache: its names and its locks; `_entries` says what is in it.

<model>-<16 digits of the key>.engine        and .engine.json, its sidecar
<model>-<16 digits of the key>.engine.lock   held while that engine is built
timing-<library>-<version>-<gpu>.cache       what builds have measured
kernels/                                     cubins, see `_cuda`
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .._errors import OutputWriteError
from .._system.atomic import PART_NAME, make_folder
from .._system.environment import CACHE_VARIABLE
from .key import EngineKey

ENGINE_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}-[0-9a-f]{16}\.engine")
TIMING_NAME = re.compile(r"timing-[A-Za-z0-9._-]+\.cache")

_MOST_OF_A_NAME = 40

_log = logging.getLogger("seginfer")


def entry_path(folder: Path, model: Path, key: EngineKey) -> Path:
    """Return where the engine of a key lies."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", model.stem).lstrip(".")[:_MOST_OF_A_NAME] or "model"
    return folder / f"{stem}-{key.digest()[:16]}.engine"


def timing_path(folder: Path, key: EngineKey) -> Path:
    """Return where timings lie that a build with this key may use: those of its library, its version and its GPU."""
    gpu = "none" if key.gpu is None else str(key.gpu)
    return folder / f"{timing_prefix(key.backend, key.library_version)}{_safe(gpu)}.cache"


def timing_prefix(*labels: str) -> str:
    """Return how the names of timings start that are of a library, or of one version of it."""
    return "".join(f"{_safe(label)}-" for label in ("timing", *labels))


def _safe(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)


def listing(folder: Path) -> list[Path]:
    """Return what is in a cache; nothing if that is not there.

    Raises:
        OutputWriteError: if it is no folder, or cannot be read.
    """
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputWriteError(
            f"cannot look into the engine cache {folder}: {error.strerror or error}; set {CACHE_VARIABLE} to a folder "
            "that can be read and written"
        ) from error


def lock_path(entry: Path) -> Path:
    """Return the file that is locked while an engine is built."""
    return entry.with_name(f"{entry.name}.lock")


@contextmanager
def entry_lock(entry: Path, label: object) -> Iterator[None]:
    """Hold the lock of an entry, and wait while another process has it; the end of a process frees its locks.

    Args:
        entry: the engine, there or not.
        label: what to call it in the log.

    Raises:
        OutputWriteError: if the folder cannot be made or written.
    """
    make_folder(entry.parent)
    try:
        file = _locked(lock_path(entry), label)
    except OSError as error:
        raise OutputWriteError(f"cannot lock {lock_path(entry)}: {error.strerror or error}") from error
    try:
        yield
    finally:
        _release(file)


@contextmanager
def free_lock(entry: Path) -> Iterator[bool]:
    """Yield whether nobody builds the entry; if it has a lock file, nobody will meanwhile. Makes none."""
    try:
        file = os.open(lock_path(entry), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        yield isinstance(error, FileNotFoundError)  # one that cannot be opened may be held
        return
    try:
        yield _try(file)
    finally:
        _release(file)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder itself, which leaves no file; where the file system has none for folders, do without.

    For moments: it keeps two processes from giving names in one folder at a time.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # NFS
            file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX)
            stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
        yield


def leftovers(folder: Path, own: Path | None = None) -> list[Path]:
    """Return the files that processes have left which were killed while they wrote.

    Args:
        folder: the cache.
        own: the entry that the caller has locked, and has not begun to write.
    """
    # In this order: a part that is seen now, and is not left over, belongs to a build that holds its lock by now.
    parts = [path for path in listing(folder) if PART_NAME.fullmatch(path.name)]
    return [] if parts and _is_busy(folder, own) else parts


def _is_busy(folder: Path, own: Path | None) -> bool:
    """Tell whether an entry other than `own` is being built."""
    for path in folder.glob("*.engine.lock"):
        if own is None or path != lock_path(own):
            with free_lock(path.with_suffix("")) as is_free:
                if not is_free:
                    return True
    return False


def _locked(path: Path, label: object) -> int:
    """Open and lock a file; again if it was deleted in between, because then another may have locked its successor."""
    has_waited = False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _try(file):
                if not has_waited:
                    _log.warning("%s: another process builds this engine; waiting for it", label)
                    has_waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_file_at(path, file):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork of this process holds the file too
    os.close(file)


def _is_file_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
