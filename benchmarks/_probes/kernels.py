"""Probe of the kernels: load, launch, compare with the CPU."""

from __future__ import annotations

import importlib
import time

from seginfer import _native
from seginfer._cuda.gpu import Gpu

from . import median_ms, report

CASES_MODULE = "gpu_cases"  # of tests/
CHECKS = ("check_input", "check_mask", "check_overlay")
CASES = 25  # of each check


def run() -> None:
    """Report load times, and random cases that differ from the CPU."""
    report("compiled core", _native.describe())
    start = time.perf_counter()
    gpu = Gpu()
    report("first Gpu(), with NVRTC unless cubins are cached, s", round(time.perf_counter() - start, 2))
    report("second Gpu(), ms", median_ms(lambda: Gpu().close(), 1, 0))
    cases = importlib.import_module(CASES_MODULE)
    for name in CHECKS:
        different = []
        for seed in range(CASES):
            try:
                getattr(cases, name)(gpu, seed)
            except AssertionError as error:
                different.append((seed, str(error).strip().splitlines()[:4]))
        report(f"{name}: cases of {CASES} unlike the CPU", len(different))
        if different:
            report(f"{name}: the first of them", different[0])
    gpu.close()
