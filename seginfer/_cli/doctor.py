"""`seginfer doctor`: what is installed, what it allows, and one real inference as proof."""

from __future__ import annotations

import argparse
import importlib
import platform
from importlib import metadata
from typing import NamedTuple

import numpy as np

from .. import _native
from .._errors import SegInferError
from .._segmenter import Segmenter
from .._system.driver import find_gpu
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
    """Version or state; empty if missing."""
    remedy: str
    """What it is for and how to get it."""


_ON_GPU = "running pixel steps on an NVIDIA GPU"

# (distribution names, import name, what it is for, extra)
_PACKAGES = (
    (("onnxruntime", "onnxruntime-gpu"), "onnxruntime", "running models", "cpu"),
    (("opencv-python-headless", "opencv-python"), "cv2", "pictures and polygons", "cli"),
    (("av",), "av", "video", "cli"),
    (("rich",), "rich", "tables and progress bars", "cli"),
    (("torch",), "torch", "exporting and parity", "export"),
    (("onnx",), "onnx", "exporting", "export"),
    (("onnxscript",), "onnxscript", "exporting", "export"),
    (("safetensors",), "safetensors", "reading weights", "export"),
    (("pillow",), "PIL", "parity of Pillow resampling", "export"),
    (("cuda-core",), "cuda.core", _ON_GPU, "cuda"),
    (("cuda-bindings",), "cuda.bindings.driver", _ON_GPU, "cuda"),
)


def doctor(args: argparse.Namespace, output: Output) -> int:
    """Report on this installation; exit code 1 if models cannot run here."""
    del args
    packages = [_package(*package) for package in _PACKAGES]
    checks = [*_machine(), *packages, _nvrtc(), _gpu(), _tensorrt(), _cache(), _inference()]
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
    """Say what computes pixels; NumPy does where the core was not built, some ten to a hundred times slower."""
    remedy = f"{_native.describe()}; for speed, install a C++17 compiler and then seginfer again"
    return Check("compiled core", _native.describe() if _native.core else "", remedy)


def _package(names: tuple[str, ...], module: str, purpose: str, extra: str) -> Check:
    """Import the package: an installed one that does not import is as good as missing, and the reason is shown."""
    remedy = f"for {purpose}: pip install 'seginfer[{extra}]'"
    installed = next((version for version in map(_version, names) if version), "")
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken binary package may raise anything on import
        return Check(names[0], "", f"installed but broken ({error}); {remedy}" if installed else remedy)
    return Check(names[0], installed or "importable", remedy)


def _nvrtc() -> Check:
    """Ask NVRTC itself: on a Jetson it comes with JetPack, and is no Python package."""
    remedy = f"for {_ON_GPU}: pip install 'seginfer[cuda]'"
    try:
        _, major, minor = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    except Exception as error:  # whatever the loader of a library raises
        return Check("nvrtc", "", f"{remedy} ({' '.join(str(error).split())})")
    return Check("nvrtc", f"{major}.{minor}", remedy)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _gpu() -> Check:
    try:
        gpu = find_gpu()
    except SegInferError as error:
        return Check("gpu", "", f"{error}; only for GPUs: models run on the CPU without one")
    major, minor = gpu.compute_capability
    driver = f"driver {gpu.driver_release}" if gpu.driver_release else "driver"
    return Check(
        "gpu", f"{gpu.name} ({major}.{minor}, {gpu.memory_bytes / 1e9:.1f} GB), {driver} for CUDA {gpu.driver}", ""
    )


def _tensorrt() -> Check:
    try:
        return Check("tensorrt", find_library().description, "")
    except SegInferError as error:
        return Check("tensorrt", "", f"for `seginfer check` and `seginfer build`: {error}")


def _cache() -> Check:
    try:
        folder = cache_folder()
        count, size = cache_size(folder)
    except (SegInferError, OSError) as error:
        return Check("engine cache", "", f"{error}; set {CACHE_VARIABLE} to a folder that can be read and written")
    return Check("engine cache", f"{engines_in_words(count, size)}, in {folder}", "")


def _inference() -> Check:
    """Run the model of the soccer example on a blank picture."""
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
