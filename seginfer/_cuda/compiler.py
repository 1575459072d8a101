"""The CUDA kernels as cubins, through NVRTC: compiled anywhere, with no GPU and no driver."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .._errors import BackendUnavailableError, MissingDependencyError, OutputWriteError
from .._system.atomic import atomic_path, make_folder
from .._system.environment import require

ARCHITECTURES = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120")
"""A100, RTX 30, Orin, RTX 40 and L4, H100, B200, Thor, RTX 50. A GPU in between runs what NVRTC makes for it alone."""

SOURCE = '#include "seginfer/kernels/kernels.cuh"\n'

OPTIONS = {"name": "seginfer_kernels", "std": "c++17", "fma": False}
"""Contraction is off, so that the GPU rounds where the CPU and the reference round."""

_HERE = Path(__file__).resolve()
_INCLUDE_FOLDERS = (_HERE.parents[1] / "include", _HERE.parents[2] / "cpp_bindings" / "include")  # wheel, checkout

SHIPPED = _HERE.parent / "cubins"
"""Made by `python -m seginfer._cuda` before a wheel is built; a checkout has none."""

_log = logging.getLogger("seginfer")


def include_folder() -> Path:
    """Return the folder that holds the C++ headers.

    Raises:
        BackendUnavailableError: if they were not installed.
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


def cubins(architecture: str) -> Iterator[tuple[str, bytes]]:
    """Yield the kernels for one architecture, as "sm_87", each with where it is from: shipped, cached, just compiled.

    Raises:
        BackendUnavailableError: if it comes to compiling, and that fails; see `compile_cubin`.
    """
    for folder in _folders():
        if (found := read_cubin(folder, architecture)) is not None:
            yield str(folder), found
    compiled = compile_cubin(architecture)
    try:
        kept = _cache_folder()
        make_folder(kept)
        write_cubin(kept, architecture, compiled)
    except OutputWriteError as error:
        _log.info("compiled kernels are not kept, so that the next start compiles again: %s", error)
    yield "NVRTC", compiled


def _folders() -> list[Path]:
    """Return where cubins may be."""
    try:
        return [SHIPPED, _cache_folder()]
    except OutputWriteError:
        return [SHIPPED]  # there is no home directory


def compile_cubin(architecture: str) -> bytes:
    """Compile every kernel for one architecture, as "sm_87"; nothing is written to disk.

    Raises:
        BackendUnavailableError: if cuda-core or NVRTC is missing, or this NVRTC does not know the architecture.
    """
    core = require_cuda()
    options = core.ProgramOptions(arch=architecture, include_path=str(include_folder()), **OPTIONS)
    try:
        cubin = core.Program(SOURCE, "c++", options).compile("cubin")
    except Exception as error:  # cuda-core raises types of its own, of several parents
        raise BackendUnavailableError(
            f"NVRTC did not compile the kernels for {architecture}: {' '.join(str(error).split())}; "
            "pip install 'seginfer[cuda]', and let its version fit the driver"
        ) from error
    return bytes(cubin.code)


# -------------------------------------------------------------------------------------------------------- files


@cache
def source_digest() -> str:
    """Return what names the kernels as they are: a digest of every header and of how they are compiled."""
    digest = hashlib.sha256(f"{SOURCE}{sorted(OPTIONS.items())}".encode())
    folder = include_folder() / "seginfer"
    for header in sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cuh")):
        digest.update(f"\0{header.relative_to(folder).as_posix()}\0".encode() + header.read_bytes())
    return digest.hexdigest()[:16]


def _content_digest(cubin: bytes) -> str:
    return hashlib.sha256(cubin).hexdigest()[:16]


def write_cubin(folder: Path, architecture: str, cubin: bytes) -> Path:
    """Write a cubin under a name that says what it was made from and what it holds.

    Raises:
        OutputWriteError: if the file system refuses.
    """
    path = folder / f"{architecture}-{source_digest()}-{_content_digest(cubin)}.cubin"
    with atomic_path(path) as part:
        part.write_bytes(cubin)
    return path


def read_cubin(folder: Path, architecture: str) -> bytes | None:
    """Return the cubin of these very kernels in a folder; None if there is none, or only damaged ones."""
    for path in sorted(folder.glob(f"{architecture}-{source_digest()}-*.cubin")):
        try:
            cubin = path.read_bytes()
        except OSError as error:
            _log.info("kernels are compiled again, because %s cannot be read: %s", path, error)
            continue
        if path.stem.endswith(f"-{_content_digest(cubin)}"):
            return cubin
        _log.info("kernels are compiled again, because %s does not hold what its name says", path)
    return None


def _cache_folder() -> Path:
    from .._system.environment import cache_folder

    return cache_folder() / "kernels"
