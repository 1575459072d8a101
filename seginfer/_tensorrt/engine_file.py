"""Read, write and check engines with their JSON sidecars.

The sidecar of model.engine is model.engine.json. The sidecar of a link lies beside the file that it points to.
"""

# TensorRT's own loader crashes on some damaged files, and an engine may hold code. So nothing is loaded unless its size
# and hash are those that were recorded when it was built.

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
from .._files.hashes import file_sha256, file_stamp
from .._spec.model_spec import ModelSpec
from .._spec.schema import parse_json, structure, unstructure
from .._system.atomic import PART_NAME, atomic_path
from .cache import folder_lock
from .key import EngineKey
from .report import EngineReport

SCHEMA = 3
"""Version of the sidecar. It rises when its fields change, or engines of older releases must not be run."""

_MAX_BYTES = 64 << 20  # of a sidecar
_BUILD_AGAIN = "build it again with `seginfer build`"

_log = logging.getLogger("seginfer")

Build = Callable[[Path], EngineReport]
"""Writes an engine to a path and returns its report."""


@dataclass(frozen=True)
class EngineFile:
    """Intact engine with the content of its sidecar."""

    path: Path
    key: EngineKey
    """Model, options, library, platform and GPU of the build."""
    report: EngineReport
    """Properties of the engine, verified after the build."""
    spec: ModelSpec
    model: str
    """Name of the .onnx file that it was built from."""
    built: str
    """Time of the build in UTC, such as "2026-11-25T10:15:00+00:00"."""
    engine_bytes: int
    engine_sha256: str


@dataclass(frozen=True)
class _PlainFields:
    """Fields of a sidecar that are numbers and text."""

    model: str
    built: str
    engine_bytes: int
    engine_sha256: str


def sidecar_path(path: str | Path) -> Path:
    """Return the path of an engine's sidecar."""
    return Path(f"{path}.json")


def read_engine(path: str | Path) -> EngineFile:
    """Read and check an engine and its sidecar.

    Size and hash of the engine are checked. It is not loaded.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if the engine is truncated, damaged or foreign, or its sidecar is missing, damaged or of another
            version.
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
    """Read the sidecar of an engine, not the engine. For errors see `read_engine`."""
    if not os.path.isfile(path):
        raise MissingFileError(f"no engine at {path}; check the path, or build one with `seginfer build`")
    sidecar = _find_sidecar(path)
    try:
        content = _parse_content(_read_text(sidecar, path), path)
        key = structure(EngineKey, content.pop("key"), "key")
        report = structure(EngineReport, content.pop("report"), "report")
        spec = ModelSpec.from_json(json.dumps(content.pop("spec")))
        plain = structure(_PlainFields, content, "sidecar")
    except (_DamagedError, SegInferError, KeyError, TypeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{sidecar} is not the sidecar of an engine ({error}); {_BUILD_AGAIN}") from error
    return EngineFile(Path(path), key, report, spec, **vars(plain))


def _find_sidecar(path: str | Path) -> Path:
    """Return the sidecar of an engine. For a link, one beside its file comes first."""
    if os.path.islink(path) and os.path.isfile(of_file := sidecar_path(os.path.realpath(path))):
        return of_file
    return sidecar_path(path)


def write_engine(target: Path, model: Path, key: EngineKey, spec: ModelSpec, build: Build) -> EngineFile:
    """Build an engine and write it with its sidecar.

    On any failure no new file is left, and an older engine of that name is unchanged.

    Args:
        target: path of the engine. Where it is a link, the file that it points to is written, and the sidecar beside
            that.
        model: the .onnx file.
        key: key of the engine.
        spec: spec of the model.
        build: see `Build`.

    Raises:
        OutputWriteError: if a file cannot be written.
    """
    # Both are written under temporary names and then renamed, the engine first. In between, and after a loss of power,
    # its hash is not that in the sidecar, and it counts as damaged.
    file = Path(os.path.realpath(target))
    with ExitStack() as lock, atomic_path(sidecar_path(file)) as sidecar, atomic_path(file) as part:
        sidecar.touch()  # fails before the build, which takes minutes
        try:
            report = build(part)
        except OutputWriteError as error:  # name the engine and not the temporary file
            raise OutputWriteError(PART_NAME.sub(file.name, str(error))) from error
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        plain = _PlainFields(model.name, now, part.stat().st_size, file_sha256(part))
        content = {**vars(plain), "key": unstructure(key), "report": unstructure(report)}
        content["spec"] = json.loads(spec.to_json())
        document = {"schema": SCHEMA, "content_sha256": hash_content(content), "content": content}
        sidecar.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        for written in (part, sidecar):  # an engine is code, and nobody else may change it
            written.chmod(written.stat().st_mode & ~0o022)
        lock.enter_context(folder_lock(file.parent))  # released after both are renamed
    return EngineFile(target, key, report, spec, **vars(plain))


def check_fits(engine: EngineFile, here: EngineKey) -> None:
    """Refuse an engine that was built for another machine.

    Library, its exact build, platform and GPU must be equal. An engine that was built without a GPU fits any of
    compute capability 8.0 and newer. The series of seginfer (0.1) must be equal. Another driver only logs a warning.

    Args:
        engine: an intact engine.
        here: key of this machine, see `key_here`.

    Raises:
        BackendError: if something differs. The message names it.
    """
    # Requirements for an engine do not change within a series of seginfer. Under another driver engines keep working,
    # but their kernels were chosen for the old one.
    built, now = _required_fields(engine.key), _required_fields(here)
    if engine.key.gpu is None:  # of TensorRT for RTX, whose manual excludes Turing
        is_older = here.gpu is not None and here.gpu.compute_capability < (8, 0)
        built["GPU"] = "of compute capability 8.0 or newer" if is_older else now["GPU"]
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


def _required_fields(key: EngineKey) -> dict[str, str]:
    return {
        "library": key.library,
        key.library: key.library_version,
        "platform": key.platform,
        "GPU": "none" if key.gpu is None else str(key.gpu),
        "seginfer": ".".join(key.seginfer.split(".")[:2]),
    }


class _DamagedError(Exception):
    """A sidecar was damaged or edited."""


def _read_text(sidecar: Path, path: str | Path) -> str:
    if not os.path.isfile(sidecar):
        raise ModelFileError(
            f"{path} has no sidecar {sidecar.name} beside it, which describes the engine; copy both files, or "
            f"{_BUILD_AGAIN}"
        )
    try:
        if sidecar.stat().st_size > _MAX_BYTES:
            raise _DamagedError(f"it is larger than {_MAX_BYTES >> 20} MiB")
        return sidecar.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _DamagedError("it is not text") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {sidecar}: {error.strerror or error}; check its permissions") from error


def _parse_content(text: str, path: str | Path) -> dict[str, Any]:
    document = parse_json(text, "it")
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise _DamagedError("it has no schema version")
    if document["schema"] != SCHEMA:
        is_newer = document["schema"] > SCHEMA
        remedy = f"update seginfer, or {_BUILD_AGAIN}" if is_newer else _BUILD_AGAIN
        raise ModelFileError(
            f"{path} was built by {'a newer' if is_newer else 'an older'} seginfer: its sidecar has schema "
            f"{document['schema']}, this one reads {SCHEMA}; {remedy}"
        )
    content = document.get("content")
    if not isinstance(content, dict) or document.get("content_sha256") != hash_content(content):
        raise _DamagedError("its content does not match its hash; it must not be edited")
    return content


def hash_content(content: dict[str, Any]) -> str:
    """Return the hash of a sidecar's content."""
    # One changed digit of the spec would change masks without an error.
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
