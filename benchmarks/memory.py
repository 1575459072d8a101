"""Benchmark of allocations per steady frame, less those of the backend."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _errors import CheckError, check
from _settings import Settings
from _timing import Stage
from cpu_networks import small_network
from pictures import picture

from seginfer import Segmenter, preprocess
from seginfer._bench.statistics import percentile

_FRAMES, _WARM_UP = 200, 20

COUNTS = (
    "blocks of 1024 bytes and more that any thread and any library requests of malloc, calloc, realloc, memalign, "
    "aligned_alloc and posix_memalign, NumPy's arrays and C++'s new included, in one `segmenter(image, out=mask)`, "
    "less those in one bare `backend.infer(batch, out)`; blocks freed at once count too; of each the 95th percentile "
    "over steady frames. Not counted: smaller blocks, such as Python's objects, and memory mapped without malloc"
)


def measure(settings: Settings) -> Stage:
    """Count in a child process with a counting malloc."""
    stage = Stage(f"steady frames of {settings.image_hw} through the small network, with out=")
    stage.facts["counts"] = COUNTS
    small_network(settings.folder / "small.onnx", settings.input_hw)
    try:
        library = _counting_malloc(settings.folder)
    except OSError as error:
        stage.ratios["steady_allocations"] = None
        stage.skipped["steady_allocations"] = f"the counting malloc cannot be built: {error}"
        return stage
    job = {"image_hw": settings.image_hw, "threads": settings.threads, "frames": 10 if settings.quick else _FRAMES}
    command = [sys.executable, __file__, str(settings.folder / "small.onnx"), json.dumps(job)]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise CheckError(f"the process that counts allocations failed: {done.stderr.strip().splitlines()[-1:]}")
    stage.facts.update(json.loads(done.stdout))
    stage.checks["mask equals that of a first call, after every frame"] = True
    blocks = stage.facts["blocks_p95"]
    stage.ratios["steady_allocations"] = float(max(0, blocks["seginfer"] - blocks["backend"]))
    return stage


def _counting_malloc(folder: Path) -> Path:
    """Compile allocations.c.

    Raises:
        OSError: if there is no C compiler, or this is not Linux with glibc.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        raise OSError("it needs Linux and a C compiler on the PATH")
    library = folder / "allocations.so"
    source = Path(__file__).with_name("allocations.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-fno-builtin", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"the compiler failed: {done.stderr.strip()[-200:]}")
    return library


def _count(path: str, job: dict[str, Any]) -> dict[str, Any]:
    """Count allocations of frames and of backend calls, in the child process."""
    process = ctypes.CDLL(None)
    for name in ("benchmark_blocks", "benchmark_bytes"):
        getattr(process, name).restype = ctypes.c_long
    image, mask = picture(tuple(job["image_hw"])), np.empty(job["image_hw"], np.uint8)
    with Segmenter.open(path, device="cpu", threads=job["threads"]) as segmenter:
        batch, _ = preprocess([image], segmenter.spec)
        outputs = segmenter.backend.infer(batch)
        expected = segmenter(image).mask
        calls: dict[str, Callable[[], object]] = {
            "seginfer": lambda: segmenter(image, out=mask),
            "backend": lambda: segmenter.backend.infer(batch, outputs),
        }
        for _ in range(_WARM_UP):
            for call in calls.values():
                call()
        before = _resident_kib()
        counted = {name: _Counter() for name in calls}
        for _ in range(job["frames"]):
            for name, call in calls.items():
                counted[name].add(process, call)
            check(np.array_equal(mask, expected), "a steady frame's mask differs from the first")
        return {
            "frames": job["frames"],
            "blocks_p95": {name: percentile(c.blocks, 95) for name, c in counted.items()},
            "blocks_mean": {name: statistics.mean(c.blocks) for name, c in counted.items()},
            "frames_with_blocks": {name: sum(n > 0 for n in c.blocks) for name, c in counted.items()},
            "kib_mean": {name: statistics.mean(c.bytes) / 1024 for name, c in counted.items()},
            "page_faults_median": {name: statistics.median(c.faults) for name, c in counted.items()},
            "resident_growth_kib": _resident_kib() - before,
            "traced_peak_kib": {name: _traced_peak_kib(call) for name, call in calls.items()},
        }


class _Counter:
    """Blocks, bytes and page faults of every call."""

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.bytes: list[int] = []
        self.faults: list[int] = []

    def add(self, process: ctypes.CDLL, call: Callable[[], object]) -> None:
        """Make one call."""
        blocks, size = process.benchmark_blocks(), process.benchmark_bytes()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        call()
        blocks, size = process.benchmark_blocks() - blocks, process.benchmark_bytes() - size
        self.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
        self.blocks.append(blocks)
        self.bytes.append(size)


def _traced_peak_kib(call: Callable[[], object]) -> float:
    """Return the peak of traced memory in a call, above the level before."""
    tracemalloc.start()
    call()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (peak - before) / 1024


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_count(sys.argv[1], json.loads(sys.argv[2]))))
