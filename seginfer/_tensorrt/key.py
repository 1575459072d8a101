"""EngineKey: all that an engine depends on; two builds of one key are interchangeable."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

from .._errors import BackendUnavailableError, MissingDependencyError, MissingFileError, ModelFileError, SegInferError
from .._files.external import external_files
from .._spec.schema import coerce_fields, unstructure
from .._system.driver import GpuInfo, find_gpu
from .._version import __version__
from .library import RTX, Library, find_library, has_gpu
from .options import EngineOptions, EngineProfile

_CHUNK = 1 << 22

LibraryName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class EngineGpu:
    """The GPU that an engine was built on and for."""

    name: str
    compute_capability: tuple[int, int]
    driver: str
    """The newest CUDA version that the driver serves, and its release, such as "13.0 (580.65.06)"."""
    multiprocessors: int = 0
    """0 is unknown."""

    @classmethod
    def of(cls, gpu: GpuInfo) -> EngineGpu:
        """Return what of a GPU decides whether an engine runs on it."""
        release = f" ({gpu.driver_release})" if gpu.driver_release else ""
        return cls(gpu.name, gpu.compute_capability, f"{gpu.driver}{release}", gpu.multiprocessors)

    def __str__(self) -> str:
        major, minor = self.compute_capability
        size = f", {self.multiprocessors} multiprocessors" if self.multiprocessors else ""
        return f"{self.name}, compute capability {major}.{minor}{size}"


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from, how, by whom, and where."""

    seginfer: str
    """Version of seginfer."""
    library: str
    """TensorRT or TensorRT for RTX."""
    library_version: str
    """Its exact build, such as "10.16.2.10"."""
    platform: str
    """Such as "linux-aarch64"."""
    gpu: EngineGpu | None
    """None for an engine that TensorRT for RTX built without a GPU, which is for all of the GPUs that it supports."""
    options: EngineOptions
    """With the library that was used, not the wish for one."""
    onnx_sha256: str
    """Of the .onnx file, spec included, and of the files that it keeps weights in."""

    def __post_init__(self) -> None:
        coerce_fields(self, "key")

    @property
    def backend(self) -> LibraryName:
        """Name of the backend that runs the engine: "tensorrt" or "tensorrt_rtx"."""
        return _backend(self.library)

    def digest(self) -> str:
        """Return the key as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(unstructure(self), sort_keys=True).encode()).hexdigest()

    def mismatch(self, here: EngineKey) -> str:
        """Name the first field that differs in `here`, with both values; empty if the keys are equal."""
        for name, mine, other in _pairs(self, here):
            if mine != other:
                return f"{name} {_shown(mine)}, here {_shown(other)}"
        return ""


def engine_key(path: str | Path, options: EngineOptions, device_id: int = 0) -> EngineKey:
    """Return the key of the engine that would be built here; the model file is read once.

    Raises:
        MissingFileError: if there is no such model file.
        ModelFileError: if it is no ONNX model, or a file that it keeps weights in is missing.
        BackendUnavailableError: if the library that the options ask for, or the GPU, is not there.
    """
    library, gpu = _builder(options, device_id)  # first: hashing takes longer
    return _key(onnx_sha256(path), options, library, gpu)


def key_here(key: EngineKey, library: Library, gpu: GpuInfo | None) -> EngineKey:
    """Return the key that an engine of the same model and options would have here."""
    return _key(key.onnx_sha256, key.options, library, gpu)


def own_keys(key: EngineKey) -> list[EngineKey]:
    """Return `key_here` for the library that built the engine, and every GPU of this machine.

    Raises:
        BackendUnavailableError: if the library, or any GPU, is not there.
    """
    keys = [key_here(key, *_builder(key.options, 0))]
    while keys[-1].gpu is not None:
        try:
            keys.append(key_here(key, *_builder(key.options, len(keys))))
        except BackendUnavailableError:  # one more than there are
            break
    return keys


def machine_keys() -> list[EngineKey]:
    """Return keys of no model in particular, for every library and GPU of this machine."""
    keys = []
    for name in get_args(LibraryName):
        with suppress(BackendUnavailableError):
            options = EngineOptions(library=name)
            keys += own_keys(_key("", options, *_builder(options, 0)))
    return keys


def onnx_sha256(path: str | Path) -> str:
    """Return the hash of an .onnx file; where it keeps weights in other files, of all of them by their names.

    Raises:
        MissingFileError: if there is no such model file.
        ModelFileError: if it is no ONNX model, or one of the files cannot be read.
    """
    others = external_files(path)
    own = file_sha256(path)
    if not others:
        return own
    folder = Path(path).parent
    lines = [own, *(f"{file.relative_to(folder).as_posix()} {file_sha256(file)}" for file in others)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def file_stamps(path: str | Path) -> tuple[tuple[int, ...], ...]:
    """Return what changes when somebody writes to a model or its files of weights; for errors see `onnx_sha256`."""
    return tuple(file_stamp(file) for file in (Path(path), *external_files(path)))


def file_stamp(path: str | Path) -> tuple[int, ...]:
    """Return what changes when somebody writes to a file or puts another in its place; for errors see `file_sha256`."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def file_sha256(path: str | Path) -> str:
    """Return the hash of a file of any size.

    Raises:
        MissingFileError: if there is none, or none any more.
        ModelFileError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: str | Path, error: OSError) -> SegInferError:
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"no file at {path}; check the path, or whether something has just deleted it")
    return ModelFileError(f"cannot read {path}: {error.strerror or error}; check its permissions")


def _builder(options: EngineOptions, device_id: int) -> tuple[Library, GpuInfo | None]:
    """Find who builds here, and on what: TensorRT for RTX alone can do without a GPU, and builds for one that is there.

    Raises:
        BackendUnavailableError: if the library, or the GPU, is not there.
    """
    try:
        library = find_library(options.library)
    except MissingDependencyError as error:
        raise BackendUnavailableError(str(error)) from error
    return library, None if library.name == RTX and not has_gpu() else find_gpu(device_id)


def _key(sha256: str, options: EngineOptions, library: Library, gpu: GpuInfo | None) -> EngineKey:
    return EngineKey(
        seginfer=__version__,
        library=library.name,
        library_version=library.version,
        platform=f"{sys.platform}-{platform.machine()}",
        gpu=None if gpu is None else EngineGpu.of(gpu),
        options=replace(options, library=_backend(library.name)),
        onnx_sha256=sha256,
    )


def _backend(library: str) -> LibraryName:
    return "tensorrt_rtx" if library == RTX else "tensorrt"


def _pairs(key: EngineKey, here: EngineKey) -> list[tuple[str, object, object]]:
    """Return the fields of two keys, those first that explain the others."""
    pairs: list[tuple[str, object, object]] = [
        ("library", key.library, here.library),
        (f"{key.library} version", key.library_version, here.library_version),
        ("platform", key.platform, here.platform),
    ]
    if key.gpu is not None and here.gpu is not None:
        pairs += [
            ("GPU", str(key.gpu), str(here.gpu)),
            ("driver", key.gpu.driver, here.gpu.driver),
        ]
    else:
        pairs.append(("GPU", key.gpu and str(key.gpu), here.gpu and str(here.gpu)))
    pairs.append(("seginfer version", key.seginfer, here.seginfer))
    for name, mine in vars(key.options).items():
        other = getattr(here.options, name)
        if name == "profiles":  # one by one: there may be many
            profiles = enumerate(zip_longest(mine, other))
            pairs += [(f"options.profiles[{i}]", one, another) for i, (one, another) in profiles]
        else:
            pairs.append((f"options.{name}", mine, other))
    return [*pairs, ("onnx_sha256", key.onnx_sha256, here.onnx_sha256)]


def _shown(value: object) -> str:
    if isinstance(value, EngineProfile):
        sizes = "" if value.size is None else f" of {_range([f'{height}x{width}' for height, width in value.size])}"
        return f"batch {_range(value.batch)}{sizes}"
    return "none" if value is None else str(value)


def _range(values: Iterable[object]) -> str:
    low, middle, high = values
    return str(high) if low == high else f"{low}..{middle}..{high}"
