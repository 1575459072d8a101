"""Record of machine, versions and commit of a run."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("seginfer", "numpy", "onnxruntime", "onnx", "torch", "opencv-python-headless", "opencv-python")
_CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "sve", "hypervisor")


def bind_to_cores(count: int) -> None:
    """Bind this process and its children to `count` cores.

    Call it before NumPy or torch start threads.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def set_threads(count: int) -> dict[str, int]:
    """Set the threads of every library, and return their own counts."""
    taken = {"onnxruntime": count}
    try:
        import torch

        torch.set_num_threads(count)
        taken["torch"] = torch.get_num_threads()
    except ImportError:
        pass
    try:
        import cv2

        cv2.setNumThreads(count)
        taken["cv2"] = cv2.getNumThreads()
    except ImportError:
        pass
    return taken


def machine_record() -> dict[str, Any]:
    """Return the machine's hardware and its load."""
    cpu = _cpu_info()
    return {
        "processor": cpu.get("model name", platform.processor() or platform.machine()),
        "architecture": platform.machine(),
        "flags": [flag for flag in _CPU_FLAGS if flag in cpu.get("flags", cpu.get("Features", "")).split()],
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "load_average_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def versions_record() -> dict[str, str]:
    """Return the versions of Python and of all measured packages."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def compiled_modules() -> list[str]:
    """Return the loaded compiled modules of seginfer. Empty without the compiled core."""
    endings = (".so", ".pyd")
    loaded = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    return sorted(name for name, file in loaded.items() if name.startswith("seginfer") and file.endswith(endings))


def commit_record() -> dict[str, Any]:
    """Return the measured commit, and whether tracked files differ from it."""
    head = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"sha": head, "has_changes": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_info() -> dict[str, str]:
    text = _text("/proc/cpuinfo") or ""
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None
