"""Compile the CUDA kernels to cubins with NVRTC. No GPU or driver is needed.

A wheel ships one cubin of all kernels per architecture. Elsewhere each kernel is compiled when it is first used.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .._errors import BackendUnavailableError, MissingDependencyError, OutputWriteError
from .._system.atomic import atomic_path, make_folder
from .._system.environment import cache_folder, foreign_problem, require
from .kernels import KERNELS, source_of
from .nvrtc import NvrtcError, find_nvrtcs

ARCHITECTURES = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120")
"""A100, RTX 30, Orin, RTX 40 and L4, H100, B200, Thor, RTX 50. For other GPUs NVRTC compiles at run time."""

COMPATIBLE = {"sm_103": "sm_100", "sm_121": "sm_120"}
"""Architectures that also load the cubins of another one: B300, DGX Spark.

Source: CUDA C++ programming guide, binary compatibility.
"""

OPTIONS = ("--std=c++17", "--fmad=false")
"""Compiler options. Without FMA contraction the GPU rounds like the CPU and the reference."""

_HERE = Path(__file__).resolve()
_INCLUDE_FOLDERS = (_HERE.parents[1] / "include", _HERE.parents[2] / "cpp_bindings" / "include")  # wheel, checkout

SHIPPED = _HERE.parent / "cubins"
"""Folder of the cubins in a wheel, made by `python -m seginfer._cuda`. A checkout has none."""

ALL = "all"
"""Name of a cubin with every kernel."""

_log = logging.getLogger("seginfer")


def include_folder() -> Path:
    """Return the folder of the C++ headers.

    Raises:
        BackendUnavailableError: if they are not installed.
    """
    for folder in _INCLUDE_FOLDERS:
        if (folder / "seginfer" / "kernels" / "kernels.cuh").is_file():
            return folder
    raise BackendUnavailableError(
        "the CUDA kernels are missing: expected kernels.cuh in "
        f"{_INCLUDE_FOLDERS[0] / 'seginfer' / 'kernels'}; reinstall seginfer"
    )


def require_cuda(module: str = "cuda.core") -> Any:
    """Import a module of NVIDIA's Python packages.

    Raises:
        BackendUnavailableError: if it is missing.
    """
    try:
        return require(module, extra="cuda", purpose="running pixel steps on an NVIDIA GPU")
    except MissingDependencyError as error:
        raise BackendUnavailableError(str(error)) from error


def cubins(architecture: str, kernel: str) -> Iterator[tuple[str, bytes]]:
    """Yield (origin, cubin) candidates of one kernel for one architecture.

    Shipped cubins come first, then cached ones, then new ones. Each NVRTC compiles its own only when it is requested.

    Args:
        architecture: name of the architecture, such as "sm_87".
        kernel: a name of `KERNELS`.

    Raises:
        BackendUnavailableError: if compiling fails. See `compile_cubins`.
    """
    for folder, content in _folders(kernel):
        for name in names_of(architecture):
            yield from ((str(folder), found) for found in read_cubins(folder, name, content))
    for origin, compiled in compile_cubins(architecture, [kernel]):
        try:
            kept = _cache_folder()
            make_folder(kept.parent, 0o700)  # `mkdir` gives the mode to the last folder only
            make_folder(kept, 0o700)
            write_cubin(kept, architecture, compiled, kernel)
        except OutputWriteError as error:
            _log.info("compiled kernels are not cached, the next start compiles again: %s", error)
        yield origin, compiled


def names_of(architecture: str) -> list[str]:
    """Return the architectures whose cubins a GPU loads, its own first."""
    return [architecture, *filter(None, [COMPATIBLE.get(architecture)])]


def _folders(kernel: str) -> list[tuple[Path, str]]:
    try:
        return [(SHIPPED, ALL), (_cache_folder(), kernel)]
    except OutputWriteError:
        return [(SHIPPED, ALL)]  # no home directory


def compile_cubins(architecture: str, kernels: Iterable[str] = KERNELS) -> Iterator[tuple[str, bytes]]:
    """Compile kernels for one architecture, with each NVRTC that supports it.

    The oldest NVRTC comes first. Newer drivers load its cubins too, and older drivers only those.

    Args:
        architecture: name of the architecture, such as "sm_87".
        kernels: names of `KERNELS`.

    Yields:
        Name of the NVRTC, and the cubin.

    Raises:
        BackendUnavailableError: if there is no NVRTC, none supports the architecture, or it fails.
    """
    options = (f"--gpu-architecture={architecture}", f"--include-path={include_folder()}", *OPTIONS)
    found = find_nvrtcs()
    fitting = [nvrtc for nvrtc in found if architecture in nvrtc.architectures]
    if not fitting:
        there = f"{' and '.join(map(str, found))} cannot" if found else "there is no NVRTC"
        raise BackendUnavailableError(
            f"expected an NVRTC that compiles for {architecture}, {there}; pip install 'seginfer[cuda13]', or "
            "'seginfer[cuda12]' where the driver is for CUDA 12"
        )
    for nvrtc in fitting:
        try:
            yield str(nvrtc), nvrtc.compile(source_of(kernels), options)
        except NvrtcError as error:
            raise BackendUnavailableError(
                f"{nvrtc} did not compile the kernels for {architecture}: {error}; reinstall seginfer and NVRTC"
            ) from error


# -------------------------------------------------------------------------------------------------------- files


@cache
def source_digest() -> str:
    """Return a digest of the headers and compiler options."""
    digest = hashlib.sha256(f"{source_of(KERNELS)}{OPTIONS}".encode())
    folder = include_folder() / "seginfer"
    for header in sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cuh")):
        digest.update(f"\0{header.relative_to(folder).as_posix()}\0".encode() + header.read_bytes())
    return digest.hexdigest()[:16]


def _content_digest(cubin: bytes) -> str:
    return hashlib.sha256(cubin).hexdigest()[:16]


def write_cubin(folder: Path, architecture: str, cubin: bytes, kernel: str = ALL) -> Path:
    """Write a cubin and return its path.

    The file name contains the kernel's name, and the digests of the source and of the content.

    Raises:
        OutputWriteError: if the file cannot be written.
    """
    path = folder / f"{architecture}-{kernel}-{source_digest()}-{_content_digest(cubin)}.cubin"
    with atomic_path(path) as part:
        part.write_bytes(cubin)
        part.chmod(part.stat().st_mode & ~0o022)  # nobody else may change code
    return path


def read_cubins(folder: Path, architecture: str, kernel: str = ALL) -> Iterator[bytes]:
    """Yield undamaged cubins of the current kernels."""
    for path in sorted(folder.glob(f"{architecture}-{kernel}-{source_digest()}-*.cubin")):
        if folder != SHIPPED and (problem := foreign_problem(path)):
            _log.info("kernels are compiled again: %s", problem)
            continue
        try:
            cubin = path.read_bytes()
        except OSError as error:
            _log.info("kernels are compiled again, because %s cannot be read: %s", path, error)
            continue
        if path.stem.endswith(f"-{_content_digest(cubin)}"):
            yield cubin
        else:
            _log.info("kernels are compiled again, because the content of %s does not match its digest", path)


def _cache_folder() -> Path:
    return cache_folder() / "kernels"
