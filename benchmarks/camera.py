"""Benchmark of a camera at a fixed rate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _errors import check
from _settings import Settings
from _timing import Stage
from cpu_networks import small_network
from pictures import picture

from seginfer import Segmenter
from seginfer._bench.statistics import Summary, summarize

RATE_HZ = 30.0
_SECONDS = 10.0
_PICTURES = 8  # in rotation, so that no frame is in the cache already
_WARM_UP = 3


def measure(settings: Settings) -> Stage:
    """Measure the latency from a frame's arrival to its mask."""
    seconds = 0.5 if settings.quick else _SECONDS
    frames, mask = (
        [picture(settings.image_hw, seed) for seed in range(_PICTURES)],
        np.empty(settings.image_hw, np.uint8),
    )
    path = small_network(settings.folder / "small.onnx", settings.input_hw)
    stage = Stage(
        f"{RATE_HZ:.0f} frames a second of {settings.image_hw} for {seconds:g} s through the small network; "
        "a frame that finds the segmenter busy is replaced by the next"
    )
    with Segmenter.open(path, device="cpu", threads=settings.threads) as segmenter:
        _check_masks(segmenter, frames)
        for image in frames[:_WARM_UP]:
            segmenter(image, out=mask)
        latencies, dropped = run_loop(lambda i: segmenter(frames[i % _PICTURES], out=mask), RATE_HZ, seconds)
    stage.checks["masks equal those without out="] = True
    latency = summarize(latencies)
    stage.cases["frame"] = {"seginfer": latency}
    stage.facts.update(_facts(latency, dropped))
    return stage


def run_loop(process: Callable[[int], object], rate_hz: float, seconds: float) -> tuple[list[float], int]:
    """Process frames of a fixed rate, skipping to the latest.

    Returns:
        Milliseconds from the arrival of each processed frame to its result, and how many frames were dropped.
    """
    total, latencies, start = round(rate_hz * seconds), [], time.perf_counter() + 1 / rate_hz
    number = 0
    while number < total:
        arrival = start + number / rate_hz
        time.sleep(max(0.0, arrival - time.perf_counter()))
        process(number)
        done = time.perf_counter()
        latencies.append((done - arrival) * 1e3)
        newest = int((done - start) * rate_hz)
        number = max(number + 1, min(newest, total))
    return latencies, total - len(latencies)


def _check_masks(segmenter: Segmenter, frames: list[np.ndarray[Any, np.dtype[np.uint8]]]) -> None:
    for image in frames:
        mask = np.empty(image.shape[:2], np.uint8)
        segmenter(image, out=mask)
        check(np.array_equal(mask, segmenter(image).mask), "a mask differs when it is written into `out`")


def _facts(latency: Summary, dropped: int) -> dict[str, float | int]:
    return {
        "rate_hz": RATE_HZ,
        "p50_ms": latency.median_ms,
        "p95_ms": latency.p95_ms,
        "p99_ms": latency.p99_ms,
        "max_ms": latency.max_ms,
        "frames": latency.calls,
        "dropped": dropped,
    }
