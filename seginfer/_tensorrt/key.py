"""Key of an engine: everything that it depends on. Two builds of one key are interchangeable."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

from .._errors import BackendUnavailableError, MissingDependencyError
from .._files.external import external_files
from .._files.hashes import file_sha256, file_stamp, with_weights_sha256
from .._spec.schema import coerce_fields, unstructure
from .._system.driver import GpuInfo, find_gpu, has_gpu
from .._version import __version__
from .library import RTX, Library, find_library
from .options import EngineOptions, EngineProfile

LibraryName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class EngineGpu:
    """GPU that an engine was built on and for."""

    name: str
    compute_capability: tuple[int, int]
    driver: str
    """Newest CUDA version that the driver supports, and its release, such as "13.0 (580.65.06)"."""
    multiprocessors: int = 0
    """0 is unknown."""

    def __str__(self) -> str:
        major, minor = self.compute_capability
        size = f", {self.multiprocessors} multiprocessors" if self.multiprocessors else ""
        return f"{self.name}, compute capability {major}.{minor}{size}"


@dataclass(frozen=True)
class EngineKey:
    """Model, options, library, platform and GPU of an engine."""

    seginfer: str
    """Version of seginfer."""
    library: str
    """TensorRT or TensorRT for RTX."""
    library_version: str
    """Exact build of the library, such as "10.16.2.10"."""
    platform: str
    """Operating system and processor, such as "linux-aarch64"."""
    gpu: EngineGpu | None
    """None for an engine that TensorRT for RTX built without a GPU, for all of the GPUs that it supports."""
    options: EngineOptions
    """Options of the build. `library` is the one that was used, never "auto"."""
    onnx_sha256: str
    """Hash of the .onnx file, spec included, and of the files that it keeps weights in."""

    def __post_init__(self) -> None:
        coerce_fields(self, "key")

    @property
    def backend(self) -> LibraryName:
        """Name of the backend: "tensorrt" or "tensorrt_rtx"."""
        return _backend_name(self.library)

    def digest(self) -> str:
        """Return the key as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(unstructure(self), sort_keys=True).encode()).hexdigest()

    def differences(self, here: EngineKey) -> list[str]:
        """Describe every field that differs."""
        fields = _list_fields(self, here)
        return [f"{name} {_format_value(a)}, here {_format_value(b)}" for name, a, b in fields if a != b]

    def mismatch(self, here: EngineKey) -> str:
        """Describe the first field that differs. Returns "" if the keys are equal."""
        return next(iter(self.differences(here)), "")


def engine_key(path: str | Path, options: EngineOptions, device_id: int = 0) -> EngineKey:
    """Return the key of an engine built here.

    The model file is read once.

    Raises:
        MissingFileError: if there is no such model file.
        ModelFileError: if it is not an ONNX model, or a file that it keeps weights in is missing.
        BackendUnavailableError: if the requested library or the GPU is not available, or they do not fit.
    """
    gpu = _find_gpu(device_id)  # first: hashing takes longer
    library = _find_library(options, gpu)
    return _make_key(onnx_sha256(path), options, library, gpu)


def key_here(key: EngineKey, library: Library, gpu: GpuInfo | None) -> EngineKey:
    """Return a key with the same model and options, for this machine."""
    return _make_key(key.onnx_sha256, key.options, library, gpu)


def list_keys_here(key: EngineKey) -> list[EngineKey]:
    """List keys for all GPUs here. Model, options and library are those of `key`.

    Raises:
        BackendUnavailableError: if the library or any GPU is not available.
    """
    library = _find_library(key.options)
    keys = [key_here(key, library, _find_gpu(0))]
    while keys[-1].gpu is not None:
        try:
            keys.append(key_here(key, library, _find_gpu(len(keys))))
        except BackendUnavailableError:  # there are no more GPUs
            break
    return keys


def list_machine_keys() -> list[EngineKey]:
    """List keys for all libraries and GPUs here. They have no model."""
    keys = []
    for name in get_args(LibraryName):
        with suppress(BackendUnavailableError):
            options = EngineOptions(library=name)
            keys += list_keys_here(_make_key("", options, _find_library(options), None))
    return keys


def onnx_sha256(path: str | Path) -> str:
    """Return the hash of an .onnx file, external weights included.

    Raises:
        MissingFileError: if there is no such model file.
        ModelFileError: if it is not an ONNX model, or one of the files cannot be read.
    """
    return with_weights_sha256(file_sha256(path), path, external_files(path))


def file_stamps(path: str | Path) -> tuple[tuple[int, ...], ...]:
    """Return stamps of a model and its weights. For errors see `onnx_sha256`."""
    return tuple(file_stamp(file) for file in (Path(path), *external_files(path)))


def _find_gpu(device_id: int) -> GpuInfo | None:
    """Return a GPU. None on a machine without one."""
    return find_gpu(device_id) if has_gpu() else None


def _find_library(options: EngineOptions, gpu: GpuInfo | None = None) -> Library:
    try:
        return find_library(options.library, gpu)
    except BackendUnavailableError:
        raise
    except MissingDependencyError as error:
        raise BackendUnavailableError(str(error)) from error


def _make_key(sha256: str, options: EngineOptions, library: Library, gpu: GpuInfo | None) -> EngineKey:
    return EngineKey(
        seginfer=__version__,
        library=library.name,
        library_version=library.version,
        platform=f"{sys.platform}-{platform.machine()}",
        gpu=None if gpu is None else _engine_gpu(gpu),
        options=replace(options, library=_backend_name(library.name)),
        onnx_sha256=sha256,
    )


def _engine_gpu(gpu: GpuInfo) -> EngineGpu:
    """Return the properties of a GPU that decide whether an engine runs on it."""
    release = f" ({gpu.driver_release})" if gpu.driver_release else ""
    return EngineGpu(gpu.name, gpu.compute_capability, f"{gpu.driver}{release}", gpu.multiprocessors)


def _backend_name(library: str) -> LibraryName:
    return "tensorrt_rtx" if library == RTX else "tensorrt"


def _list_fields(key: EngineKey, here: EngineKey) -> list[tuple[str, object, object]]:
    """Pair the fields of two keys. Those that explain others are first."""
    fields: list[tuple[str, object, object]] = [
        ("library", key.library, here.library),
        (f"{key.library} version", key.library_version, here.library_version),
        ("platform", key.platform, here.platform),
        ("GPU", key.gpu and str(key.gpu), here.gpu and str(here.gpu)),
    ]
    if key.gpu is not None and here.gpu is not None:
        fields.append(("driver", key.gpu.driver, here.gpu.driver))
    fields.append(("seginfer version", key.seginfer, here.seginfer))
    for name, mine in vars(key.options).items():
        other = getattr(here.options, name)
        if name == "profiles":  # one by one: there may be many
            fields += [(f"options.profiles[{i}]", *pair) for i, pair in enumerate(zip_longest(mine, other))]
        else:
            fields.append((f"options.{name}", mine, other))
    return [*fields, ("onnx_sha256", key.onnx_sha256, here.onnx_sha256)]


def _format_value(value: object) -> str:
    if isinstance(value, EngineProfile):
        sizes = "" if value.size is None else f" of {_format_range([f'{h}x{w}' for h, w in value.size])}"
        return f"batch {_format_range(value.batch)}{sizes}"
    return "none" if value is None else str(value)


def _format_range(values: Iterable[object]) -> str:
    low, opt, high = values
    return str(high) if low == high else f"{low}..{opt}..{high}"
