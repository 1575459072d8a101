"""Compile the CUDA kernels to cubins with NVRTC. No GPU or driver is needed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .._errors import BackendUnavailableError, MissingDependencyError, OutputWriteError
from .._system.atomic import atomic_path, make_folder
from .._system.environment import cache_folder, foreign_problem, require

ARCHITECTURES = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120")
"""A100, RTX 30, Orin, RTX 40 and L4, H100, B200, Thor, RTX 50. For other GPUs NVRTC compiles at run time."""

SOURCE = '#include "seginfer/kernels/kernels.cuh"\n'

OPTIONS = {"name": "seginfer_kernels", "std": "c++17", "fma": False}
"""Compiler options. Without FMA contraction the GPU rounds like the CPU and the reference."""

_HERE = Path(__file__).resolve()
_INCLUDE_FOLDERS = (_HERE.parents[1] / "include", _HERE.parents[2] / "cpp_bindings" / "include")  # wheel, checkout

SHIPPED = _HERE.parent / "cubins"
"""Folder of the cubins in a wheel, made by `python -m seginfer._cuda`. A checkout has none."""

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


def cubins(architecture: str) -> Iterator[tuple[str, bytes]]:
    """Yield (origin, cubin) candidates for one architecture.

    Shipped cubins come first, then cached ones, then a new one, which is compiled only when it is requested.

    Args:
        architecture: name of the architecture, such as "sm_87".

    Raises:
        BackendUnavailableError: if compiling fails. See `compile_cubin`.
    """
    for folder in _folders():
        if (found := read_cubin(folder, architecture)) is not None:
            yield str(folder), found
    compiled = compile_cubin(architecture)
    try:
        kept = _cache_folder()
        make_folder(kept.parent, 0o700)  # `mkdir` gives the mode to the last folder only
        make_folder(kept, 0o700)
        write_cubin(kept, architecture, compiled)
    except OutputWriteError as error:
        _log.info("compiled kernels are not cached, the next start compiles again: %s", error)
    yield "NVRTC", compiled


def _folders() -> list[Path]:
    try:
        return [SHIPPED, _cache_folder()]
    except OutputWriteError:
        return [SHIPPED]  # no home directory


def compile_cubin(architecture: str) -> bytes:
    """Compile all kernels for one architecture, in memory.

    Args:
        architecture: name of the architecture, such as "sm_87".

    Raises:
        BackendUnavailableError: if cuda-core or NVRTC is missing, or NVRTC does not support the architecture.
    """
    core = require_cuda()
    options = core.ProgramOptions(arch=architecture, include_path=str(include_folder()), **OPTIONS)
    try:
        cubin = core.Program(SOURCE, "c++", options).compile("cubin")
    except Exception as error:  # cuda-core raises types of its own, of several parents
        raise BackendUnavailableError(
            f"NVRTC did not compile the kernels for {architecture}: {' '.join(str(error).split())}; "
            "pip install 'seginfer[cuda]' in a version that fits the driver"
        ) from error
    return bytes(cubin.code)


# -------------------------------------------------------------------------------------------------------- files


@cache
def source_digest() -> str:
    """Return a digest of the headers and compiler options."""
    digest = hashlib.sha256(f"{SOURCE}{sorted(OPTIONS.items())}".encode())
    folder = include_folder() / "seginfer"
    for header in sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cuh")):
        digest.update(f"\0{header.relative_to(folder).as_posix()}\0".encode() + header.read_bytes())
    return digest.hexdigest()[:16]


def _content_digest(cubin: bytes) -> str:
    return hashlib.sha256(cubin).hexdigest()[:16]


def write_cubin(folder: Path, architecture: str, cubin: bytes) -> Path:
    """Write a cubin and return its path.

    The file name contains the digests of the source and of the content.

    Raises:
        OutputWriteError: if the file cannot be written.
    """
    path = folder / f"{architecture}-{source_digest()}-{_content_digest(cubin)}.cubin"
    with atomic_path(path) as part:
        part.write_bytes(cubin)
        part.chmod(part.stat().st_mode & ~0o022)  # nobody else may change code
    return path


def read_cubin(folder: Path, architecture: str) -> bytes | None:
    """Return an undamaged cubin of the current kernels, or None."""
    for path in sorted(folder.glob(f"{architecture}-{source_digest()}-*.cubin")):
        if folder != SHIPPED and (problem := foreign_problem(path)):
            _log.info("kernels are compiled again: %s", problem)
            continue
        try:
            cubin = path.read_bytes()
        except OSError as error:
            _log.info("kernels are compiled again, because %s cannot be read: %s", path, error)
            continue
        if path.stem.endswith(f"-{_content_digest(cubin)}"):
            return cubin
        _log.info("kernels are compiled again, because the content of %s does not match the digest in its name", path)
    return None


def _cache_folder() -> Path:
    return cache_folder() / "kernels"
