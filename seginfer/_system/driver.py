"""Detection of GPUs through NVIDIA's driver library."""

from __future__ import annotations

import ctypes
import functools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import BackendUnavailableError, InputError

OLDEST_CUDA = (12, 0)
"""CUDA version of the oldest supported TensorRT, 10.3. A driver for CUDA 12.0 runs every 12.x."""

_LIBRARY = "libcuda.so.1"
_RELEASE_FILE = Path("/proc/driver/nvidia/version")
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, _COMPUTE_CAPABILITY_*
_NO_DEVICE = 100

# CUresult of cuInit: reason and remedy. Source: cuda.h.
_INIT_FAILURES = {
    2: ("out of memory", "free memory of the GPU or the machine"),
    3: ("not initialized", "restart the machine"),
    34: ("this libcuda.so.1 is the CUDA toolkit's stub", "remove the toolkit's stubs folder from LD_LIBRARY_PATH"),
    46: ("the device is unavailable", "end the process that holds the GPU exclusively"),
    101: ("invalid device", "correct CUDA_VISIBLE_DEVICES"),
    802: ("the system is not ready", "start NVIDIA's fabric manager"),
    803: ("library and kernel module differ in version", "restart the machine to complete the driver update"),
    804: ("forward compatibility is not supported on this GPU", "remove the cuda-compat package, or update the driver"),
    999: ("unknown error", "reload the nvidia kernel modules, or restart the machine"),
}


@dataclass(frozen=True)
class GpuInfo:
    """A GPU and its driver."""

    index: int
    name: str
    """Such as "NVIDIA H100 80GB HBM3" or "Orin"."""
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver: str
    """Newest CUDA version that the driver supports, such as "13.0"."""
    driver_release: str
    """Version of the driver, such as "580.65.06". Empty if unknown."""
    multiprocessors: int = 0
    """Number of multiprocessors, 0 if unknown. Only this tells the modules called "Orin" apart."""

    @property
    def cuda_major(self) -> int:
        """Major version of the newest CUDA that the driver supports."""
        return int(self.driver.split(".")[0])


def find_gpu(index: int = 0) -> GpuInfo:
    """Return the properties of a GPU.

    Args:
        index: index among the GPUs in CUDA_VISIBLE_DEVICES.

    Raises:
        InputError: if `index` is not an integer from 0.
        BackendUnavailableError: if the driver is missing, fails, is too old, or sees no such GPU.
    """
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise InputError(f"the index of a GPU must be an integer from 0, got {index!r}")
    driver = _load()
    try:
        _initialize(driver)
        version = _supported_version(driver)
        _check_index(driver, index)
        return _describe(driver, index, version)
    except AttributeError as error:  # a function is missing
        raise BackendUnavailableError(
            f"{_LIBRARY} is not NVIDIA's driver, or is too old ({error}); "
            f"install a driver for CUDA {_text(OLDEST_CUDA)} or newer"
        ) from error


@functools.cache
def has_gpu() -> bool:
    """Return whether a GPU is usable. Cached for the process."""
    try:
        find_gpu()
    except BackendUnavailableError:
        return False
    return True


def _load() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BackendUnavailableError(
            f"NVIDIA's driver is not installed ({error}); install it, or start the container with `--gpus all` "
            "(on a Jetson: `--runtime nvidia`)"
        ) from error


def _initialize(driver: Any) -> None:
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        raise BackendUnavailableError(_no_device())
    if code:
        reason, remedy = _INIT_FAILURES.get(code, ("unknown error", "restart the machine"))
        raise BackendUnavailableError(
            f"NVIDIA's driver does not initialize: {reason} (cuInit returned {code}); {remedy}"
        )


def _supported_version(driver: Any) -> tuple[int, int]:
    packed = _number(driver.cuDriverGetVersion, "cuDriverGetVersion")
    version = packed // 1000, packed % 1000 // 10
    if version < OLDEST_CUDA:
        raise BackendUnavailableError(
            f"the driver{_release_in_words()} supports CUDA {_text(version)}, expected at least {_text(OLDEST_CUDA)}; "
            "update the driver (on a Jetson: JetPack 6 or newer)"
        )
    return version


def _check_index(driver: Any, index: int) -> None:
    count = _number(driver.cuDeviceGetCount, "cuDeviceGetCount")
    if count == 0:
        raise BackendUnavailableError(_no_device())
    if index >= count:
        there = "one GPU, which is 0" if count == 1 else f"GPUs 0 to {count - 1}"
        raise BackendUnavailableError(f"expected GPU {index}, the driver sees {there}{_visible()}; choose one of these")


def _describe(driver: Any, index: int, version: tuple[int, int]) -> GpuInfo:
    device = ctypes.c_int(_number(driver.cuDeviceGet, "cuDeviceGet", ctypes.c_int(index)))
    name = ctypes.create_string_buffer(256)
    _check(driver.cuDeviceGetName(name, ctypes.c_int(len(name)), device), "cuDeviceGetName")
    memory = ctypes.c_size_t(0)
    _check(driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device), "cuDeviceTotalMem")
    attribute = functools.partial(_number, driver.cuDeviceGetAttribute, "cuDeviceGetAttribute")
    capability = attribute(ctypes.c_int(_MAJOR), device), attribute(ctypes.c_int(_MINOR), device)
    label = name.value.decode(errors="replace").strip()
    count = attribute(ctypes.c_int(_MULTIPROCESSORS), device)
    return GpuInfo(index, label, capability, memory.value, _text(version), _release(), count)


def _number(function: Any, name: str, *arguments: Any) -> int:
    value = ctypes.c_int(0)
    _check(function(ctypes.byref(value), *arguments), name)
    return value.value


def _check(code: int, name: str) -> None:
    if code:
        raise BackendUnavailableError(
            f"NVIDIA's driver failed: {name} returned {code}; see its messages in `dmesg`, or restart the machine"
        )


def _no_device() -> str:
    remedy = "correct CUDA_VISIBLE_DEVICES" if _visible() else "check that `nvidia-smi` lists one"
    return f"NVIDIA's driver{_release_in_words()} sees no GPU{_visible()}; {remedy}"


def _visible() -> str:
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if value is None else f" (CUDA_VISIBLE_DEVICES is {value!r})"


def _release() -> str:
    try:
        return release_of(_RELEASE_FILE.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def release_of(text: str) -> str:
    """Return the driver version in the text of /proc/driver/nvidia/version.

    It is empty if the text holds none.
    """
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else ""


def _release_in_words() -> str:
    return f" {release}" if (release := _release()) else ""


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
