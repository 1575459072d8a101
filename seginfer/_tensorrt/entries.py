"""What is in the engine cache: look an engine up, list all with their state, and clear."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .._errors import BackendUnavailableError, MissingFileError, ModelFileError, OutputWriteError
from .cache import ENGINE_NAME, TIMING_NAME, free_lock, leftovers, listing, lock_path, timing_path, timing_prefix
from .engine_file import EngineFile, read_engine, read_sidecar, sidecar_path
from .key import EngineKey, machine_keys, own_keys

State = Literal["usable", "stale", "unknown", "broken", "building"]

_SUFFIXES = ("", ".json", ".lock")


@dataclass(frozen=True)
class CacheEntry:
    """One engine in the cache."""

    path: Path
    state: State
    """usable: a build here would take it. stale: whole, and a build here would not take it. unknown: whole, and
    its library or GPU cannot be found here, which a driver's update may end. broken: not whole. building: a process is
    at work on it."""
    reason: str
    """Why it is not usable."""
    size_bytes: int
    """Of the engine and its sidecar."""
    engine: EngineFile | None
    """None if it is broken or being built."""


@dataclass(frozen=True)
class Cleared:
    """What `clear` did."""

    engines: int
    files: int
    freed_bytes: int
    building: tuple[Path, ...]
    """Engines that were left alone because a process is at work on them."""


def look_up(entry: Path, key: EngineKey) -> tuple[EngineFile | None, str]:
    """Return the engine of a key, or why there is none: an empty reason if nothing is there."""
    try:
        engine = read_engine(entry)
    except MissingFileError:
        return None, ""
    except ModelFileError as error:
        return None, str(error)
    difference = engine.key.mismatch(key)
    return (None, f"{entry} is of another key: {difference}") if difference else (engine, "")


def why_missing(entry: Path, key: EngineKey) -> str:
    """Say why the cache has nothing for a key: how an engine of this model, or of one of this name, differs."""
    others = []
    name = entry.name.rpartition("-")[0]
    for sidecar in sorted(entry.parent.glob(f"{name}-*.engine.json")):
        with suppress(ModelFileError, MissingFileError):
            others.append(read_sidecar(sidecar.with_suffix("")).key)
    others.sort(key=lambda other: other.onnx_sha256 != key.onnx_sha256)
    if not others:
        return "the cache has none of this model"
    return f"the cache has one for {others[0].mismatch(key) or 'this key, which is broken'}"


def list_entries(folder: Path) -> list[CacheEntry]:
    """Return the engines of a cache in the order of their names, each read in full and held against this machine.

    Raises:
        OutputWriteError: if the cache is no folder, or cannot be read.
    """
    return [_entry(path) for path in _entry_paths(folder)]


def clear(folder: Path, *, stale_only: bool = False) -> Cleared:
    """Delete what seginfer has put into a cache; other files stay, and so does what is being built.

    Args:
        folder: the cache; it need not exist.
        stale_only: delete engines and timings of which it is known that a build here would not take them, and leftovers
            of killed builds.

    Raises:
        OutputWriteError: if the file system refuses.
    """
    engines, building, sizes = 0, [], []
    for path in _entry_paths(folder):
        with free_lock(path) as is_free:
            if not is_free:
                building.append(path)
            elif not (stale_only and _state(path)[0] in ("usable", "unknown")):
                engines += 1
                # The sidecar goes first: an engine without one is never loaded.
                sizes += _delete([sidecar_path(path), path, lock_path(path)])
    sizes += _delete(_idle_locks(folder, building))
    sizes += _delete(leftovers(folder))
    sizes += _delete(_timings(folder, stale_only))
    if not stale_only:
        sizes += _delete((folder / "kernels").glob("*.cubin"))
    return Cleared(engines, len(sizes), sum(sizes), tuple(building))


def cache_size(folder: Path) -> tuple[int, int]:
    """Return how many engines a cache has, and how many bytes they take; nothing is read."""
    paths = _entry_paths(folder)
    return sum(os.path.isfile(path) for path in paths), sum(_size(path) for path in paths)


def _entry_paths(folder: Path) -> list[Path]:
    """Return every engine that is there, was there in part, or is being built."""
    found = set()
    for path in listing(folder):
        entry = next((path.name.removesuffix(suffix) for suffix in _SUFFIXES[1:] if path.name.endswith(suffix)), "")
        name = entry or path.name
        if ENGINE_NAME.fullmatch(name) and (not path.name.endswith(".lock") or not _is_free(folder / name)):
            found.add(folder / name)
    return sorted(found)


def _is_free(entry: Path) -> bool:
    with free_lock(entry) as is_free:
        return is_free


def _entry(path: Path) -> CacheEntry:
    if not _is_free(path):
        return CacheEntry(path, "building", "a process is at work on it", _size(path), None)
    state, reason, engine = _state(path)
    return CacheEntry(path, state, reason, _size(path), engine)


def _state(path: Path) -> tuple[State, str, EngineFile | None]:
    try:
        engine = read_engine(path)
    except (MissingFileError, ModelFileError) as error:
        return "broken", str(error), None
    try:
        keys = own_keys(engine.key)
    except BackendUnavailableError as error:
        return "unknown", str(error), engine
    gpu = engine.key.gpu
    is_missing = gpu is not None and keys[0].gpu is None  # TensorRT for RTX does without
    if is_missing:
        keys = [replace(keys[0], gpu=gpu)]
    differences = [engine.key.mismatch(here) for here in keys]
    if "" not in differences:
        return "stale", f"built for {differences[0]}", engine
    if is_missing:
        return "unknown", f"built for GPU {gpu}, and no GPU can be found here", engine
    return "usable", "", engine


def _size(path: Path) -> int:
    return _bytes(path) + _bytes(sidecar_path(path))


def _bytes(path: Path) -> int:
    """Return the size of a file; 0 if it is none, or has just been deleted."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _idle_locks(folder: Path, building: Iterable[Path]) -> list[Path]:
    held = {lock_path(path) for path in building}
    locks = (path for path in folder.glob("*.engine.lock") if ENGINE_NAME.fullmatch(path.name.removesuffix(".lock")))
    return [path for path in locks if path not in held and _is_free(path.with_suffix(""))]


def _timings(folder: Path, stale_only: bool) -> list[Path]:
    found = [path for path in listing(folder) if TIMING_NAME.fullmatch(path.name)]
    if not stale_only:
        return found
    keys = machine_keys()
    return [path for path in found if _is_stale_timing(path, keys)]


def _is_stale_timing(path: Path, keys: Iterable[EngineKey]) -> bool:
    """Tell whether timings are of nothing here; of a library or a GPU that cannot be found here, nobody knows."""
    own = [key for key in keys if path.name.startswith(timing_prefix(key.backend))]
    if any(key.gpu is None for key in own):
        return not path.name.startswith(timing_prefix(own[0].backend, own[0].library_version))
    return bool(own) and path not in {timing_path(path.parent, key) for key in own}


def _delete(paths: Iterable[Path]) -> list[int]:
    """Delete files, and return their sizes; those that are gone already do not count."""
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
