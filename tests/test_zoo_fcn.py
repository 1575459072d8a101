"""The FCNs are those of the paper: as many weights, any size, the receptive field, the interpolation, the crops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from receptive_field import linearized, receptive_field
from tolerances import RAMP, UPSAMPLING
from torch import nn
from torch.nn import functional as F

from seginfer.export.zoo.fcn import FCN, bilinear_upsampling, fcn8s, fcn16s, fcn32s

FACTORIES = (fcn32s, fcn16s, fcn8s)
STRIDES = (32, 16, 8)

# VGG16 has 138,357,544 weights (published: 138 M; arXiv:1409.1556, Table 2). FCN puts 21 classes in place of the 1000.
VGG16 = 138_357_544
TRUNK = VGG16 - (4096 + 1) * 1000 + (4096 + 1) * 21
SKIP_SCORES = {32: 0, 16: (512 + 1) * 21, 8: (512 + 1) * 21 + (256 + 1) * 21}
SKIP_UPS = {32: 0, 16: 21 * 21 * 4 * 4, 8: 2 * 21 * 21 * 4 * 4}


@pytest.mark.parametrize(("factory", "stride"), list(zip(FACTORIES, STRIDES, strict=True)))
def test_the_weights_are_those_of_vgg16_with_other_classes_and_the_skips(
    factory: Callable[[], FCN], stride: int
) -> None:
    """The paper's Table 1 says 134 M: the trunk without upsampling, 134,346,581, which is FCN-32s without its fixed
    interpolation of 21 * 21 * 64 * 64. FCN-8s has 134,489,759 with its own and the skips."""
    with torch.device("meta"):
        network = factory()
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    assert TRUNK == 134_346_581
    assert learned == TRUNK + SKIP_SCORES[stride] + SKIP_UPS[stride]
    assert fixed == 21 * 21 * (2 * stride) ** 2
    assert learned + fixed == {32: 136_152_917, 16: 134_815_994, 8: 134_489_759}[stride]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("size", [(500, 375), (224, 224), (501, 333), (1, 1)])
def test_the_output_is_as_large_as_the_input(factory: Callable[[], FCN], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = factory()
        assert network(torch.empty(1, 3, *size)).shape == (1, 21, *size)


@settings(max_examples=10)
@given(st.sampled_from(FACTORIES), st.tuples(st.integers(1, 130), st.integers(1, 130)), st.integers(1, 4))
def test_the_output_is_as_large_as_any_input(factory: Callable[..., FCN], size: tuple[int, int], classes: int) -> None:
    network = factory(classes, divisor=64).eval()
    assert network(torch.zeros(1, 3, *size)).shape == (1, classes, *size)


def scores(network: FCN) -> nn.Sequential:
    """Return the part that classifies: up to the scores of one cell of 32 x 32."""
    stages = [nn.Sequential(stage, network.pool) for stage in network.encoder]
    return nn.Sequential(*stages, network.classifier, network.score)


def test_a_score_sees_404_pixels_and_the_next_one_lies_32_further() -> None:
    """Table 1 of the paper: receptive field 404, stride 32."""
    part = scores(fcn32s(divisor=64)).eval()
    assert receptive_field(part, (500, 532)) == (404, 404)
    assert part(torch.zeros(1, 3, 288, 320)).shape[2:] == (10, 11)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_starts_as_bilinear_interpolation(factor: int) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 5, 7)
    up = bilinear_upsampling(3, factor)(image)
    assert up.shape == (2, 3, 6 * factor, 8 * factor)
    half, inner = factor // 2, slice(factor // 2, -(factor // 2))
    expected = F.interpolate(image, scale_factor=factor, mode="bilinear", align_corners=False)
    ours = up[..., half:-half, half:-half]
    # at the border the transposed convolution mixes with zeros, interpolate() repeats the outermost value
    assert (ours - expected)[..., inner, inner].abs().max() <= UPSAMPLING.limit


@pytest.mark.parametrize("factory", FACTORIES)
def test_crops_put_every_score_over_the_pixels_that_it_saw(factory: Callable[..., FCN]) -> None:
    """A network of means maps a ramp to itself only if each window, crop and interpolation is centred on its pixel."""
    network = factory(1, divisor=64)
    mean = linearized(network)
    mean.load_state_dict(
        {f"module.{name}": p.double() for name, p in network.state_dict().items() if "up" in name}, strict=False
    )
    ramp = torch.arange(640.0, dtype=torch.float64).expand(1, 3, 600, 640)
    terms = 1 + len(network.skip_scores)
    inner = (..., slice(280, -280), slice(280, -280))  # beyond the reach of the zeros around the picture
    for picture in (ramp, ramp.mT):
        error = (mean(picture) / terms - picture[:, :1])[inner].abs().max()
        assert error <= RAMP.limit * picture.max()
