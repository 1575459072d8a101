"""Benchmark of the time per call beside the network.

A 64 x 64 image through one 1x1 convolution, less the backend alone.
"""

from __future__ import annotations

import numpy as np
from _errors import check
from _settings import Settings
from _timing import Stage, measure_in_turns
from cpu_networks import trivial_network
from pictures import picture

from seginfer import Segmenter, postprocess, preprocess
from seginfer._bench.turns import make_contender

_BUDGET_S = 8.0
_SIZE = (64, 64)


def measure(settings: Settings) -> Stage:
    """Time the segmenter and its bare backend."""
    image, mask = picture(_SIZE), np.empty(_SIZE, np.uint8)
    path = trivial_network(settings.folder / "trivial.onnx", _SIZE)
    stage = Stage(f"{image.shape} uint8 to a mask through one 1x1 convolution, with out=, and its backend alone")
    with Segmenter.open(path, device="cpu", threads=settings.threads) as segmenter:
        batch, geometries = preprocess([image], segmenter.spec)
        outputs = segmenter.backend.infer(batch)
        (expected,) = postprocess(outputs[segmenter.spec.output.name], geometries, segmenter.spec)
        segmenter(image, out=mask)
        check(np.array_equal(mask, expected), "the segmenter's mask differs from that of its stages")
        check(len(np.unique(mask)) > 1, "the mask has a single class; choose another seed")
        contenders = [
            make_contender("seginfer", lambda: segmenter(image, out=mask)),
            make_contender("backend", lambda: segmenter.backend.infer(batch, outputs)),
        ]
        times = measure_in_turns(contenders, settings, _BUDGET_S)
    stage.checks["mask equals that of preprocess, backend, postprocess"] = True
    stage.cases["call"] = times
    stage.compared["call_overhead_us"] = ("call", "seginfer", "backend")
    stage.ratios["call_overhead_us"] = (times["seginfer"].median_ms - times["backend"].median_ms) * 1e3
    return stage
