"""Specs that differ from a given one by a usual mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from seginfer._segmenter import Segmenter
from seginfer._spec.model_spec import InputSpec, ModelSpec

from .torch_reference import torch_backend

_LEVEL = 1 / 255
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_RESAMPLINGS = ("opencv", "pillow", "torch", "torch-antialias", "nearest")


class Neighbour(NamedTuple):
    """A spec near another, its difference in words, and its score, 0..1."""

    change: str
    spec: ModelSpec
    score: float = 0.0


def best_neighbour(
    module: nn.Module | None, segmenter: Segmenter, score: Callable[[Segmenter], float]
) -> Neighbour | None:
    """Return the usual mistake whose correction has the highest score.

    Args:
        module: runs the neighbours, which may have another input size than the graph. None runs the graph.
        segmenter: the pipeline with the spec that may be wrong.
        score: judges the pipeline of a neighbour, 0..1.
    """
    spec = segmenter.spec
    if module is not None:
        spec = replace(spec, outputs=(replace(spec.output, upsample=None), *spec.outputs[1:]))
    found = []
    for neighbour in _neighbours(spec, may_resize=module is not None):
        backend = segmenter.backend if module is None else torch_backend(module, neighbour.spec)
        try:
            found.append(neighbour._replace(score=score(Segmenter(neighbour.spec, backend, pixels="cpu"))))
        except Exception:  # the user's module may raise anything at another size
            continue
    return max(found, key=lambda neighbour: neighbour.score, default=None)


def _neighbours(spec: ModelSpec, *, may_resize: bool) -> Iterator[Neighbour]:
    """Yield the neighbours of a spec, without their score."""

    def changed(change: str, **fields: Any) -> Neighbour:
        return Neighbour(change, replace(spec, input=replace(spec.input, **fields)))

    one = spec.input
    if one.color != "gray":
        other = "bgr" if one.color == "rgb" else "rgb"
        yield changed(f"color={other!r}", color=other)
    if one.dtype != "uint8":
        yield from _normalisations(one, changed)
    for resampling in _RESAMPLINGS:
        if resampling != one.resampling and not (one.dtype == "uint8" and resampling.startswith("torch")):
            yield changed(f"resampling={resampling!r}", resampling=resampling)
    if one.size is not None and one.resize in ("stretch", "letterbox", "center-crop"):
        for resize in ("stretch", "letterbox"):
            if resize != one.resize:
                yield changed(f"resize={resize!r}", resize=resize)
        if may_resize:
            height, width = one.size
            yield changed(f"size={(2 * height, 2 * width)}", size=(2 * height, 2 * width))
            yield changed(f"size={(height // 2, width // 2)}", size=(height // 2, width // 2))
    if spec.output.kind != "labels":
        aligned = not spec.output.align_corners
        output = replace(spec.output, align_corners=aligned)
        yield Neighbour(f"align_corners={aligned}", replace(spec, outputs=(output, *spec.outputs[1:])))


def _normalisations(spec: InputSpec, changed: Callable[..., Neighbour]) -> Iterator[Neighbour]:
    none: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}
    scale = 1.0 if spec.scale < 0.5 else _LEVEL
    if any(spec.mean) or set(spec.std) != {1.0}:
        yield changed("neither mean nor std", **none)
        yield changed(f"scale={scale:.6g}", scale=scale)
        factor = spec.scale / scale  # constants for the other range of pixels
        mean, std = (tuple(value * factor for value in values) for values in (spec.mean, spec.std))
        yield changed("mean and std for the other range of pixels", mean=mean, std=std)
    yield changed(f"scale={scale:.6g} without mean and std", scale=scale, **none)
    if spec.channels == 3:
        mean, std = (values if spec.color == "rgb" else values[::-1] for values in _IMAGENET)
        yield changed("mean and std of ImageNet", scale=_LEVEL, mean=mean, std=std)
    yield changed("mean and std of 0.5", scale=_LEVEL, mean=(0.5,), std=(0.5,))
