"""Build engines of model files, or find them in the cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .._errors import BackendError, InputError, ModelFileError, OutputWriteError
from .._files.model_file import ENGINE_SUFFIX, ModelFile, read_model
from .._system.environment import CACHE_VARIABLE, cache_folder
from .build import Progress
from .cache import entry_lock, entry_path, find_leftovers, timing_path
from .engine_file import EngineFile, sidecar_path, write_engine
from .entries import explain_miss, look_up
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
    """Build the TensorRT engine of a model file.

    The engine is verified, and kept in the cache, from where it is taken next time.

    An engine belongs to one model file, one build of TensorRT and one kind of GPU. The cache looks it up by all of
    these, so that nothing stale is ever run. Several processes may request it at once: one builds, the others wait.
    Without a GPU, TensorRT for RTX builds an engine for any of the GPUs that it supports.

    Args:
        path: the .onnx file with its ModelSpec.
        output: file to write, such as model.engine, and always build. None is the cache: the folder $SEGINFER_CACHE, or
            else $XDG_CACHE_HOME/seginfer, or else ~/.cache/seginfer.
        options: how to build it.
        device_id: the GPU to build on and for.
        rebuild: build even if the cache has the engine.
        timings: start from measurements of earlier builds on this GPU, and keep those of this build. False measures
            everything anew, and keeps nothing.
        on_progress: called with every step of the build. An exception from it ends the work.

    Returns:
        The engine, with its report.

    Raises:
        MissingFileError: if there is no such model file.
        ModelFileError: if it is not a complete and valid model, carries no spec, or changes during the build.
        InputError: if the options contradict the file, or `output` does not end in .engine.
        BackendUnavailableError: if the requested library or the GPU is not available.
        BuildError: if the network cannot be built, or the engine fails verification. It is a BackendError.
        OutputWriteError: if the engine could not be written.
    """
    if output is not None and Path(output).suffix != ENGINE_SUFFIX:
        raise InputError(f"output must end in {ENGINE_SUFFIX}, got {output}; rename it")
    stamps = file_stamps(path)  # before the file is read
    model = read_model(path, verify=True)
    if output is not None and os.path.realpath(output) == os.path.realpath(model.path):  # through a link
        raise InputError(f"output {output} is the model file itself; choose another name")
    key = engine_key(path, options, device_id)

    def build(timing: Path | None, part: Path) -> EngineReport:
        timing = timing if timings else None
        report = build_isolated(
            path, key.options, part, timing_cache=timing, device_id=device_id, on_progress=on_progress
        )
        _check_unchanged(path, stamps, key, report)
        return report

    def write(target: Path, timing: Path | None) -> EngineFile:
        return write_engine(target, model.path, key, model.spec, partial(build, timing))

    if output is not None:
        return write(Path(output), _find_timing(key))
    return _build_in_cache(model, key, rebuild, write)


def _build_in_cache(model: ModelFile, key: EngineKey, rebuild: bool, write: _Write) -> EngineFile:
    folder = cache_folder()
    entry = entry_path(folder, model.path, key)
    engine, _ = (None, "") if rebuild else _look_up(entry, key)  # without the lock: the cache may be read-only
    if engine is not None:
        return engine
    try:
        with entry_lock(entry, model.path):
            engine, reason = (None, "rebuild was requested") if rebuild else _look_up(entry, key)
            if engine is not None:  # by the process that this one waited for
                return engine
            _log.info("%s: building an engine: %s", model.path, reason or explain_miss(entry, key))
            _delete_leftovers(folder, entry)
            for path in (entry, sidecar_path(entry)):
                if path.is_symlink():  # nothing is written through a link that was planted here
                    path.unlink()
            return write(entry, timing_path(folder, key))
    except OutputWriteError as error:
        raise OutputWriteError(
            f"{error}; set {CACHE_VARIABLE} to a folder that can be written, or write one engine with "
            f"`seginfer build {model.path.name} -o {model.path.stem}{ENGINE_SUFFIX}`"
        ) from error


def _look_up(entry: Path, key: EngineKey) -> tuple[EngineFile | None, str]:
    engine, reason = look_up(entry, key)
    if engine is not None:
        _log.info("engine from the cache: %s, built %s", entry, engine.built)
    return engine, reason


def _delete_leftovers(folder: Path, own: Path) -> None:
    """Delete files of killed builds."""
    for part in find_leftovers(folder, own):
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            _log.info("%s, left by a build that was killed, cannot be deleted: %s", part, error)
        else:
            _log.info("deleted %s, left by a build that was killed", part)


def _find_timing(key: EngineKey) -> Path | None:
    """Return the timings in a writable cache, if any."""
    try:
        folder = cache_folder()
    except OutputWriteError:
        return None
    return timing_path(folder, key) if os.access(folder, os.W_OK | os.X_OK) else None


def _check_unchanged(
    path: str | Path, stamps: tuple[tuple[int, ...], ...], key: EngineKey, report: EngineReport
) -> None:
    """Refuse an engine if its inputs changed during the build."""
    if file_stamps(path) != stamps:
        raise ModelFileError(f"{path} changed while its engine was built; build again")
    if (report.library, report.version) != (key.library, key.library_version):
        raise BackendError(
            f"{path} was built by {report.library} {report.version}, and this process has loaded {key.library} "
            f"{key.library_version}; start it again, so that both are the same"
        )
