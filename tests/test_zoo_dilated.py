"""The dilated networks are those of the paper: views, weights, sizes, and the identity that the context starts from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import rtx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import pictures
from receptive_field import receptive_field
from torch import nn
from zoo import count, zoo_spec

from seginfer import OutputSpec
from seginfer.export import export_onnx
from seginfer.export.zoo.dilated import (
    CONTEXT_WIDTHS,
    MARGIN,
    context_module,
    dilated_context,
    dilated_front_end,
    reflect_pad,
)

# VGG16 has 138,357,544 weights (published: 138 M; arXiv:1409.1556, Table 2). Of its classifier 21 of 1000 classes stay;
# that dilated layers have as many weights as others is the point.
VGG16 = 138_357_544
FRONT_END = VGG16 - (4096 + 1) * 1000 + (4096 + 1) * 21


def test_the_front_end_has_the_weights_of_vgg16_with_21_classes() -> None:
    with torch.device("meta"):
        assert count(dilated_front_end()) == FRONT_END == 134_346_581


def test_the_basic_context_module_has_64_weights_per_pair_of_classes() -> None:
    """Section 3 of the paper counts about 64 C^2, which is all but the biases of its eight layers."""
    c = 21
    assert count(context_module(c)) == 64 * c**2 + 8 * c == 28_392
    with torch.device("meta"):
        assert count(dilated_context()) == FRONT_END + 28_392 == 134_374_973


def test_the_large_context_module_has_the_weights_of_table_1() -> None:
    """The paper publishes no count: the sum is over the products of neighbouring entries of its Table 1."""
    c, widths = 21, (1, 2, 2, 4, 8, 16, 32, 32, 1)
    products = sum(9 * a * b for a, b in pairwise(widths[:-1])) + 32
    assert products == 15_422
    biases = sum(widths[1:])
    assert count(context_module(c, CONTEXT_WIDTHS["large"])) == products * c**2 + biases * c == 6_803_139
    with torch.device("meta"):
        assert count(dilated_context(context="large")) == FRONT_END + 6_803_139 == 141_149_720


@pytest.mark.parametrize("size", [(512, 512), (192, 256), (8, 16)])
def test_the_output_has_one_cell_per_8_pixels(size: tuple[int, int]) -> None:
    """Section 4 of the paper: 64 x 64 cells."""
    with torch.device("meta"):
        for network in (dilated_front_end(), dilated_context(), dilated_context(context="large")):
            assert network(torch.empty(1, 3, *size)).shape == (1, 21, size[0] // 8, size[1] // 8)


def test_each_layer_of_the_context_module_sees_what_table_1_says() -> None:
    module = context_module(1)
    layers = [i for i, part in enumerate(module) if isinstance(part, nn.Conv2d)]
    seen = [receptive_field(module[: i + 1], (101, 102), channels=1) for i in layers]
    assert seen == [(n, n) for n in (3, 5, 9, 17, 33, 65, 67, 67)]


def test_dilations_of_1_2_and_4_see_3_7_and_15_pixels() -> None:
    """Fig. 1 of the paper."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, kernel_size=3, dilation=dilation) for dilation in (1, 2, 4)))
    seen = [receptive_field(layers[:n], (31, 32), channels=1) for n in (1, 2, 3)]
    assert seen == [(3, 3), (7, 7), (15, 15)]


def test_a_cell_of_the_front_end_sees_its_own_8_pixels_and_the_margin_around_them() -> None:
    network = dilated_front_end(divisor=64)
    unpadded = nn.Sequential(network.stages, network.classifier)
    assert receptive_field(unpadded, (8 * 8 + 2 * MARGIN, 9 * 8 + 2 * MARGIN)) == (380, 380) == (8 + 2 * MARGIN,) * 2


def test_the_picture_is_mirrored_at_its_border() -> None:
    network = dilated_front_end(3, divisor=32).eval()
    picture = torch.randn(1, 3, 192, 200)
    by_hand = torch.cat(
        [picture.flip(2)[:, :, -MARGIN - 1 : -1], picture, picture.flip(2)[:, :, 1 : MARGIN + 1]], dim=2
    )
    by_hand = torch.cat([by_hand.flip(3)[..., -MARGIN - 1 : -1], by_hand, by_hand.flip(3)[..., 1 : MARGIN + 1]], dim=3)
    assert by_hand.shape == (1, 3, 192 + 2 * MARGIN, 200 + 2 * MARGIN)
    torch.testing.assert_close(network(picture), network.classifier(network.stages(by_hand)))


@settings(max_examples=30)
@given(st.tuples(st.integers(2, 40), st.integers(2, 40)), st.integers(0, 90))
def test_mirroring_equals_opencv_at_any_size(size: tuple[int, int], margin: int) -> None:
    image = torch.rand(size)
    expected = cv2.copyMakeBorder(image.numpy(), margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    assert np.array_equal(reflect_pad(image[None, None], margin)[0, 0].numpy(), expected)


def test_the_basic_context_module_starts_as_the_identity() -> None:
    logits = torch.randn(2, 5, 9, 12)
    module = context_module(5)
    assert torch.equal(module(logits.relu()), logits.relu())
    assert torch.equal(module(logits), logits.relu())


def test_the_large_context_module_starts_as_the_identity_but_for_its_noise() -> None:
    torch.manual_seed(0)
    # small integers times powers of two: the sums round nothing
    logits = torch.randint(8, (2, 5, 9, 12)).float()
    assert torch.equal(context_module(5, CONTEXT_WIDTHS["large"])(logits), logits)
    noisy = context_module(5, CONTEXT_WIDTHS["large"], noise=0.001)(logits)
    error = (noisy - logits).abs().max()
    assert 0 < error < 0.1 * logits.max()


def test_noise_tells_apart_the_channels_of_one_class() -> None:
    def different(noise: float) -> int:
        torch.manual_seed(0)
        hidden = context_module(3, CONTEXT_WIDTHS["large"], noise=noise)[:6](torch.rand(1, 3, 80, 80) + 1)
        return len({tuple(channel.flatten().tolist()) for channel in hidden[0]})

    assert different(0.0) == 3
    assert different(0.001) == 12


def test_a_context_that_is_not_in_the_paper_is_refused() -> None:
    with pytest.raises(ValueError, match="basic"):
        dilated_context(context="huge")


@pytest.mark.parametrize("size", [pytest.param((64, 96), marks=pytest.mark.full), None], ids=["fixed", "free"])
def test_it_is_exported_with_its_context_and_tensorrt_builds_it(size: tuple[int, int] | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = zoo_spec(21, size, OutputSpec(stride=8), multiple_of=8)
    certificate = export_onnx(
        dilated_context(divisor=16), spec, tmp_path / "m.onnx", images=pictures((64, 96), (90, 72))
    )
    assert certificate.decisive_agreement == 1.0
    rtx.build(tmp_path / "m.onnx")
