"""Names and locks of the engine cache. `entries` reads its content.

<model>-<16 digits of the key>.engine          and .engine.json, its sidecar
<model>-<16 digits of the key>.engine.runtime  kernels compiled for it, see `runtime_cache`
<model>-<16 digits of the key>.engine.lock     held while that engine is built
timing-<library>-<version>-<gpu>.cache         measurements of builds
kernels/                                       cubins, see `_cuda`
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .._errors import OutputWriteError
from .._system.atomic import PART_NAME, make_folder
from .._system.environment import CACHE_VARIABLE
from .key import EngineKey

ENGINE_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}-[0-9a-f]{16}\.engine")
TIMING_NAME = re.compile(r"timing-[A-Za-z0-9._-]+\.cache")

_MAX_STEM = 40  # as in ENGINE_NAME
_LONGEST_WAIT = 3600.0  # seconds
# Through no link, and without waiting for the other end of a pipe.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_log = logging.getLogger("seginfer")


def entry_path(folder: Path, model: Path, key: EngineKey) -> Path:
    """Return the path of an engine in the cache."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", model.stem).lstrip(".")[:_MAX_STEM] or "model"
    return folder / f"{stem}-{key.digest()[:16]}.engine"


def timing_path(folder: Path, key: EngineKey) -> Path:
    """Return the path of timings for a key.

    Builds share them by library, its version and GPU.
    """
    gpu = "none" if key.gpu is None else str(key.gpu)
    return folder / f"{timing_prefix(key.backend, key.library_version)}{_sanitize(gpu)}.cache"


def timing_prefix(*labels: str) -> str:
    """Return the prefix of names of timings. Labels are a library and perhaps its version."""
    return "".join(f"{_sanitize(label)}-" for label in ("timing", *labels))


def _sanitize(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)


def list_folder(folder: Path) -> list[Path]:
    """Return the files of a cache, if it exists.

    Raises:
        OutputWriteError: if it is not a folder, or cannot be read.
    """
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputWriteError(
            f"cannot list the engine cache {folder}: {error.strerror or error}; set {CACHE_VARIABLE} to a folder that "
            "can be read and written"
        ) from error


def lock_path(entry: Path) -> Path:
    """Return the lock file of an engine."""
    return entry.with_name(f"{entry.name}.lock")


@contextmanager
def entry_lock(entry: Path, label: object) -> Iterator[None]:
    """Hold the lock of an entry.

    Waits up to an hour while another process holds it. The system frees the locks of a process that ends.

    Args:
        entry: path of the engine, which need not exist.
        label: its name in the log.

    Raises:
        OutputWriteError: if the folder cannot be made or written, or the wait was too long.
    """
    make_folder(entry.parent, 0o700)
    try:
        file = _open_locked(lock_path(entry), label)
    except OSError as error:
        raise OutputWriteError(f"cannot lock {lock_path(entry)}: {error.strerror or error}") from error
    try:
        yield
    finally:
        _unlock(file)


@contextmanager
def try_entry_lock(entry: Path) -> Iterator[bool]:
    """Try to lock an entry, and yield whether it is free.

    An entry without a lock file is free. No lock file is made for it, so a build may begin meanwhile.
    """
    try:
        file = os.open(lock_path(entry), os.O_RDONLY | _SAFELY)
    except OSError as error:
        yield isinstance(error, FileNotFoundError)  # one that cannot be opened may be held
        return
    try:
        yield _try_lock(file)
    finally:
        _unlock(file)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, if it has one.

    Some file systems lock no folders. The lock leaves no file. Two processes that rename files in one folder take turns
    by it, so it is held for moments.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # NFS
            file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_EX)
            stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
        yield


def find_leftovers(folder: Path, own: Path | None = None) -> list[Path]:
    """Return temporary files of processes that were killed.

    Args:
        folder: the cache.
        own: an entry that the caller has locked and not begun to write.
    """
    # In this order: a part that exists now, and is no leftover, belongs to a build that holds its lock by now.
    parts = [path for path in list_folder(folder) if PART_NAME.fullmatch(path.name)]
    return [] if parts and _is_busy(folder, own) else parts


def _is_busy(folder: Path, own: Path | None) -> bool:
    """Tell whether another entry is being built."""
    for path in folder.glob("*.engine.lock"):
        if own is None or path != lock_path(own):
            with try_entry_lock(path.with_suffix("")) as is_free:
                if not is_free:
                    return True
    return False


def _open_locked(path: Path, label: object) -> int:
    """Open and lock a file, waiting for other processes."""
    start, has_waited = time.monotonic(), False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | _SAFELY, 0o600)
        try:
            if not _try_lock(file):
                owner = os.pread(file, 200, 0).decode(errors="replace").strip() or "which has not said its name"
                if time.monotonic() - start > _LONGEST_WAIT:
                    raise OutputWriteError(f"{path} was held for too long by {owner}; stop it, or wait for its end")
                if not has_waited:
                    _log.warning("%s: another process builds this engine, %s; waiting for it", label, owner)
                    has_waited = True
                time.sleep(0.1)
            # Where the file was deleted meanwhile, another process may have locked its successor.
            elif _is_file_at(path, file):
                with suppress(OSError):  # a full disk
                    os.pwrite(file, f"process {os.getpid()} on {platform.node()}\n".encode().ljust(200), 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a fork of this process holds the file too
    os.close(file)


def _is_file_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
