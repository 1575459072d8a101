"""EngineFile: an engine with the JSON sidecar that says what it is; both are checked before anything loads the engine.

The sidecar of model.engine is model.engine.json; that of a link lies beside the file. TensorRT's own loader crashes on
some damaged files, and an engine may hold code, so nothing is handed to it whose size and hash are not those that were
written down when it was built.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from .._errors import BackendError, MissingFileError, ModelFileError, OutputWriteError, SegInferError
from .._spec.model_spec import ModelSpec
from .._spec.schema import structure, unstructure
from .._system.atomic import PART_NAME, atomic_path
from .cache import folder_lock
from .key import EngineKey, file_sha256, file_stamp
from .report import EngineReport

SCHEMA = 2
"""Version of the sidecar. It rises whenever engines of older releases must not be run."""

_MOST_BYTES = 64 << 20  # of a sidecar
_BUILD_AGAIN = "build it again with `seginfer build`"

_log = logging.getLogger("seginfer")

Build = Callable[[Path], EngineReport]
"""Writes an engine to a path, and reports on it."""


@dataclass(frozen=True)
class EngineFile:
    """An engine that was found whole, and what is known of it."""

    path: Path
    key: EngineKey
    """What it was built from, how, by whom, and where."""
    report: EngineReport
    """What was read back after the build."""
    spec: ModelSpec
    model: str
    """Name of the .onnx file that it was built from."""
    built: str
    """When, in UTC, such as "2026-11-25T10:15:00+00:00"."""
    engine_bytes: int
    engine_sha256: str


@dataclass(frozen=True)
class _Facts:
    """The plain part of a sidecar."""

    model: str
    built: str
    engine_bytes: int
    engine_sha256: str


def sidecar_path(path: str | Path) -> Path:
    """Return where the sidecar of an engine lies."""
    return Path(f"{path}.json")


def read_engine(path: str | Path) -> EngineFile:
    """Read the sidecar of an engine, and find the engine to be what it describes; nothing is loaded.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the engine is truncated, damaged or foreign, or its sidecar is missing, damaged or newer.
    """
    engine = read_sidecar(path)
    _, _, size, _ = file_stamp(path)
    if size != engine.engine_bytes:
        raise ModelFileError(
            f"{path} is not the engine that its sidecar describes: expected {engine.engine_bytes} bytes, got {size}; "
            f"copy both files again, or {_BUILD_AGAIN}"
        )
    if file_sha256(path) != engine.engine_sha256:
        raise ModelFileError(
            f"{path} is damaged, or another file than its sidecar describes: its sha256 is not "
            f"{engine.engine_sha256[:16]}...; copy both files again, or {_BUILD_AGAIN}"
        )
    return engine


def read_sidecar(path: str | Path) -> EngineFile:
    """Read what the sidecar of an engine says, without looking into the engine; see `read_engine`."""
    if not os.path.isfile(path):
        raise MissingFileError(f"no engine at {path}; check the path, or build one with `seginfer build`")
    sidecar = _sidecar_of(path)
    try:
        content = _content(_text(sidecar, path), path)
        key = structure(EngineKey, content.pop("key"), "key")
        report = structure(EngineReport, content.pop("report"), "report")
        spec = ModelSpec.from_json(json.dumps(content.pop("spec")))
        facts = structure(_Facts, content, "sidecar")
    except (_DamagedError, SegInferError, KeyError, TypeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{sidecar} is no sidecar of an engine ({error}); {_BUILD_AGAIN}") from error
    return EngineFile(Path(path), key, report, spec, **vars(facts))


def _sidecar_of(path: str | Path) -> Path:
    """Return the sidecar of an engine, and for a link that of the file, where builds put it, if there is one."""
    if os.path.islink(path) and os.path.isfile(of_file := sidecar_path(os.path.realpath(path))):
        return of_file
    return sidecar_path(path)


def write_engine(target: Path, model: Path, key: EngineKey, spec: ModelSpec, build: Build) -> EngineFile:
    """Build an engine under a temporary name, and then give it and its sidecar their names.

    On any failure nothing new is left, and an older engine of that name is as it was.

    Args:
        target: the engine's name; through a link, its file is written, and the sidecar beside that.
        model: the .onnx file.
        key: of the engine.
        spec: of the model.
        build: see `Build`.

    Raises:
        OutputWriteError: if the file system refuses.
    """
    # Both are written before either gets its name, the engine first. In between, and after a loss of power, its hash is
    # not that in the sidecar, and it counts as damaged.
    file = Path(os.path.realpath(target))
    with ExitStack() as lock, atomic_path(sidecar_path(file)) as sidecar, atomic_path(file) as part:
        sidecar.touch()  # a folder that refuses is known before minutes go into a build
        report = _built(build, part, file)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        facts = _Facts(model.name, now, part.stat().st_size, file_sha256(part))
        content = {**vars(facts), "key": unstructure(key), "report": unstructure(report)}
        content["spec"] = json.loads(spec.to_json())
        document = {"schema": SCHEMA, "content_sha256": hash_content(content), "content": content}
        sidecar.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        lock.enter_context(folder_lock(file.parent))  # released after both have their names
    return EngineFile(target, key, report, spec, **vars(facts))


def _built(build: Build, part: Path, target: Path) -> EngineReport:
    """Build; an error names the engine, and not the temporary file, of which nobody has heard."""
    try:
        return build(part)
    except OutputWriteError as error:
        raise OutputWriteError(PART_NAME.sub(target.name, str(error))) from error


def check_fits(engine: EngineFile, here: EngineKey) -> None:
    """Refuse an engine that this machine cannot be trusted to run as it was built.

    Library, its exact build, platform and GPU must be the same; an engine that was built without a GPU is for any. Of
    seginfer only the series (0.1) must be the same: what is expected of an engine does not change within one. Another
    driver is a warning: engines keep working, but their kernels were chosen on the old one.

    Args:
        engine: read and found whole.
        here: see `key_here`.

    Raises:
        BackendError: if something differs; the message says what.
    """
    built, now = _decisive(engine.key), _decisive(here)
    if engine.key.gpu is None:
        del built["GPU"]
    for name, value in built.items():
        if value != now[name]:
            raise BackendError(
                f"{engine.path} was built for {name} {value}, and here is {now[name]}; build {engine.model} again here "
                "with `seginfer build`"
            )
    drivers = [key.gpu.driver for key in (engine.key, here) if key.gpu is not None]
    if len(set(drivers)) == 2:
        _log.warning(
            "%s was built with driver %s, and here is %s; it runs, and `seginfer build` may make a faster one",
            engine.path,
            *drivers,
        )


def _decisive(key: EngineKey) -> dict[str, str]:
    return {
        "library": key.library,
        key.library: key.library_version,
        "platform": key.platform,
        "GPU": "none" if key.gpu is None else str(key.gpu),
        "seginfer": ".".join(key.seginfer.split(".")[:2]),
    }


class _DamagedError(Exception):
    """A sidecar that is not what was written."""


def _text(sidecar: Path, path: str | Path) -> str:
    if not os.path.isfile(sidecar):
        raise ModelFileError(
            f"{path} has no sidecar {sidecar.name} beside it, so nobody knows what it is; copy both files, or "
            f"{_BUILD_AGAIN}"
        )
    try:
        if sidecar.stat().st_size > _MOST_BYTES:
            raise _DamagedError(f"it is larger than {_MOST_BYTES >> 20} MiB")
        return sidecar.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _DamagedError("it is not text") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {sidecar}: {error.strerror or error}; check its permissions") from error


def _content(text: str, path: str | Path) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"it is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise _DamagedError("it names no schema")
    if document["schema"] != SCHEMA:
        newer = document["schema"] > SCHEMA
        remedy = f"update seginfer, or {_BUILD_AGAIN}" if newer else _BUILD_AGAIN
        raise ModelFileError(
            f"{path} was built by {'a newer' if newer else 'an older'} seginfer: its sidecar has schema "
            f"{document['schema']}, this one reads {SCHEMA}; {remedy}"
        )
    content = document.get("content")
    if not isinstance(content, dict) or document.get("content_sha256") != hash_content(content):
        raise _DamagedError("its content is not what was written; it must not be edited")
    return content


def hash_content(content: dict[str, Any]) -> str:
    """Return a hash of the content: one digit of the spec that changed would change masks, and nobody would know."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
