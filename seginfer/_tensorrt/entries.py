"""Look up, list and clear engines in the cache."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .._errors import BackendUnavailableError, MissingFileError, ModelFileError, OutputWriteError
from .._system.environment import foreign_problem
from .cache import (
    ENGINE_NAME,
    TIMING_NAME,
    find_leftovers,
    list_folder,
    lock_path,
    timing_path,
    timing_prefix,
    try_entry_lock,
)
from .engine_file import EngineFile, read_engine, read_sidecar, sidecar_path
from .key import EngineKey, list_keys_here, list_machine_keys
from .runtime_cache import runtime_cache_path

State = Literal["usable", "stale", "unknown", "broken", "building"]

_SUFFIXES = (".json", ".runtime", ".lock")  # of files beside an engine


@dataclass(frozen=True)
class CacheEntry:
    """An engine in the cache."""

    path: Path
    state: State
    """usable: matches this machine. stale: intact, and does not match this machine. unknown: intact, but the library or
    GPU that it needs is not available now, as during a driver update. broken: damaged or incomplete. building: a
    process is building it."""
    reason: str
    """Reason why it is not usable."""
    size_bytes: int
    """Size of the engine, its sidecar and its runtime cache."""
    engine: EngineFile | None
    """None if it is broken or being built."""


@dataclass(frozen=True)
class Cleared:
    """Result of `clear`."""

    engines: int
    files: int
    freed_bytes: int
    building: tuple[Path, ...]
    """Engines that were kept because a process is building them."""


def look_up(entry: Path, key: EngineKey) -> tuple[EngineFile | None, str]:
    """Return the engine of a key, or None with a reason. The reason is "" if there is no file."""
    if problem := foreign_problem(entry) or foreign_problem(sidecar_path(entry)):
        return None, problem
    try:
        engine = read_engine(entry)
    except MissingFileError:
        return None, ""
    except ModelFileError as error:
        return None, str(error)
    difference = engine.key.mismatch(key)
    return (None, f"{entry} is of another key: {difference}") if difference else (engine, "")


def explain_miss(entry: Path, key: EngineKey) -> str:
    """Return the reason why the cache lacks an engine.

    It names the difference to another engine of this model, or else of a model of this name.
    """
    others = []
    name = entry.name.rpartition("-")[0]
    for sidecar in sorted(entry.parent.glob(f"{name}-*.engine.json")):
        with suppress(ModelFileError, MissingFileError):
            others.append(read_sidecar(sidecar.with_suffix("")).key)
    others.sort(key=lambda other: (other.onnx_sha256 != key.onnx_sha256, len(other.differences(key))))
    if not others:
        return "the cache has none of this model"
    return f"the cache has one for {others[0].mismatch(key) or 'this key, which is broken'}"


def list_entries(folder: Path) -> list[CacheEntry]:
    """List the engines of a cache by name.

    Each is read in full and compared with this machine.

    Raises:
        OutputWriteError: if the cache is not a folder, or cannot be read.
    """
    return [_read_entry(path) for path in _find_entries(folder)]


def clear(folder: Path, *, stale_only: bool = False) -> Cleared:
    """Delete engines, timings and kernels of a cache.

    Other files stay, and so do engines that are being built.

    Args:
        folder: the cache, which need not exist.
        stale_only: delete only engines and timings that surely do not match this machine, and leftovers of killed
            builds.

    Raises:
        OutputWriteError: if a file cannot be deleted.
    """
    engines, building, sizes = 0, [], []
    for path in _find_entries(folder):
        with try_entry_lock(path) as is_free:
            if not is_free:
                building.append(path)
            elif not (stale_only and _classify(path)[0] in ("usable", "unknown")):
                engines += 1
                # The sidecar goes first: an engine without one is never loaded.
                sizes += _delete([sidecar_path(path), path, runtime_cache_path(path), lock_path(path)])
    sizes += _delete(_find_idle_locks(folder, building))
    sizes += _delete(find_leftovers(folder))
    sizes += _delete(_find_timings(folder, stale_only))
    if not stale_only:
        sizes += _delete((folder / "kernels").glob("*.cubin"))
    return Cleared(engines, len(sizes), sum(sizes), tuple(building))


def cache_size(folder: Path) -> tuple[int, int]:
    """Return number and bytes of the engines in a cache. They are not read."""
    paths = _find_entries(folder)
    return sum(os.path.isfile(path) for path in paths), sum(_size(path) for path in paths)


def _find_entries(folder: Path) -> list[Path]:
    """Find engines: complete, in part, or being built."""
    found = set()
    for path in list_folder(folder):
        entry = next((path.name.removesuffix(suffix) for suffix in _SUFFIXES if path.name.endswith(suffix)), path.name)
        if ENGINE_NAME.fullmatch(entry) and (not path.name.endswith(".lock") or not _is_free(folder / entry)):
            found.add(folder / entry)
    return sorted(found)


def _is_free(entry: Path) -> bool:
    with try_entry_lock(entry) as is_free:
        return is_free


def _read_entry(path: Path) -> CacheEntry:
    if not _is_free(path):
        return CacheEntry(path, "building", "a process is building it", _size(path), None)
    state, reason, engine = _classify(path)
    return CacheEntry(path, state, reason, _size(path), engine)


def _classify(path: Path) -> tuple[State, str, EngineFile | None]:
    if problem := foreign_problem(path) or foreign_problem(sidecar_path(path)):
        return "broken", problem, None
    try:
        engine = read_engine(path)
    except (MissingFileError, ModelFileError) as error:
        return "broken", str(error), None
    try:
        keys = list_keys_here(engine.key)
    except BackendUnavailableError as error:
        return "unknown", str(error), engine
    gpu = engine.key.gpu
    is_missing = gpu is not None and keys[0].gpu is None  # TensorRT for RTX needs none
    if is_missing:
        keys = [replace(keys[0], gpu=gpu)]
    differences = [engine.key.mismatch(here) for here in keys]
    if "" not in differences:
        return "stale", f"built for {differences[0]}", engine
    if is_missing:
        return "unknown", f"built for GPU {gpu}, and no GPU can be found here", engine
    return "usable", "", engine


def _size(path: Path) -> int:
    """Return the bytes of an engine and the files beside it."""
    size = 0
    for file in (path, sidecar_path(path), runtime_cache_path(path)):
        with suppress(OSError):  # it has just been deleted
            found = file.stat()
            size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size


def _find_idle_locks(folder: Path, building: Iterable[Path]) -> list[Path]:
    held = {lock_path(path) for path in building}
    locks = (path for path in folder.glob("*.engine.lock") if ENGINE_NAME.fullmatch(path.name.removesuffix(".lock")))
    return [path for path in locks if path not in held and _is_free(path.with_suffix(""))]


def _find_timings(folder: Path, stale_only: bool) -> list[Path]:
    found = [path for path in list_folder(folder) if TIMING_NAME.fullmatch(path.name)]
    if not stale_only:
        return found
    keys = list_machine_keys()
    return [path for path in found if _is_stale_timing(path, keys)]


def _is_stale_timing(path: Path, keys: Iterable[EngineKey]) -> bool:
    # Timings of a library or GPU that cannot be found here may be of use again.
    own = [key for key in keys if path.name.startswith(timing_prefix(key.backend))]
    if any(key.gpu is None for key in own):
        return not path.name.startswith(timing_prefix(own[0].backend, own[0].library_version))
    return bool(own) and path not in {timing_path(path.parent, key) for key in own}


def _delete(paths: Iterable[Path]) -> list[int]:
    """Delete files, and return sizes of those that existed."""
    sizes = []
    for path in paths:
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputWriteError(
                f"cannot delete {path}: {error.strerror or error}; check the permissions of its folder"
            ) from error
        sizes.append(size)
    return sizes
