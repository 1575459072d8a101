"""Probe of the packages and the GPU."""

from __future__ import annotations

import importlib.metadata

from seginfer._cuda.compiler import require_cuda
from seginfer._system.driver import find_gpu

from . import report

PACKAGES = ("numpy", "torch", "onnxruntime", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "pytest")


def run() -> None:
    """Report what is installed."""
    for name in PACKAGES:
        try:
            report(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            report(name, "missing")
    core = require_cuda()
    report("cuda.core", f"{getattr(core, '__version__', '?')} from {core.__path__[0]}")
    report("gpu", find_gpu())
