"""Benchmark of image to mask through whole networks.

A small network runs against every peer, a U-Net against its backend alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from _errors import PeerUnavailableError, check
from _peers import PeerProcess
from _settings import Settings, missing
from _timing import Stage, measure_in_turns
from cpu_networks import CLASSES, MEAN, STD, small_network, unet
from idioms import Array, cv2_mask, margin_where_different, numpy_batch, torch_batch, torch_mask
from pictures import mixed_share, picture

from seginfer import Segmenter, preprocess
from seginfer._bench.turns import Contender, make_contender

_BUDGET_S = 35.0

# Networks amplify differences between batches, so near ties are wider than in the mask step alone.
_NEAR_TIE = 1e-4

# Shares of equal pixels. cv2 rounds the resized image to uint8, while the spec requires floats. Model API also takes
# the argmax before it enlarges by nearest neighbour, which moves every class border.
_AGREEMENT = {"numpy": 0.98, "mmdeploy": 0.98, "model_api": 0.93, "model_api mask only": 0.93}
_QUICK_SLACK = 0.1  # small pictures have mostly borders

_CALLS = {  # by peer process: contender, and the name of its call and of its saved mask
    "model_api": {"model_api": "default", "model_api mask only": "mask_only"},
    "mmdeploy": {"mmdeploy": "mask"},
}


def measure(settings: Settings) -> Stage:
    """Time both networks."""
    stage = Stage(f"{settings.image_hw} image to mask through a network with input {settings.input_hw}")
    _small(stage, settings)
    _unet(stage, settings)
    stage.ratio("end_to_end_vs_model_api", "small", "model_api", "seginfer")
    stage.ratio("end_to_end_vs_backend", "unet", "seginfer", "backend")
    return stage


def _small(stage: Stage, settings: Settings) -> None:
    """Time the small network, where the work around it dominates."""
    path, image = small_network(settings.folder / "small.onnx", settings.input_hw), picture(settings.image_hw)
    with ExitStack() as open_things:
        segmenter = open_things.enter_context(Segmenter.open(path, device="cpu", threads=settings.threads))
        mask, ours, backend = _ours(stage, "small", segmenter, image)
        contenders = [ours, backend, *_idioms(stage, segmenter, image, mask, settings)]
        for name in _CALLS:
            try:
                contenders += _peer(stage, name, settings, image, mask, open_things)
            except PeerUnavailableError as error:
                stage.skipped[name] = str(error)
        stage.cases["small"] = measure_in_turns(contenders, settings, _BUDGET_S)


def _unet(stage: Stage, settings: Settings) -> None:
    """Time the U-Net, call by call.

    Both contenders leave the same data in the cache.
    """
    path, image = unet(settings.folder / "unet.onnx", settings.input_hw), picture(settings.image_hw)
    with Segmenter.open(path, device="cpu", threads=settings.threads) as segmenter:
        _, ours, backend = _ours(stage, "unet", segmenter, image)
        stage.cases["unet"] = measure_in_turns([ours, backend], settings, _BUDGET_S, is_warm=True)


def _ours(stage: Stage, case: str, segmenter: Segmenter, image: Array) -> tuple[Array, Contender, Contender]:
    """Return the checked mask, and the contenders "seginfer" and "backend"."""
    spec, mask = segmenter.spec, np.empty(image.shape[:2], np.uint8)
    batch, _ = preprocess([image], spec)
    outputs = segmenter.backend.infer(batch)
    segmenter(image, out=mask)
    stage.facts[f"mixed_share_{case}"] = mixed_share(outputs[spec.output.name])
    stage.facts[f"backend_{case}"] = segmenter.backend.description
    if reason := missing("torch"):
        stage.skipped["torch"] = reason
    else:
        _check_against_torch(stage, case, segmenter, image, mask)
    mask_of_check = mask.copy()
    ours = make_contender("seginfer", lambda: segmenter(image, out=mask))
    return mask_of_check, ours, make_contender("backend", lambda: segmenter.backend.infer(batch, outputs))


def _check_against_torch(stage: Stage, case: str, segmenter: Segmenter, image: Array, mask: Array) -> None:
    logits = _infer(segmenter, torch_batch(image, segmenter.spec.input.size or mask.shape))
    count, lead = margin_where_different(mask, torch_mask(logits, mask.shape), logits)
    stage.checks[f"{case}: pixels unlike torch"] = count
    check(
        lead <= _NEAR_TIE,
        f"the mask differs from torch's on {count} pixels, one of which is no near tie: the best class leads by "
        f"{lead:.1e} of the largest logit, expected at most {_NEAR_TIE:.0e}; run the tests before timing anything",
    )


def _idioms(stage: Stage, segmenter: Segmenter, image: Array, mask: Array, settings: Settings) -> list[Contender]:
    """Return contenders with the same backend and common pixel code around it."""
    input_hw, image_hw, contenders = segmenter.spec.input.size or mask.shape, mask.shape, []
    if reason := missing("cv2"):
        stage.skipped["numpy"] = reason
    else:

        def with_numpy() -> Array:
            return cv2_mask(_infer(segmenter, numpy_batch(image, input_hw)), image_hw)

        _check_agreement(stage, "numpy", with_numpy(), mask, settings)
        contenders.append(make_contender("numpy", with_numpy))
    if "torch" not in stage.skipped:  # checked in `_ours`

        def with_torch() -> Array:
            return torch_mask(_infer(segmenter, torch_batch(image, input_hw)), image_hw)

        contenders.append(make_contender("torch", with_torch))
    return contenders


def _peer(
    stage: Stage, name: str, settings: Settings, image: Array, mask: Array, open_things: ExitStack
) -> list[Contender]:
    """Start a peer, check its masks, and return its contenders."""
    if not settings.use_peers:
        raise PeerUnavailableError(f"{name} was left out by --no-peers")
    np.save(settings.folder / "image.npy", image)
    job: dict[str, Any] = {
        "model": str(settings.folder / "small.onnx"),
        "image": str(settings.folder / "image.npy"),
        "input_hw": settings.input_hw,
        "classes": CLASSES,
        "mean": MEAN,
        "std": STD,
        "threads": settings.threads,
    }
    process = open_things.enter_context(PeerProcess(name, job, may_download=settings.set_up_peers))
    stage.facts[name] = process.about
    with np.load(process.results) as masks:
        for contender, call in _CALLS[name].items():
            _check_agreement(stage, contender, masks[call], mask, settings)
    return [process.contender(contender, call) for contender, call in _CALLS[name].items()]


def _check_agreement(stage: Stage, name: str, made: Array, mask: Array, settings: Settings) -> None:
    check(made.shape == mask.shape, f"{name} made a mask of {made.shape}, expected {mask.shape}")
    share = float((made == mask).mean())
    stage.checks[f"share of pixels as {name}"] = share
    least = _AGREEMENT[name] - (_QUICK_SLACK if settings.quick else 0)
    check(share >= least, f"the mask agrees with {name}'s on {share:.4f} of the pixels, expected at least {least}")


def _infer(segmenter: Segmenter, batch: Array) -> Array:
    return segmenter.backend.infer(batch)[segmenter.spec.output.name]
