"""Probe of the packages and the GPU."""

from __future__ import annotations

import importlib.metadata

from seginfer._cuda.compiler import require_cuda
from seginfer._cuda.fit import find_kernels
from seginfer._cuda.nvrtc import find_nvrtcs
from seginfer._system.driver import find_gpu

from . import report

PACKAGES = ("numpy", "torch", "onnxruntime", "cuda-core", "cuda-bindings", "pytest")


def run() -> None:
    """Report what is installed."""
    for name in PACKAGES:
        try:
            report(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            report(name, "missing")
    report("NVRTC", " and ".join(map(str, find_nvrtcs())) or "missing")
    gpu = find_gpu()
    report("gpu", gpu)
    report("kernels", "".join(find_kernels(gpu)))
    core = require_cuda()
    report("cuda.core", f"{getattr(core, '__version__', '?')} from {core.__path__[0]}")
