"""build_engine(): the engine of a model file, from the cache or new, in the cache or where the caller wants it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .._errors import BackendError, InputError, ModelFileError, OutputWriteError
from .._files.model_file import ENGINE_SUFFIX, ModelFile, read_model
from .._system.cache_folder import VARIABLE, cache_folder
from .build import Progress
from .cache import entry_lock, entry_path, leftovers, timing_path
from .engine_file import EngineFile, write_engine
from .entries import look_up, why_missing
from .isolated import build_isolated
from .key import EngineKey, engine_key, file_stamps
from .options import EngineOptions
from .report import EngineReport

_log = logging.getLogger("seginfer")

_Write = Callable[[Path, Path | None], EngineFile]


def build_engine(
    path: str | Path,
    output: str | Path | None = None,
    *,
    options: EngineOptions = EngineOptions(),  # noqa: B008  # frozen
    device_id: int = 0,
    rebuild: bool = False,
    timings: bool = True,
    on_progress: Progress | None = None,
) -> EngineFile:
    """Build the TensorRT engine of a model file, verify it, and keep it; or take it from the cache.

    An engine belongs to one model file, one build of TensorRT and one kind of GPU. In the cache it is looked up by all
    of that, so that nothing stale is ever run, and several processes may ask for it at once: one builds, the others
    wait. Where there is no GPU, TensorRT for RTX builds one that is for any of the GPUs that it supports.

    Args:
        path: the .onnx file with its ModelSpec.
        output: where to write the engine, as model.engine, and always build; None is the cache, which is the folder
            $SEGINFER_CACHE, or else $XDG_CACHE_HOME/seginfer, or else ~/.cache/seginfer.
        options: how to build it.
        device_id: the GPU to build on and for.
        rebuild: build even if the cache has it.
        timings: start from what earlier builds measured on this GPU, and keep what this one measures; False measures
            everything anew, and keeps nothing.
        on_progress: called with every step of the build; an exception from it ends the work.

    Returns:
        The engine, with what was read back from it.

    Raises:
        MissingFileError: if there is no such model file.
        ModelFileError: if it is not a complete and valid model, carries no spec, or changes in the meantime.
        InputError: if the options contradict the file, or `output` does not end in .engine.
        BackendUnavailableError: if the library that the options ask for, or the GPU, is not there.
        BuildError: if the network cannot be built, or the engine is not what was asked; a BackendError.
        OutputWriteError: if the engine could not be written.
    """
    if output is not None and Path(output).suffix != ENGINE_SUFFIX:
        raise InputError(f"output must end in {ENGINE_SUFFIX}, got {output}; rename it")
    stamps = file_stamps(path)  # before anything is read of it
    model = read_model(path)
    if output is not None and os.path.realpath(output) == os.path.realpath(model.path):  # through a link
        raise InputError(f"output {output} is the model file itself; choose another name")
    key = engine_key(path, options, device_id)

    def report(timing: Path | None, part: Path) -> EngineReport:
        timing = timing if timings else None
        done = build_isolated(
            path, key.options, part, timing_cache=timing, device_id=device_id, on_progress=on_progress
        )
        _check_same(path, stamps, key, done)
        return done

    def write(target: Path, timing: Path | None) -> EngineFile:
        return write_engine(target, model.path, key, model.spec, partial(report, timing))

    if output is not None:
        return write(Path(output), _shared_timing(key))
    return _in_cache(model, key, rebuild, write)


def _in_cache(model: ModelFile, key: EngineKey, rebuild: bool, write: _Write) -> EngineFile:
    folder = cache_folder()
    entry = entry_path(folder, model.path, key)
    engine, _ = (None, "") if rebuild else _look_up(entry, key)  # without the lock: the cache may be read-only
    if engine is not None:
        return engine
    try:
        with entry_lock(entry, model.path):
            engine, reason = (None, "asked to") if rebuild else _look_up(entry, key)
            if engine is not None:  # by the process that this one waited for
                return engine
            _log.info("%s: building an engine: %s", model.path, reason or why_missing(entry, key))
            _sweep(folder, entry)
            return write(entry, timing_path(folder, key))
    except OutputWriteError as error:
        raise OutputWriteError(
            f"{error}; set {VARIABLE} to a folder that can be written, or write one engine with "
            f"`seginfer build {model.path.name} -o {model.path.stem}{ENGINE_SUFFIX}`"
        ) from error


def _look_up(entry: Path, key: EngineKey) -> tuple[EngineFile | None, str]:
    engine, reason = look_up(entry, key)
    if engine is not None:
        _log.info("engine from the cache: %s, built %s", entry, engine.built)
    return engine, reason


def _sweep(folder: Path, own: Path) -> None:
    """Delete what killed builds have left, which nobody else would for years; one that is not ours to delete stays."""
    for part in leftovers(folder, own):
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            _log.info("%s, left by a build that was killed, cannot be deleted: %s", part, error)
        else:
            _log.info("deleted %s, left by a build that was killed", part)


def _shared_timing(key: EngineKey) -> Path | None:
    """Return the cache's timings, if there is a cache; an engine that goes elsewhere makes none."""
    try:
        folder = cache_folder()
    except OutputWriteError:
        return None
    return timing_path(folder, key) if os.access(folder, os.W_OK | os.X_OK) else None


def _check_same(path: str | Path, stamps: tuple[tuple[int, ...], ...], key: EngineKey, report: EngineReport) -> None:
    """Refuse an engine that is not of its key because something changed while it was built."""
    if file_stamps(path) != stamps:
        raise ModelFileError(f"{path} changed while its engine was built; build again")
    if (report.library, report.version) != (key.library, key.library_version):
        raise BackendError(
            f"{path} was built by {report.library} {report.version}, and this process has loaded {key.library} "
            f"{key.library_version}; start it again, so that both are the same"
        )
