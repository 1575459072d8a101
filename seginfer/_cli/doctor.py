"""`seginfer doctor`: check the installation and run one inference."""

from __future__ import annotations

import argparse
import importlib
import platform
from importlib import metadata
from typing import NamedTuple

import numpy as np

from .. import _native
from .._cuda.fit import find_kernels, remedy
from .._cuda.nvrtc import find_nvrtcs
from .._errors import SegInferError
from .._segmenter import Segmenter
from .._system.driver import GpuInfo, find_gpu, has_gpu
from .._system.environment import CACHE_VARIABLE, cache_folder, usable_cores
from .._tensorrt.entries import cache_size
from .._tensorrt.library import find_library
from .._version import __version__
from ..assets import SOCCER
from .cache import engines_in_words
from .output import Output


class Check(NamedTuple):
    """One line of the report."""

    name: str
    found: str
    """Version or state. Empty if missing."""
    remedy: str
    """Purpose, and how to install it."""


_ON_GPU = "preprocessing and masks on an NVIDIA GPU"

# (distribution names, import name, purpose, extra)
_PACKAGES = (
    (("onnxruntime", "onnxruntime-gpu"), "onnxruntime", "running models", "cpu"),
    (("opencv-python-headless", "opencv-python"), "cv2", "images and polygons", "cli"),
    (("av",), "av", "video", "cli"),
    (("rich",), "rich", "tables and progress bars", "cli"),
    (("torch",), "torch", "export and parity", "export"),
    (("onnx",), "onnx", "export", "export"),
    (("onnxscript",), "onnxscript", "export", "export"),
    (("safetensors",), "safetensors", "reading weights", "export"),
    (("pillow",), "PIL", "parity of Pillow resampling", "export"),
    (("cuda-core",), "cuda.core", _ON_GPU, "cuda"),
    (("cuda-bindings",), "cuda.bindings.driver", _ON_GPU, "cuda"),
)


def doctor(args: argparse.Namespace, output: Output) -> int:
    """Check the installation. The exit code is 1 if models cannot run."""
    del args
    packages = [_package(*package) for package in _PACKAGES]
    checks = [*_machine(), *packages, _nvrtc(), *_gpu(), _tensorrt(), _cache(), _inference()]
    data = {check.name: {"found": check.found, "remedy": "" if check.found else check.remedy} for check in checks}
    output.result(data, lambda: _show(output, checks))
    return 0 if checks[-1].found else 1


def _machine() -> list[Check]:
    machine = f"{platform.system()} {platform.machine()}, {usable_cores()} cores"
    return [
        Check("seginfer", __version__, ""),
        Check("python", f"{platform.python_version()} on {machine}", ""),
        Check("numpy", np.__version__, ""),
        _pixels(),
    ]


def _pixels() -> Check:
    """Check the compiled core. Without it NumPy computes pixels, 10 to 100 times as slowly."""
    return Check("compiled core", _native.describe() if _native.core else "", _native.describe())


def _package(names: tuple[str, ...], module: str, purpose: str, extra: str) -> Check:
    """Import a package. One that fails to import counts as missing."""
    remedy = f"for {purpose}: pip install 'seginfer[{extra}]'"
    found = {name: version for name in names if (version := _version(name))}
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary package may raise anything
        return Check(names[0], "", f"installed but broken ({error}); {remedy}" if found else remedy)
    version = " and ".join(found.values()) or "importable"
    if len(found) > 1:  # they write the same files
        version += f": {' and '.join(found)} overwrite each other; pip uninstall both, and install one"
    return Check(names[0], version, remedy)


def _nvrtc() -> Check:
    found = " and ".join("{}.{}".format(*nvrtc.version) for nvrtc in find_nvrtcs())
    return Check("nvrtc", found, f"for {_ON_GPU}: pip install 'seginfer[cuda13]', or 'seginfer[cuda12]'")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _gpu() -> list[Check]:
    try:
        gpu = find_gpu()
    except SegInferError as error:
        return [Check("gpu", "", f"{error}; optional, models run on the CPU without one")]
    major, minor = gpu.compute_capability
    driver = f"driver {gpu.driver_release}" if gpu.driver_release else "driver"
    about = f"{gpu.name} ({major}.{minor}, {gpu.memory_bytes / 1e9:.1f} GB), {driver} for CUDA {gpu.driver}"
    return [Check("gpu", about, ""), _kernels(gpu)]


def _kernels(gpu: GpuInfo) -> Check:
    """Check that the driver loads kernels, and that cuda-bindings are not newer than the driver."""
    origin, reason = find_kernels(gpu)
    bindings = _version("cuda-bindings")
    if origin and bindings and int(bindings.split(".")[0]) > gpu.cuda_major:
        return Check("kernels", "", f"cuda-bindings {bindings} needs a driver for a newer CUDA; {remedy(gpu)}")
    return Check("kernels", origin, reason)


def _tensorrt() -> Check:
    try:
        return Check("tensorrt", find_library(gpu=find_gpu() if has_gpu() else None).description, "")
    except SegInferError as error:
        return Check("tensorrt", "", f"for `seginfer check` and `seginfer build`: {error}")


def _cache() -> Check:
    try:
        folder = cache_folder()
        count, size = cache_size(folder)
    except (SegInferError, OSError) as error:
        return Check("engine cache", "", f"{error}; set {CACHE_VARIABLE} to a writable folder")
    return Check("engine cache", f"{engines_in_words(count, size)}, in {folder}", "")


def _inference() -> Check:
    """Run the bundled model on a black image."""
    try:
        with Segmenter.open(SOCCER / "pitch.onnx") as segmenter:
            segmenter(np.zeros((360, 640, 3), np.uint8))  # the first run is slower
            result = segmenter(np.zeros((360, 640, 3), np.uint8))
            return Check("inference", f"{result.timings.total_ms:.1f} ms, {segmenter.backend.description}", "")
    except SegInferError as error:
        return Check("inference", "", str(error))


def _show(output: Output, checks: list[Check]) -> None:
    rows = [(check.name, check.found or "missing", "" if check.found else check.remedy) for check in checks]
    output.table("seginfer doctor", ("", "found", "remedy"), rows)
