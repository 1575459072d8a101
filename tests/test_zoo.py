"""The networks of the zoo train, decide, and take other sizes; test_zoo_table.py exports every one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pytest
import torch
from networks import pictures
from numpy.typing import NDArray
from torch import nn

from seginfer import ClassSpec, InputSpec, ModelSpec
from seginfer.export import export_onnx
from seginfer.export.zoo.deconvnet import deconvnet
from seginfer.export.zoo.fcn import FCN, fcn8s, fcn16s, fcn32s
from seginfer.export.zoo.segnet import segnet
from seginfer.export.zoo.unet_paper import unet_same, unet_valid


class Case(NamedTuple):
    build: Callable[..., nn.Module]
    size: tuple[int, int]
    step: int | None
    """Height and width may vary in this step; None: they are fixed."""
    divisor: int = 16
    channels: int = 3
    is_unpooling: bool = False


CASES = {
    "fcn32s": Case(fcn32s, (75, 100), 1),
    "fcn16s": Case(fcn16s, (75, 100), 1),
    "fcn8s": Case(fcn8s, (75, 100), 1),
    "segnet": Case(segnet, (64, 96), 32, is_unpooling=True),
    "deconvnet": Case(deconvnet, (224, 224), None, is_unpooling=True),
    "unet_same": Case(unet_same, (64, 96), 16, divisor=8, channels=1),
    "unet_valid": Case(unet_valid, (188, 204), None, divisor=8, channels=1),
}
STEPPED = sorted(name for name, case in CASES.items() if case.step)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return CASES[name].build(divisor=CASES[name].divisor)


def images_for(name: str, *sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Return pictures, or noise for a network that remembers where its maxima were.

    On smooth pictures many windows hold two equal maxima, up to rounding. Two correct runtimes then remember different
    places, and everything after them differs. Noise has far fewer of these.
    """
    case = CASES[name]
    if case.is_unpooling:
        return [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    images = pictures(*sizes, channels=case.channels)
    return images if case.channels == 3 else [image[:, :, 0] for image in images]


def batch(name: str, count: int) -> torch.Tensor:
    """Return normalized pictures, gray or RGB."""
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in pictures(*[CASES[name].size] * count)]
    return ((torch.stack(images) / 255 - 0.45) / 0.22)[:, : CASES[name].channels]


def spec_of(name: str, size: tuple[int, int] | None, step: int = 1) -> ModelSpec:
    """Return the spec of a network whose classes are those of its paper."""
    num_classes = {"segnet": 11, "unet_same": 2}.get(name, 21)
    color: Literal["rgb", "gray"] = "rgb" if CASES[name].channels == 3 else "gray"
    fields = InputSpec(size=size, multiple_of=step, color=color, mean=(0.45,), std=(0.22,))
    return ModelSpec("semantic", fields, ClassSpec(tuple(f"class {i}" for i in range(num_classes))))


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_kernel_learns(name: str) -> None:
    network = build(name).train()
    logits = network(batch(name, 3))
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    kernels = {key: p for key, p in network.named_parameters() if p.ndim > 1}
    fixed = {"up.weight"} if isinstance(network, FCN) else set()
    assert {key for key, kernel in kernels.items() if kernel.grad is None} == fixed
    gradients = [kernel.grad for kernel in kernels.values() if kernel.grad is not None]
    assert all(bool(gradient.isfinite().all()) and bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("name", sorted(CASES))
def test_random_weights_neither_fade_nor_explode_nor_tie(name: str) -> None:
    with torch.inference_mode():
        logits = build(name).eval()(batch(name, 2))
    assert 0.05 < logits.std() < 20
    best = logits.topk(2, dim=1).values
    assert (best[:, 0] - best[:, 1] > 1e-4 * logits.abs().max()).float().mean() > 0.9


@pytest.mark.full
@pytest.mark.parametrize("name", STEPPED)
def test_the_exported_network_takes_other_sizes(name: str, tmp_path: Path) -> None:
    spec = spec_of(name, None, CASES[name].step or 1)
    images = images_for(name, (64, 96), (96, 64))
    assert export_onnx(build(name), spec, tmp_path / "m.onnx", images=images).decisive_agreement == 1.0


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_divisor_that_leaves_a_rest_is_refused(name: str) -> None:
    for divisor in (0, 3, 128):
        with pytest.raises(ValueError, match="divisor must divide"):
            CASES[name].build(divisor=divisor)


def test_an_fcn_of_another_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="stride must be one of"):
        FCN(4)
