"""FastFCN is that of the paper: as many weights, features restored to an 8th of the picture, logits at its size."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

from pathlib import Path

import pytest
import rtx
import torch
from networks import pictures
from receptive_field import receptive_field
from torch import nn
from torch.nn import functional as F
from zoo import count, zoo_spec

from seginfer.export import export_onnx
from seginfer.export.zoo.aspp import AtrousPyramid
from seginfer.export.zoo.fastfcn import FastFCN, JointPyramidUpsampling, fastfcn, separable, upsample
from seginfer.export.zoo.resnet import resnet50

# Published by torchvision for ResNet-50 with its classifier of 1000 classes.
RESNET50 = 25_557_032
BACKBONE = RESNET50 - (2048 + 1) * 1000


def test_the_backbone_is_resnet50_without_its_classifier() -> None:
    with torch.device("meta"):
        assert count(resnet50()) == BACKBONE == 23_508_032


def test_the_whole_has_the_weights_that_the_paper_describes() -> None:
    """The paper publishes no count. These are the sums over section 3.3 and Fig. 4, and over DeepLabV3's head."""
    norm = 2  # weights that batch normalization has per channel
    jpu = (512 + 1024 + 2048) * 512 * 9 + 3 * norm * 512
    together = 3 * 512
    jpu += 4 * (together * 9 + norm * together + together * 512 + norm * 512)
    head = 2048 * 256 * (1 + 3 * 9 + 1) + 5 * norm * 256
    head += 5 * 256 * 256 + norm * 256 + 256 * 256 * 9 + norm * 256 + (256 + 1) * 59
    with torch.device("meta"):
        assert count(fastfcn()) == BACKBONE + jpu + head == 59_384_187


def test_torchvision_counts_the_same_backbone() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = models.resnet50()
        assert count(theirs) == RESNET50
        ours = sorted(tuple(p.shape) for p in resnet50().parameters())
    assert ours == sorted(tuple(p.shape) for name, p in theirs.named_parameters() if not name.startswith("fc"))


@pytest.mark.parametrize("size", [(480, 480), (512, 1024), (97, 131)])
def test_features_have_their_strides_and_logits_the_size_of_the_picture(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = fastfcn().eval()
        batch = torch.empty(1, 3, *size)
        features = network.backbone(batch)
        shapes = [tuple(x.shape[1:]) for x in features]
        restored = network.jpu(features[1:])
        assert network(batch).shape == (1, 59, *size)
    ceil = [tuple(-(-n // stride) for n in size) for stride in (4, 8, 16, 32)]
    assert shapes == [(c, *hw) for c, hw in zip((256, 512, 1024, 2048), ceil, strict=True)]
    assert restored.shape == (1, 2048, *ceil[1])


def test_the_backbone_sees_427_pixels() -> None:
    """7 + 2 * 2 of the stem; then 3x3 convolutions at strides 4, 8, 16 and 32, the first of each stage at its input's:
    11 + 3 * 8 + (8 + 3 * 16) + (16 + 5 * 32) + (32 + 2 * 64) = 427. The original paper's 483 has the strides in the
    1x1 convolutions before them."""

    class Coarsest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = resnet50(divisor=32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.backbone(x)[-1]

    assert receptive_field(Coarsest(), (544, 576)) == (427, 427)


def test_the_four_dilations_see_3_5_9_and_17_cells() -> None:
    module = JointPyramidUpsampling([4, 4, 4], 4)
    assert [receptive_field(branch, (31, 33), channels=12) for branch in module.branches] == [
        (n, n) for n in (3, 5, 9, 17)
    ]


def test_the_pyramid_sees_1_25_49_and_73_cells_and_all() -> None:
    pyramid = AtrousPyramid(4, 2).eval()
    branches = [pyramid.pointwise, *pyramid.dilated]
    assert [receptive_field(branch, (90, 91), channels=4) for branch in branches] == [(n, n) for n in (1, 25, 49, 73)]
    x = torch.randn(2, 4, 6, 7)
    everywhere = pyramid(x)[:, 8:]
    assert torch.equal(everywhere, everywhere[:, :, :1, :1].expand_as(everywhere))
    torch.testing.assert_close(everywhere[..., :1, :1], pyramid.pooled[1:](x.mean((2, 3), keepdim=True)))


def test_a_separable_convolution_is_a_convolution_of_rank_one_per_channel() -> None:
    torch.manual_seed(0)
    ours = separable(3, 5, dilation=2).eval()
    depthwise, pointwise = (part for part in ours if isinstance(part, nn.Conv2d))
    whole = pointwise.weight * depthwise.weight[:, 0]
    x = torch.randn(1, 3, 9, 8)
    scale = 1 / (1 + 1e-5)  # the two batch normalizations of a new network divide by sqrt(1 + 1e-5) each
    torch.testing.assert_close(ours(x), F.conv2d(x, whole, padding=2, dilation=2).relu() * scale)


def test_upsampling_puts_corners_over_corners() -> None:
    x = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
    expected = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 4.0, 5.0, 6.0], [6.0, 7.0, 8.0, 9.0]])
    torch.testing.assert_close(upsample(x, like=torch.empty(1, 1, 3, 4))[0, 0], expected)


def test_activations_keep_their_size_through_the_backbone() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        features = resnet50(divisor=2).eval()(torch.randn(1, 3, 64, 64))
    assert all(0.2 < x.std() < 5 for x in features)


@pytest.mark.parametrize("size", [pytest.param((64, 96), marks=pytest.mark.full), None], ids=["fixed", "free"])
def test_it_is_exported_and_tensorrt_builds_it(size: tuple[int, int] | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: FastFCN = fastfcn(divisor=16)
    spec = zoo_spec(59, size, multiple_of=8)
    certificate = export_onnx(network, spec, tmp_path / "m.onnx", images=pictures((64, 96), (90, 72)))
    assert certificate.decisive_agreement == 1.0
    rtx.build(tmp_path / "m.onnx")
