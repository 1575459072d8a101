"""Record of the GPU, and a watch on its memory."""

from __future__ import annotations

import gc
import importlib.metadata
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import torch
from _machine import versions_record

from seginfer._cuda import compiler
from seginfer._system.driver import find_gpu

_PACKAGES = (
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt_cu12",
    "tensorrt_cu13",
    "tensorrt_rtx",
    "tensorrt_rtx_cu13_bindings",
    "cuda-core",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvrtc-cu12",
    "triton",
)
_CLOCKS = ("graphics", "sm", "memory")
_POLL_S = 0.002
_MIB = 1 << 20


def gpu_record() -> dict[str, Any]:
    """Return name, memory, driver and clocks of the first GPU."""
    info = find_gpu()
    return {
        "name": info.name,
        "compute_capability": info.compute_capability,
        "memory_mib": info.memory_bytes // _MIB,
        "driver_cuda": info.driver,
        "driver_release": info.driver_release,
        "state": gpu_state(),
        "most_mhz": {clock: _query_clock(clock, "get_max_mhz") for clock in _CLOCKS},
        "is_mig_instance": _query(lambda: bool(_nvml().mig.is_mig_device)),
        "is_persistence_mode_enabled": _query(lambda: bool(_nvml().is_persistence_mode_enabled)),
    }


def gpu_state() -> dict[str, Any]:
    """Return current clocks, temperature and the reasons for low clocks.

    A value that NVML does not provide is replaced by its reason.
    """
    return {
        "mhz": {clock: _query_clock(clock, "get_current_mhz") for clock in _CLOCKS},
        "celsius": _query(lambda: int(_nvml().temperature.get_sensor())),
        "held_back_by": _query(lambda: [str(reason) for reason in _nvml().current_clock_event_reasons]),
    }


def _query_clock(clock: str, method: str) -> Any:
    return _query(lambda: getattr(_nvml().get_clock(clock), method)())


def _nvml() -> Any:
    """Return the NVML device of the first CUDA device. NVML numbers them differently."""
    return compiler.require_cuda().Device(0).to_system_device()


def _query(call: Callable[[], Any]) -> Any:
    """Return a value of NVML, or the reason of its absence.

    Jetsons and virtual GPUs provide few of them.
    """
    try:
        return call()
    except Exception as error:  # cuda-core raises types of its own, of several parents
        return f"unknown: {' '.join(str(error).split()) or type(error).__name__}"


def all_versions() -> dict[str, Any]:
    """Return versions of all packages, and of CUDA and cuDNN in PyTorch."""
    versions: dict[str, Any] = dict(versions_record())
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if torch.version.cuda:
        versions["torch_cuda"] = torch.version.cuda
        cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
        versions["torch_cudnn"] = cudnn
    return versions


def free_and_total_bytes() -> tuple[int, int]:
    """Return free and total bytes of the first GPU, over all processes."""
    compiler.require_cuda().Device(0).set_current()
    code, free, total = compiler.require_cuda("cuda.bindings.driver").cuMemGetInfo()
    if int(code):
        raise RuntimeError(f"cuMemGetInfo returned {code}")
    return int(free), int(total)


def release_memory(device: str) -> None:
    """Collect garbage, and return PyTorch's cached memory to the driver."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


class MemoryWatch:
    """Thread that polls the GPU's memory use, relative to the start.

    Attributes:
        peak_mib: largest use. None on the CPU.
    """

    def __init__(self, device: str) -> None:
        self.peak_mib: float | None = None
        self._is_watching = device != "cpu"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        if self._is_watching:
            self._free_at_start, _ = free_and_total_bytes()
            self._least_free = self._free_at_start
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_watching:
            self._done.set()
            self._thread.join()
            self.peak_mib = (self._free_at_start - self._least_free) / _MIB

    def _watch(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._done.wait(_POLL_S)
            self._least_free = min(self._least_free, free_and_total_bytes()[0])
