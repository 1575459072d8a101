"""The CUDA kernels as cubins, through NVRTC: compiled anywhere, with no GPU and no driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._errors import BackendUnavailableError, MissingDependencyError
from .._optional import require

ARCHITECTURES = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_110", "sm_120")
"""A100, RTX 30, Orin, RTX 40 and L4, H100, B200, Thor, RTX 50. A GPU in between runs what NVRTC makes for it alone."""

SOURCE = '#include "seginfer/kernels.cuh"\n'

_HERE = Path(__file__).resolve()
_INCLUDE_FOLDERS = (_HERE.parents[1] / "include", _HERE.parents[2] / "cpp_bindings" / "include")  # wheel, checkout


def include_folder() -> Path:
    """Return the folder that holds the C++ headers.

    Raises:
        BackendUnavailableError: if they were not installed.
    """
    for folder in _INCLUDE_FOLDERS:
        if (folder / "seginfer" / "kernels.cuh").is_file():
            return folder
    raise BackendUnavailableError(
        f"the CUDA kernels are missing: expected kernels.cuh in {_INCLUDE_FOLDERS[0] / 'seginfer'}; reinstall seginfer"
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


def compile_cubin(architecture: str) -> bytes:
    """Compile every kernel for one architecture, as "sm_87"; nothing is written to disk.

    Contraction is off, so that the GPU rounds where the CPU and the reference round.

    Raises:
        BackendUnavailableError: if cuda-core or NVRTC is missing, or this NVRTC does not know the architecture.
    """
    core = require_cuda()
    options = core.ProgramOptions(
        name="seginfer_kernels", arch=architecture, std="c++17", fma=False, include_path=str(include_folder())
    )
    try:
        cubin = core.Program(SOURCE, "c++", options).compile("cubin")
    except Exception as error:  # cuda-core raises types of its own, of several parents
        raise BackendUnavailableError(
            f"NVRTC did not compile the kernels for {architecture}: {' '.join(str(error).split())}; "
            "pip install 'seginfer[cuda]', and let its version fit the driver"
        ) from error
    return bytes(cubin.code)
