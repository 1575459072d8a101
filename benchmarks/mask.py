"""Benchmark of the mask step, against torch and cv2."""

from __future__ import annotations

from functools import partial

import numpy as np
from _errors import check
from _settings import Settings, missing
from _timing import Stage, measure_in_turns
from cpu_networks import CLASSES, make_spec
from idioms import NEAR_TIE, cv2_mask, margin_where_different, torch_mask
from numpy.typing import NDArray
from pictures import mixed_share, noise_logits, picture, smooth_logits

from seginfer import postprocess, preprocess
from seginfer._bench.turns import Contender, make_contender

_BUDGET_S = 30.0


def measure(settings: Settings) -> Stage:
    """Time `postprocess` on smooth logits and on noise."""
    height, width = (n // 4 for n in settings.input_hw)
    stage = Stage(f"{CLASSES} x {height} x {width} float32 logits to a mask of {settings.image_hw} uint8")
    for peer, module in (("torch", "torch"), ("cv2", "cv2")):
        if reason := missing(module):
            stage.skipped[peer] = reason
    logits = {"smooth": smooth_logits(CLASSES, (height, width)), "noise": noise_logits(CLASSES, (height, width))}
    for case, values in logits.items():
        stage.facts[f"mixed_share_{case}"] = mixed_share(values)
        contenders = _contenders(stage, case, values, settings)
        stage.cases[case] = measure_in_turns(contenders, settings, _BUDGET_S)
    for name, case in (("mask", "smooth"), ("mask_noise", "noise")):
        stage.ratio(f"{name}_vs_torch", case, "torch", "seginfer")
        stage.ratio(f"{name}_vs_cv2", case, "cv2", "seginfer")
    return stage


def _contenders(stage: Stage, case: str, logits: NDArray[np.float32], settings: Settings) -> list[Contender]:
    """Check that masks differ in near ties only, and return the contenders."""
    spec, image_hw = make_spec(settings.input_hw, stride=4), settings.image_hw
    _, geometries = preprocess([picture(image_hw)], spec)
    mask = np.empty(image_hw, np.uint8)
    contenders = [make_contender("seginfer", lambda: postprocess(logits, geometries, spec, out=[mask]))]
    postprocess(logits, geometries, spec, out=[mask])
    for peer, make in (("torch", torch_mask), ("cv2", cv2_mask)):
        if peer in stage.skipped:
            continue
        if "torch" not in stage.skipped:
            count, lead = _check_mask(mask, make(logits, image_hw), logits, peer)
            stage.checks[f"{case}: pixels unlike {peer}"] = count
            stage.checks[f"{case}: their largest lead, as a share of the largest logit ({peer})"] = lead
        contenders.append(make_contender(peer, partial(make, logits, image_hw)))
    return contenders


def _check_mask(
    mask: NDArray[np.uint8], other: NDArray[np.uint8], logits: NDArray[np.float32], peer: str
) -> tuple[int, float]:
    count, lead = margin_where_different(mask, other, logits)
    check(
        lead <= NEAR_TIE[peer],
        f"the mask differs from {peer}'s on {count} pixels, one of which is no near tie: the best class leads by "
        f"{lead:.1e} of the largest logit, expected at most {NEAR_TIE[peer]:.0e}; run the tests before timing anything",
    )
    return count, lead
