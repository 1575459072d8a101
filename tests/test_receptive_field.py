"""The receptive field that tests measure by gradient is the one that arithmetic gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from receptive_field import receptive_field
from torch import Tensor, nn
from torch.nn import functional as F

LAYER = st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 1, 2]))


def conv_net(layers: list[tuple[int, int, int]]) -> nn.Sequential:
    """Return convolutions of random weights with batch norm and ReLU, one per (kernel, dilation, stride)."""
    blocks = [
        nn.Sequential(nn.Conv2d(3, 3, k, s, padding=d * (k // 2), dilation=d), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
        for k, d, s in layers
    ]
    return nn.Sequential(*blocks)


@settings(max_examples=25)
@given(st.lists(LAYER, min_size=1, max_size=4))
def test_of_stacked_convolutions_it_is_one_plus_the_reach_of_every_kernel(layers: list[tuple[int, int, int]]) -> None:
    expected, step = 1, 1
    for kernel, dilation, stride in layers:
        expected += (kernel - 1) * dilation * step
        step *= stride
    size = 2 * expected + 4 * step + 1
    assert receptive_field(conv_net(layers), (size, size + 3)) == (expected, expected)


class Functional(nn.Module):
    """Calls pooling and activation as functions, and sees further across than down."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(1, 2, (1, 7), padding=(0, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(F.max_pool2d(self.wide(x), 2)), kernel_size=3, stride=2, padding=1)


def test_it_is_height_and_width_and_pooling_counts_however_it_is_called() -> None:
    assert receptive_field(Functional(), (40, 60), channels=1) == (6, 12)
    assert receptive_field(nn.MaxPool2d(3, 2, 1), (16, 16)) == (3, 3)
    assert receptive_field(nn.MaxPool2d(2, ceil_mode=True), (15, 15)) == (2, 2)


class Indexing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2, return_indices=True)[0]


class Subtracting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(-x)


def test_the_module_is_left_as_it_was() -> None:
    module = conv_net([(3, 1, 1), (3, 2, 1)])
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    receptive_field(module, (30, 30))
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_field_that_may_be_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="larger size"):
        receptive_field(nn.Conv2d(3, 1, 9, padding=4), (9, 30))
    assert receptive_field(nn.Conv2d(3, 1, 9, padding=4), (11, 11)) == (9, 9)


def test_a_network_that_no_positive_weight_makes_linear_is_refused() -> None:
    with pytest.raises(ValueError, match="subtracts"):
        receptive_field(Subtracting(), (8, 8))


def test_poolings_without_a_mean_are_refused() -> None:
    with pytest.raises(ValueError, match="indices"):
        receptive_field(Indexing(), (8, 8))
    with pytest.raises(ValueError, match="dilation"):
        receptive_field(nn.MaxPool2d(2, dilation=2), (8, 8))
