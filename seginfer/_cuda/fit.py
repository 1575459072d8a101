"""Comparison of a GPU's driver with NVRTC and with the shipped kernels."""

from __future__ import annotations

from .._system.driver import GpuInfo
from . import compiler
from .nvrtc import find_nvrtcs


def cuda_major(cubin: bytes) -> int:
    """Return the CUDA version that a driver needs for a cubin, 12 or 13."""
    return 13 if cubin[8] > 7 else 12  # EI_ABIVERSION of the ELF header: 7 from NVRTC 12, 8 from 13


def find_kernels(gpu: GpuInfo) -> tuple[str, str]:
    """Compare driver, NVRTC and shipped kernels.

    Returns:
        Origin of kernels that the driver loads, or "". Then the reason, with a remedy.
    """
    architecture, driver = "sm_{}{}".format(*gpu.compute_capability), gpu.cuda_major
    reasons: list[str] = []
    for name in compiler.names_of(architecture):
        for cubin in compiler.read_cubins(compiler.SHIPPED, name):
            if cuda_major(cubin) <= driver:
                return f"shipped for {name}", ""
            reasons.append(f"the shipped ones need a driver for CUDA {cuda_major(cubin)}")
    for nvrtc in find_nvrtcs():
        if architecture not in nvrtc.architectures:
            reasons.append(f"{nvrtc} cannot compile for {architecture}")
        elif nvrtc.version[0] > driver:
            reasons.append(f"those of {nvrtc} need a driver for CUDA {nvrtc.version[0]}")
        else:
            return f"compiled by {nvrtc} for {architecture} on the first start", ""
    why = ", ".join(reasons) or "none are shipped, and there is no NVRTC"
    return "", f"no kernels for {architecture} and a driver for CUDA {gpu.driver}: {why}; {remedy(gpu)}"


def remedy(gpu: GpuInfo) -> str:
    """Return the remedy where packages do not fit the driver."""
    if gpu.cuda_major < 13:
        return "pip install 'seginfer[cuda12]', or update the driver to 580 or newer"
    return "pip install 'seginfer[cuda13]'"
