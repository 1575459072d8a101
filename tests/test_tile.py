"""Masks of tiles are those of one pass over the whole mirrored image, bit for bit where the arithmetic is exact."""

# mypy: no-warn-return-any
# Calling a module of torch yields Any.

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_spec, save_model
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer import (
    Geometry,
    InputError,
    InputSpec,
    ModelFileError,
    ModelSpec,
    Segmenter,
    confidence,
    postprocess,
    preprocess,
)
from seginfer.backends.torch import TorchBackend
from seginfer.export._network import Network
from seginfer.export.parity.dense import decide

Image = NDArray[np.uint8]
Size = tuple[int, int]

CHANNELS = {"semantic": 3, "binary": 1, "multilabel": 2}
# What the unpadded network drops at each side, and a margin with which the padded one's tiles are exact.
DROPPED = {1: 4, 2: 5, 4: 7}
CONTEXT = {1: 5, 2: 7, 4: 13}
POOLED = {1: 2, 2: 2, 4: 4}


class Lattice(nn.Module):
    """Three convolutions and a pooling of small whole numbers: every sum is exact, in whatever order it is formed."""

    def __init__(self, channels: int, stride: int, is_padded: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(stride)
        sizes = [(3, 4), (4, 4), (4, channels)]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=int(is_padded), bias=False) for a, b in sizes)
        for part in self.convolutions:
            shape = part.get_parameter("weight").shape
            part.weight = nn.Parameter(torch.randint(-1, 2, shape, generator=generator).float())
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.convolutions[0](x), 2)
        x = torch.relu(self.convolutions[1](x))
        if self.stride == 1:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.stride == 4:
            x = F.max_pool2d(x, 2)
        return self.convolutions[2](x) / 2**12


class Case(NamedTuple):
    spec: ModelSpec
    network: Lattice
    images: list[Image]


@st.composite
def cases(draw: st.DrawFn, strides: tuple[int, ...] = (1, 2, 4)) -> Case:
    """Draw a network, tiles that fit it as tightly as they may, and one or two images of any size."""
    task, stride, is_padded = (
        draw(st.sampled_from(sorted(CHANNELS))),
        draw(st.sampled_from(strides)),
        draw(st.booleans()),
    )
    multiple = POOLED[stride]
    margin = (CONTEXT[stride] if is_padded else DROPPED[stride] + stride - 1) + draw(st.integers(0, 3))
    remainder = 2 if stride == 4 and not is_padded else 0
    sides = [2 * margin + multiple * draw(st.integers(1, 4)) for _ in range(2)]
    height, width = (side + (remainder - side) % multiple for side in sides)
    layouts = st.sampled_from(["NCHW", "NHWC"])
    spec = make_spec(
        task,
        size=(height, width),
        resize="tile",
        multiple_of=multiple,
        tile_margin=margin,
        dtype="uint8",
        scale=1.0,
        layout=draw(layouts),
        output={"stride": stride, "align_corners": draw(st.booleans()), "layout": draw(layouts)},
    )
    lengths = (
        st.integers(1, 9) | st.sampled_from([spec.input.tile_step[0], 2 * spec.input.tile_step[1]]) | st.integers(1, 50)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    images = [
        rng.integers(0, 256, (draw(lengths), draw(lengths), 3), dtype=np.uint8) for _ in range(draw(st.integers(1, 2)))
    ]
    return Case(spec, Lattice(CHANNELS[task], stride, is_padded), images)


def mirrored(image: Image, spec: InputSpec) -> Image:
    """Return the whole frame of an image, by NumPy's own padding."""
    assert spec.size
    widths = []
    for n, side, step in zip(image.shape, spec.size, spec.tile_step, strict=False):
        tiles = -(-n // step)
        widths.append((spec.tile_margin, side + (tiles - 1) * step - n - spec.tile_margin))
    return np.pad(image, (*widths, (0, 0)), mode="reflect")


def one_pass(case: Case, image: Image) -> NDArray[np.float32]:
    """Return the network's output for the whole frame, in the spec's layout."""
    frame = torch.from_numpy(mirrored(image, case.spec.input).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        output = case.network(frame).numpy()
    return output if case.spec.output.layout == "NCHW" else np.ascontiguousarray(output.transpose(0, 2, 3, 1))


def segmenter_of(spec: ModelSpec, network: nn.Module) -> Segmenter:
    return Segmenter(spec, TorchBackend(Network(network, spec), ["logits"]))


@settings(max_examples=100)
@given(cases())
def test_tiles_give_the_masks_and_confidence_of_one_pass(case: Case) -> None:
    results = segmenter_of(case.spec, case.network)(case.images, confidence=True)
    for image, result in zip(case.images, results, strict=True):
        whole = Geometry.place(image.shape[:2], case.spec.input)
        output = one_pass(case, image)
        np.testing.assert_array_equal(result.labels, postprocess(output, [whole], case.spec)[0])
        np.testing.assert_array_equal(result.confidence, confidence(output, [whole], case.spec)[0])
        assert result.geometry == whole
        labels, margin = decide(output, whole, case.spec)
        differing = margin[labels != result.labels]
        assert differing.max(initial=0) <= tolerances.MASK_ROUNDING.limit * np.abs(output).max()


@settings(max_examples=50)
@given(cases(strides=(1,)))
def test_at_stride_1_masks_are_the_cropped_decisions_of_the_network(case: Case) -> None:
    for image in case.images:
        height, width = image.shape[:2]
        output = one_pass(case, image)
        planes = output if case.spec.output.layout == "NCHW" else output.transpose(0, 3, 1, 2)
        first = case.spec.input.tile_margin - (mirrored(image, case.spec.input).shape[0] - planes.shape[2]) // 2
        seen = planes[0, :, first : first + height, first : first + width]
        expected = seen.argmax(0) if case.spec.task == "semantic" else seen > 0
        mask = segmenter_of(case.spec, case.network)(image).labels
        np.testing.assert_array_equal(mask, expected[0] if case.spec.task == "binary" else expected)


@settings(max_examples=100)
@given(cases())
def test_the_tiles_of_an_image_answer_for_each_pixel_once(case: Case) -> None:
    for image in case.images:
        count = np.zeros(image.shape[:2], int)
        for tile in Geometry.place(image.shape[:2], case.spec.input).tiles(case.spec.input):
            assert tile.input_hw == case.spec.input.size
            count[tile.visible.slices] += 1
        assert (count == 1).all()


@settings(max_examples=100)
@given(cases())
def test_tiles_show_the_image_as_numpy_reflects_it(case: Case) -> None:
    spec = case.spec.input
    batch, geometries = preprocess(case.images, case.spec)
    assert len(batch) == len(geometries)
    tiles = iter(batch if spec.layout == "NHWC" else batch.transpose(0, 2, 3, 1))
    for image in case.images:
        assert spec.size is not None
        frame, (height, width) = mirrored(image, spec), spec.size
        for top in range(0, image.shape[0], spec.tile_step[0]):
            for left in range(0, image.shape[1], spec.tile_step[1]):
                np.testing.assert_array_equal(next(tiles), frame[top : top + height, left : left + width])
    assert next(tiles, None) is None


@pytest.mark.parametrize(("side", "margin", "step"), [(572, 92, 384), (512, 96, 320), (256, 0, 256), (33, 0, 32)])
def test_tiles_are_apart_by_what_the_poolings_divide(side: int, margin: int, step: int) -> None:
    spec = InputSpec(size=(side, 2 * side), resize="tile", multiple_of=16, tile_margin=margin)
    assert spec.tile_step[0] == step
    assert spec.tile_step[1] == (2 * side - 2 * margin) // 16 * 16


def test_other_policies_have_one_tile_and_it_is_the_whole() -> None:
    spec = InputSpec(size=(24, 32), resize="letterbox")
    geometry = Geometry.place((50, 60), spec)
    assert geometry.tiles(spec) == [geometry]
    assert geometry.tile is None


PAGE = make_spec(size=(512, 512), resize="tile", multiple_of=16, tile_margin=96, dtype="uint8", scale=1.0)


def test_a_page_is_segmented_a_few_tiles_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = np.random.default_rng(0).integers(0, 256, (5000, 3000, 3), dtype=np.uint8)
    sizes = []
    with Segmenter.open(save_model(tmp_path / "m.onnx", PAGE)) as segmenter:
        infer = segmenter.backend.infer

        def counting(batch: Any, out: Any = None) -> Any:
            sizes.append(len(batch))
            return infer(batch, out)

        monkeypatch.setattr(segmenter.backend, "infer", counting)
        result = segmenter(page)
    np.testing.assert_array_equal(result.mask, page.argmax(2))
    assert sum(sizes) == 16 * 10
    assert max(sizes) == result.timings.batch_size == 4


TILES = make_spec(resize="tile", tile_margin=5, multiple_of=2)
PICTURES = [
    np.random.default_rng(i).integers(0, 256, (*hw, 3), dtype=np.uint8) for i, hw in enumerate([(50, 61), (3, 90)])
]


def test_one_batch_may_hold_tiles_of_several_images(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", TILES, batch=3)
    with Segmenter.open(path) as segmenter:
        tiles = [len(Geometry.place(image.shape[:2], TILES.input).tiles(TILES.input)) for image in PICTURES]
        assert tiles == [12, 5]
        together = segmenter([*PICTURES, PICTURES[0]])
        for image, result in zip([*PICTURES, PICTURES[0]], together, strict=True):
            np.testing.assert_array_equal(result.mask, image.argmax(2))
            np.testing.assert_array_equal(segmenter(image).mask, result.mask)
            assert result.timings.batch_size == 3


def test_the_time_of_an_image_is_that_of_all_its_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Segmenter.open(save_model(tmp_path / "m.onnx", TILES)) as segmenter:
        clock = iter(range(1000))
        monkeypatch.setattr("seginfer._pipelines.host.time.perf_counter", lambda: next(clock))
        timings = segmenter(PICTURES[0]).timings
    assert (timings.preprocess_ms, timings.infer_ms, timings.postprocess_ms) == (3e3, 3e3, 3e3)  # 12 tiles, 4 a call


@pytest.mark.parametrize("task", sorted(CHANNELS))
def test_masks_to_fill_are_filled_by_all_tiles(task: str, tmp_path: Path) -> None:
    spec = make_spec(task, resize="tile", tile_margin=5)
    with Segmenter.open(save_model(tmp_path / "m.onnx", spec)) as segmenter:
        expected = [result.labels for result in segmenter(PICTURES)]
        out = [np.full_like(mask, 77) for mask in expected]
        results = segmenter(PICTURES, out=out)
        trace = segmenter.trace(PICTURES[0])
    for result, given_mask, mask in zip(results, out, expected, strict=True):
        assert result.labels is given_mask
        np.testing.assert_array_equal(given_mask, mask)
    tiles = trace.geometry.tiles(spec.input)
    assert len(trace.batch) == len(trace.output) == len(tiles)
    np.testing.assert_array_equal(trace.mask, expected[0])
    np.testing.assert_array_equal(postprocess(trace.output, tiles, spec, out=out[:1])[0], expected[0])
    with pytest.raises(InputError, match="out must hold 1 arrays, one per image, got 2"):
        postprocess(trace.output, tiles, spec, out=out)


def test_labels_of_tiles_are_put_together(tmp_path: Path) -> None:
    spec = make_spec(resize="tile", tile_margin=8, multiple_of=4, output={"kind": "labels", "stride": 4})
    with Segmenter.open(save_model(tmp_path / "m.onnx", spec)) as segmenter:
        mask = segmenter(PICTURES[0]).labels
    frame = mirrored(PICTURES[0], spec.input)
    means = frame.reshape(frame.shape[0] // 4, 4, frame.shape[1] // 4, 4, 3).mean((1, 3))
    expected = means.argmax(2).repeat(4, 0).repeat(4, 1)[8 : 8 + mask.shape[0], 8 : 8 + mask.shape[1]]
    np.testing.assert_array_equal(mask, expected)


def test_tiles_that_are_missing_are_refused() -> None:
    batch, geometries = preprocess(PICTURES, TILES)
    for kept in ([*range(11)], [*range(1, 17)], [0, *range(17)], [*range(16)]):
        part = [geometries[i] for i in kept]
        with pytest.raises(InputError, match="expected all tiles of an image"):
            postprocess(batch[kept], part, TILES)


@pytest.mark.parametrize(
    ("margin", "stride", "output_hw", "message"),
    [
        (5, 1, (24, 31), "not the centre of its input: correct outputs"),
        (5, 1, (26, 32), "not the centre of its input: correct outputs"),
        (5, 1, (12, 20), "tile_margin must be at least 6 .* got 5"),
        (0, 2, (12, 16), "tile_margin must be at least 1 .* got 0"),
    ],
)
def test_an_output_that_contradicts_the_margin_is_refused(
    margin: int, stride: int, output_hw: Size, message: str
) -> None:
    spec = make_spec(resize="tile", tile_margin=margin, multiple_of=2, output={"stride": stride})
    geometries = Geometry.place((8, 8), spec.input).tiles(spec.input)
    output = np.zeros((len(geometries), 3, *output_hw), np.float32)
    for stage in (postprocess, confidence):
        with pytest.raises(InputError, match=message):
            stage(output, geometries, spec)


def test_a_file_whose_output_contradicts_the_margin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="tile_margin must be at least 3"):
        save_model(tmp_path / "m.onnx", make_spec(resize="tile", multiple_of=4, output={"stride": 4}))
