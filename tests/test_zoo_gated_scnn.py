"""Gated-SCNN is that of the paper: as many weights, two outputs at the picture's size, gates, and an exact gradient."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

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

from seginfer import OutputSpec, Segmenter
from seginfer.export import export_onnx
from seginfer.export.zoo.gated_scnn import GatedConv, ImageGradient, ResidualBlock, gated_scnn
from seginfer.export.zoo.wide_resnet import PreactivatedBlock, WideResNet

NORM = 2  # weights that batch normalization has per channel


def test_the_whole_has_137_million_weights() -> None:
    """The paper publishes no count. This is the sum over the authors' program, which has 65 more that it never uses."""
    wide = 3 * 64 * 9
    wide += block(64, 128, 128) + 2 * block(128, 128, 128)
    wide += block(128, 256, 256) + 2 * block(256, 256, 256)
    wide += block(256, 512, 512) + 5 * block(512, 512, 512)
    wide += block(512, 512, 1024) + 2 * block(1024, 512, 1024)
    wide += block(1024, 512, 1024, 2048) + block(2048, 1024, 2048, 4096)
    shape = sum(2 * (c * c * 9 + NORM * c) for c in (64, 32, 16))  # residual blocks
    shape += (64 + 1) * 32 + (32 + 1) * 16 + (16 + 1) * 8  # reductions
    shape += (256 + 1) + (512 + 1) + (4096 + 1)  # views of the regular stream
    shape += sum(NORM * (c + 1) + (c + 2) * (c + 1) + (c + 2) + NORM + c * c for c in (32, 16, 8))  # gates
    shape += 8 + 2  # edges; edges and gradient
    pyramid = 4096 * 256 * (1 + 3 * 9 + 1) + 5 * NORM * 256 + 256 + NORM * 256
    decoder = 6 * 256 * 256 + 128 * 48
    decoder += (256 + 48) * 256 * 9 + NORM * 256 + 256 * 256 * 9 + NORM * 256 + 256 * 19
    with torch.device("meta"):
        assert count(WideResNet()) == wide == 105_062_720
        assert count(gated_scnn()) == wide + shape + pyramid + decoder == 137_278_125


def block(*channels: int) -> int:
    """Weights of a residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1; a shortcut where channels change."""
    areas = (9, 9) if len(channels) == 3 else (1, 9, 1)
    layers = zip(channels[:-1], channels[1:], areas, strict=True)
    weights = sum(NORM * before + before * after * area for before, after, area in layers)
    return weights + (channels[0] * channels[-1] if channels[0] != channels[-1] else 0)


@pytest.mark.parametrize("size", [(720, 720), (1024, 2048), (65, 99)])
def test_features_end_at_an_8th_and_both_outputs_at_the_size_of_the_picture(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = gated_scnn().eval()
        batch = torch.empty(1, 3, *size)
        shapes = [tuple(x.shape[1:]) for x in network.backbone(batch)]
        outputs = network(batch)
    sizes = [tuple(-(-n // stride) for n in size) for stride in (1, 2, 4, 8, 8, 8, 8)]
    assert shapes == [(c, *hw) for c, hw in zip((64, 128, 256, 512, 1024, 2048, 4096), sizes, strict=True)]
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {"out": (1, 19, *size), "edges": (1, 1, *size)}


def test_the_regular_stream_sees_585_pixels() -> None:
    """3 of the stem. A pooling adds 2 times its input's stride, a 3x3 convolution as much times its dilation; strides
    are 1 and 2 before the poolings, and 4 before the one convolution that steps. Stage by stage:
    3 + (2 + 6 * 4) + (4 + 6 * 8) + (8 + 11 * 16) + 6 * 32 + 64 + 64 = 585."""

    class Coarsest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = WideResNet(divisor=64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.backbone(x)[-1]

    assert receptive_field(Coarsest(), (704, 712)) == (585, 585)


def test_the_shape_stream_works_at_the_size_of_the_picture() -> None:
    """A residual block of two 3x3 convolutions sees 5 pixels; there is nothing else that looks around."""
    assert receptive_field(ResidualBlock(2), (11, 12), channels=2) == (5, 5)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(-5, 5))
def test_gates_are_between_0_and_1_and_scale_the_shape_stream(seed: int, shift: float) -> None:
    torch.manual_seed(seed)
    layer = GatedConv(4).eval()
    shape, regular = torch.randn(2, 4, 5, 6), torch.randn(2, 1, 5, 6) + shift
    with torch.inference_mode():
        gate = layer.gate(torch.cat([shape, regular], dim=1))
        assert gate.shape == (2, 1, 5, 6)
        assert 0 <= gate.min() <= gate.max() <= 1
        expected = torch.einsum("oi,nihw->nohw", layer.convolution.weight[:, :, 0, 0], shape * (1 + gate))
        torch.testing.assert_close(layer(shape, regular), expected)


def test_the_regular_stream_opens_the_gates() -> None:
    torch.manual_seed(0)
    layer = GatedConv(2).eval()
    with torch.no_grad():
        for convolution in (layer.gate[1], layer.gate[3]):
            convolution.weight.zero_()
            convolution.weight[-1, -1] = 1000  # of what is positive in the regular stream, times 10 ** 6
        layer.gate[3].bias.fill_(-1000)
    shape = torch.randn(1, 2, 3, 3)
    regular = torch.tensor([[-1.0, 0.0, 1.0]]).expand(1, 1, 3, 3)
    with torch.inference_mode():
        ungated = layer.convolution(shape)
        torch.testing.assert_close(layer(shape, regular), ungated * torch.tensor([1.0, 1.0, 2.0]))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_the_gradient_is_that_of_opencv(seed: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.float32)
    dx, dy = (
        cv2.Sobel(image, cv2.CV_32F, *order, ksize=3, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
        for order in ((1, 0), (0, 1))
    )
    expected = (np.abs(dx) + np.abs(dy)).max(axis=2)
    ours = ImageGradient()(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert np.array_equal(ours[0, 0].numpy(), expected)  # eighths of integers: nothing is rounded


def test_the_gradient_of_a_ramp_is_its_slope() -> None:
    ramp = 0.5 * torch.arange(6.0).expand(1, 3, 5, 6)
    for image in (ramp, -ramp.mT):
        assert torch.equal(ImageGradient()(image)[0, 0, 1:-1, 1:-1], torch.full(image[0, 0, 1:-1, 1:-1].shape, 0.5))


def test_the_gradient_reaches_the_logits_through_the_fusion() -> None:
    torch.manual_seed(0)
    network = gated_scnn(divisor=8).eval()
    batch = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(batch)
        network.gradient.dx.zero_()
        after = network(batch)
    assert torch.equal(before["edges"], after["edges"])
    assert not torch.equal(before["out"], after["out"])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_preactivated_block_adds_its_branch_to_the_shortcut(stride: int) -> None:
    same, other = PreactivatedBlock(3, (4, 3)), PreactivatedBlock(3, (4, 5), stride=stride)
    x = torch.randn(1, 3, 7, 6)
    with torch.no_grad():
        for module in (same, other):
            module.branch[-1].weight.zero_()
    assert torch.equal(same(x), x)
    assert torch.equal(other.eval()(x), other.shortcut(other.activation(x)))


def test_activations_keep_their_size_through_the_backbone() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        features = WideResNet(divisor=8).eval()(torch.randn(1, 3, 48, 48))
    assert all(0.2 < x.std() < 10 for x in features)


@pytest.mark.parametrize("size", [pytest.param((64, 96), marks=pytest.mark.full), None], ids=["fixed", "free"])
def test_it_is_exported_with_its_edges_and_tensorrt_builds_it(size: tuple[int, int] | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = gated_scnn(divisor=8)
    spec = zoo_spec(19, size, OutputSpec(), OutputSpec("edges", kind="probabilities"), multiple_of=8)
    certificate = export_onnx(network, spec, tmp_path / "m.onnx", images=pictures((64, 96), (90, 72)))
    assert certificate.decisive_agreement == 1.0
    batch = torch.randn(1, 3, 64, 96)
    with Segmenter.open(tmp_path / "m.onnx", device="cpu") as segmenter, torch.inference_mode():
        edges = segmenter.backend.infer(batch.numpy())["edges"]
        np.testing.assert_allclose(edges, network.eval()(batch)["edges"].numpy(), atol=1e-5)
    rtx.build(tmp_path / "m.onnx")
