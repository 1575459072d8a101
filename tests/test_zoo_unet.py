"""The U-Nets are that of the paper, with and without padding."""

from __future__ import annotations

import pytest
import torch
from tolerances import SAME_PIXELS
from torch import Tensor, nn

from seginfer.export.zoo.unet_paper import PaperUNet, unet_same, unet_valid


def test_both_have_the_23_convolutions_of_the_paper_and_as_many_weights() -> None:
    """The paper counts 23 layers, and publishes no number of weights; its Fig. 1 gives 31,030,658.

    The much used Keras version has 31,031,685: 1,157 for two more convolutions at the end, less 130 for this head.
    """
    for factory in (unet_valid, unet_same):
        with torch.device("meta"):
            network = factory()
        layers = [part for part in network.modules() if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d))]
        assert len(layers) == 23
        weights = sum(p.numel() for p in network.parameters())
        assert weights == 31_030_658
        assert weights - (64 + 1) * 2 + (9 * 64 + 1) * 2 + (2 + 1) * 1 == 31_031_685


def test_the_sizes_are_those_of_the_papers_figure() -> None:
    with torch.device("meta"):
        network = unet_valid()
        sizes: list[int] = []
        for part in (*network.encoder, *network.decoder):
            part.register_forward_hook(lambda _part, _inputs, output: sizes.append(output.shape[2]))
        assert network(torch.empty(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sizes == [568, 280, 136, 64, 28, 52, 100, 196, 388]
    assert 572 - 2 * network.margin == 388


@pytest.mark.parametrize("size", [(188, 188), (204, 572), (700, 236)])
def test_the_unpadded_output_lacks_a_margin(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = unet_valid(5, in_channels=3)
        height, width = (side - 2 * network.margin for side in size)
        assert network(torch.empty(1, 3, *size)).shape == (1, 5, height, width)
        assert {side % network.size_multiple for side in size} == {12}


def test_the_padded_output_is_as_large_as_the_input() -> None:
    with torch.device("meta"):
        network = unet_same(5, in_channels=3)
        for size in ((16, 16), (512, 512), (192, 336)):
            assert network(torch.empty(1, 3, *size)).shape == (1, 5, *size)
    assert network.margin == 0


def crop(x: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """Cut out a window."""
    return x[..., top : top + size[0], left : left + size[1]]


def difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())


def test_unpadded_tiles_say_what_the_whole_picture_says() -> None:
    """The overlap-tile strategy, Fig. 2 of the paper: no pixel's answer depends on where its tile ends."""
    torch.manual_seed(0)
    network, picture = unet_valid(divisor=16).eval(), torch.rand(1, 1, 268, 284)
    with torch.inference_mode():
        whole = network(picture)
        for top, left in ((0, 0), (16, 48), (64, 80)):
            tile = network(crop(picture, top, left, (204, 204)))
            assert difference(tile, crop(whole, top, left, (20, 20))) <= SAME_PIXELS.limit


def test_padding_changes_nothing_but_the_margin() -> None:
    """Where no padding is in sight, both say the same, if their poolings halve at the same pixels.

    Two unpadded convolutions take two pixels of their level from each side before each pooling. With the smaller
    picture starting at pixel 2 of the larger one, the four poolings start at pixels 4, 4, 4 and 4 of their levels.
    """
    torch.manual_seed(0)
    valid, same = unet_valid(divisor=16).eval(), unet_same(divisor=16).eval()
    same.load_state_dict(valid.state_dict())
    picture = torch.rand(1, 1, 320, 336)
    with torch.inference_mode():
        inner, padded = valid(crop(picture, 2, 2, (300, 316))), same(picture)
    assert difference(inner, crop(padded, 94, 94, (116, 132))) <= SAME_PIXELS.limit


def test_dropout_stands_where_the_contracting_path_ends() -> None:
    network: PaperUNet = unet_valid(divisor=64)
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Dropout)]
    assert names == ["encoder.3.4", "encoder.4.4"]
