"""SegNet and DeconvNet are those of the papers: as many weights, the sizes between, and unpooling that finds back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from receptive_field import receptive_field
from torch import Tensor, nn

from seginfer.export.zoo.deconvnet import DeconvNet, deconvnet
from seginfer.export.zoo.segnet import SegNet, segnet


def count(module: nn.Module, *kinds: type[nn.Module]) -> int:
    """Return the number of weights, of all layers or of some kinds."""
    parts = [part for part in module.modules() if not kinds or isinstance(part, kinds)]
    return sum(p.numel() for part in parts for p in part.parameters(recurse=False))


def sizes_after(network: SegNet | DeconvNet, part: nn.Module, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the heights and widths that a part yields, at each call."""
    sizes: list[tuple[int, ...]] = []

    def note(_part: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        sizes.append(tuple((output if isinstance(output, Tensor) else output[0]).shape[2:]))

    handle = part.register_forward_hook(note)
    network.eval()(torch.empty(1, 3, *size, device="meta"))
    handle.remove()
    return sizes


def test_segnet_has_the_published_number_of_weights() -> None:
    """14.7 M in the encoder (section 3 of the paper), and a Caffe file of 117 MB (Table 6), which is 29.4 M in float32.

    Others quote 29.45 M. Here 29,449,355, or 117.8 MB: for the 11 classes of CamVid, with biases and batch
    normalization.
    """
    with torch.device("meta"):
        network = segnet()
    assert count(network) == 29_449_355
    assert int(count(network) * 4 / 1e6) == 117
    assert count(network.encoder, nn.Conv2d) == 14_714_688
    # The mirrored decoder has the encoder's kernels but for RGB at one end and 11 classes at the other; batch
    # normalization has two weights for each channel that a convolution but the last yields.
    encoder_channels, decoder_channels = 4224, 3712
    kernels = 14_714_688 - encoder_channels
    decoder = kernels - 9 * 3 * 64 + decoder_channels + (9 * 64 + 1) * 11
    assert count(network) == 14_714_688 + decoder + 2 * (encoder_channels + decoder_channels)
    assert sum(isinstance(part, nn.Conv2d) for part in network.modules()) == 26


def test_deconvnet_has_the_published_number_of_weights() -> None:
    """About 252 M (network configuration, in the paper's experiments); 251,805,653 with every bias.

    SegNet's Table 6 gives its file 877 MB, which would be 219 M; what it leaves out is not said.
    """
    with torch.device("meta"):
        network = deconvnet()
    assert count(network) == 251_805_653
    assert round(count(network) / 1e6) == 252
    fc6, fc7, deconv_fc6 = (512 * 49 + 1) * 4096, (4096 + 1) * 4096, 4096 * 49 * 512 + 512
    assert count(network.bottleneck, nn.Conv2d, nn.ConvTranspose2d) == fc6 + fc7 + deconv_fc6
    assert count(network.encoder, nn.Conv2d) == 14_714_688
    assert count(network.decoder, nn.ConvTranspose2d) == 14_714_688 - 4224 - 9 * 3 * 64 + 9 * 64 * 64 + 3712 + 64
    assert count(network, nn.BatchNorm2d) == 2 * (4224 + 4096 + 4096 + 512 + 3712 + 64)
    assert count(network.classifier) == (64 + 1) * 21


def test_segnet_pools_the_papers_picture_to_12_x_15_and_finds_back() -> None:
    with torch.device("meta"):
        network = segnet()
    halves = [(180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]
    assert sizes_after(network, network.pool, (360, 480)) == halves
    assert sizes_after(network, network.unpool, (360, 480)) == [*reversed(halves[:-1]), (360, 480)]
    assert sizes_after(network, network.classifier, (360, 480)) == [(360, 480)]


@settings(max_examples=10)
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_segnet_takes_any_size(size: tuple[int, int]) -> None:
    assert segnet(5, divisor=64).eval()(torch.rand(1, 3, *size)).shape == (1, 5, *size)


def test_deconvnet_squeezes_224_pixels_into_one_vector() -> None:
    with torch.device("meta"):
        network = deconvnet()
    assert sizes_after(network, network.bottleneck[3], (224, 224)) == [(1, 1)]
    assert sizes_after(network, network.bottleneck, (224, 224)) == [(7, 7)]
    assert sizes_after(network, network.unpool, (224, 224)) == [(s, s) for s in (14, 28, 56, 112, 224)]
    assert sizes_after(network, network.classifier, (224, 224)) == [(224, 224)]
    assert sizes_after(network, network.classifier, (256, 320)) == [(256, 320)]


@pytest.mark.parametrize(("factory", "size"), [(segnet, (70, 90)), (deconvnet, (224, 224))])
def test_unpooling_puts_a_stage_back_where_its_maxima_were(
    factory: Callable[..., SegNet | DeconvNet], size: tuple[int, int]
) -> None:
    """The last unpooling is undone by the first pooling's maxima: there, and nowhere else, are its values."""
    seen: dict[str, list[tuple[Tensor, ...]]] = {"pool": [], "unpool": []}
    torch.manual_seed(0)
    network = factory(divisor=64).eval()
    network.pool.register_forward_hook(lambda _m, inputs, _out: seen["pool"].append(inputs))
    network.unpool.register_forward_hook(lambda _m, inputs, out: seen["unpool"].append((inputs[0], out)))
    network(torch.rand(1, 3, *size))
    (before,), (values, after) = seen["pool"][0], seen["unpool"][-1]
    assert after.shape == before.shape
    assert torch.equal(after.flatten(2).topk(1).values, values.flatten(2).topk(1).values)
    windows = nn.functional.max_pool2d(before, 2, ceil_mode=True)
    largest = nn.functional.interpolate(windows, scale_factor=2)[..., : size[0], : size[1]]
    assert (before[after != 0] == largest[after != 0]).all()
    assert torch.count_nonzero(after) == torch.count_nonzero(values)


def test_deconvnets_vector_sees_the_whole_picture() -> None:
    """VGG16's receptive field, as FCN's Table 1 has it."""
    network = deconvnet(divisor=64)
    stages = [nn.Sequential(stage, nn.MaxPool2d(2)) for stage in network.encoder]
    assert receptive_field(nn.Sequential(*stages, network.bottleneck[:6]), (608, 608)) == (404, 404)
