"""Benchmark of the preprocess step, against NumPy, cv2.dnn, torch and memcpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from _errors import check
from _settings import Settings, missing
from _timing import Stage, measure_in_turns
from cpu_networks import STD, make_spec
from idioms import Array, blob_batch, blob_params_batch, numpy_batch, torch_batch
from pictures import picture

import seginfer
from seginfer._bench.turns import Contender, make_contender

_BUDGET_S = 25.0

# cv2 rounds the resized pixels to uint8 by half a level, and its 11-bit weights add a little. Measured: 0.75 levels.
_CV2_TOLERANCE = 1 / 255 / min(STD)
_TORCH_TOLERANCE = 2e-6  # a few float32 roundings of values up to 2.7

_MEMCPY = "a memcpy of n bytes reads n and writes n: n is half of the bytes that the step must read and write"


def measure(settings: Settings) -> Stage:
    """Time `preprocess`: torch resampling, stretched, float32 NCHW, mean and std."""
    spec = make_spec(settings.input_hw)
    image = picture(settings.image_hw)
    batch, _ = seginfer.preprocess([image], spec)
    stage = Stage(f"{image.shape} uint8 to {batch.shape} float32: resampling 'torch', stretched, mean and std")
    contenders = [make_contender("seginfer", lambda: seginfer.preprocess([image], spec, out=batch))]
    contenders += _peers(stage, image, batch, settings)
    contenders += _memcpys(stage, image.nbytes + batch.nbytes)
    stage.cases["frame"] = measure_in_turns(contenders, settings, _BUDGET_S)
    _add_ratios(stage)
    return stage


def _add_ratios(stage: Stage) -> None:
    times = stage.cases["frame"]
    blobs = [name for name in ("blobFromImage", "blobFromImageWithParams") if name in times]
    faster = min(blobs, key=lambda name: times[name].median_ms, default="blobFromImage")
    stage.ratio("preprocess_vs_numpy", "frame", "numpy", "seginfer")
    stage.ratio("preprocess_vs_blob", "frame", faster, "seginfer")
    stage.ratio("preprocess_vs_memcpy", "frame", "seginfer", "memcpy")
    stage.facts["blob_peer"] = f"{faster}, the faster of two ways to the same batch"
    stage.facts["preprocess_vs_memcpy_of_all_bytes"] = (
        times["seginfer"].median_ms / times["memcpy of all bytes"].median_ms
    )


def _peers(stage: Stage, image: Array, batch: Array, settings: Settings) -> list[Contender]:
    """Check all batches within their tolerances, and return the contenders."""
    input_hw, contenders = settings.input_hw, []
    if reason := missing("torch"):
        stage.skipped["torch"] = reason
    else:
        _check_batch(stage, "torch", torch_batch(image, input_hw), batch, _TORCH_TOLERANCE)
        contenders.append(make_contender("torch", lambda: torch_batch(image, input_hw)))
    if reason := missing("cv2"):
        stage.skipped.update(dict.fromkeys(("numpy", "blobFromImage"), reason))
        return contenders
    with_params = blob_params_batch(input_hw)
    makers: dict[str, Callable[[], Array]] = {
        "numpy": lambda: numpy_batch(image, input_hw),
        "blobFromImage": lambda: blob_batch(image, input_hw),
        "blobFromImageWithParams": lambda: with_params(image),
    }
    for name, make in makers.items():
        _check_batch(stage, name, make(), batch, _CV2_TOLERANCE)
        contenders.append(make_contender(name, make))
    return contenders


def _memcpys(stage: Stage, moved_bytes: int) -> list[Contender]:
    """Return two single-threaded copies.

    One moves as many bytes as the step, the other twice as many.
    """
    stage.facts["moved_bytes"], stage.facts["memcpy"] = moved_bytes, _MEMCPY
    contenders = []
    for name, size in (("memcpy", moved_bytes // 2), ("memcpy of all bytes", moved_bytes)):
        source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
        np.copyto(target, source)
        check(bool(target.all()), "the copy is not complete")
        contenders.append(make_contender(name, partial(np.copyto, target, source)))
    return contenders


def _check_batch(stage: Stage, name: str, made: Array, batch: Array, tolerance: float) -> None:
    check(made.shape == batch.shape, f"{name} made a batch of {made.shape}, expected {batch.shape}")
    difference = float(np.abs(made - batch).max())
    stage.checks[f"largest difference to {name}"] = difference
    check(
        difference <= tolerance,
        f"the batch differs from {name}'s by {difference:.2e}, expected at most {tolerance:.2e}; "
        "run the tests before timing anything",
    )
