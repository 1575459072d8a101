"""Ring 1: masks against torch: crop to the content, interpolate, and only then decide."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import tolerances
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_spec
from numpy.typing import NDArray

from seginfer import ClassSpec, Geometry, InputSpec, ModelSpec, OutputSpec, confidence, postprocess

Size = tuple[int, int]
Logits = NDArray[np.float32]
IMAGE = st.tuples(st.integers(1, 120), st.integers(1, 120))
CELLS = st.tuples(st.integers(1, 40), st.integers(1, 40))
SEED = st.integers(0, 2**32)


def spec_of(task: Any, channels: int, input_hw: Size, resize: Any = "stretch", **output: Any) -> ModelSpec:
    names = tuple(f"class {i}" for i in range(2 if task == "binary" else channels))
    ignore = 255 if len(names) < 256 else 65535
    return ModelSpec(
        task, InputSpec(size=input_hw, resize=resize), ClassSpec(names, ignore_index=ignore), (OutputSpec(**output),)
    )


def restored(logits: Logits, geometry: Geometry, *, stride: int = 1, align_corners: bool = False) -> torch.Tensor:
    """Crop (C, h, w) to the content and interpolate to the image with torch: (C, H, W)."""
    top, left, height, width = (n // stride for n in geometry.content)
    assert tuple(n * stride for n in (top, left, height, width)) == tuple(geometry.content)
    content = torch.from_numpy(logits)[None, :, top : top + height, left : left + width]
    return F.interpolate(content, geometry.image_hw, mode="bilinear", align_corners=align_corners)[0]


def assert_same_classes(mask: NDArray[Any], values: torch.Tensor) -> float:
    """Compare every pixel that has a margin with torch's class; return the share of pixels that have none."""
    assert mask.shape == values.shape[1:]
    best = values.topk(2, 0).values
    decisive = (best[0] - best[1] > tolerances.MARGIN.limit).numpy()
    np.testing.assert_array_equal(mask[decisive], values.argmax(0).numpy()[decisive])
    return float((~decisive).mean())


@settings(max_examples=150)
@given(IMAGE, CELLS, st.sampled_from(["stretch", "letterbox", "pad"]), st.integers(2, 6), st.booleans(), SEED)
def test_masks_are_those_of_torch_at_stride_1(
    image_hw: Size, input_hw: Size, resize: str, channels: int, align_corners: bool, seed: int
) -> None:
    if resize == "pad":
        image_hw = min(image_hw[0], input_hw[0]), min(image_hw[1], input_hw[1])
    spec = spec_of("semantic", channels, input_hw, resize, align_corners=align_corners)
    geometry = Geometry.place(image_hw, spec.input)
    logits = np.random.default_rng(seed).normal(size=(1, channels, *input_hw)).astype(np.float32)
    (mask,) = postprocess(logits, [geometry], spec)
    assert mask.dtype == np.uint8
    assert_same_classes(mask, restored(logits[0], geometry, align_corners=align_corners))


@settings(max_examples=100)
@given(IMAGE, CELLS, st.sampled_from([2, 4, 8]), st.booleans(), SEED)
def test_masks_are_those_of_torch_at_larger_strides(
    image_hw: Size, cells: Size, stride: int, align_corners: bool, seed: int
) -> None:
    spec = spec_of("semantic", 4, (cells[0] * stride, cells[1] * stride), stride=stride, align_corners=align_corners)
    geometry = Geometry.place(image_hw, spec.input)
    logits = np.random.default_rng(seed).normal(size=(1, 4, *cells)).astype(np.float32)
    (mask,) = postprocess(logits, [geometry], spec)
    assert_same_classes(mask, restored(logits[0], geometry, stride=stride, align_corners=align_corners))


@pytest.mark.parametrize(("image_hw", "stride"), [((45, 80), 2), ((90, 160), 4), ((180, 320), 4), ((320, 160), 8)])
def test_a_letterbox_on_cell_borders_is_cropped_as_torch_crops_it(
    image_hw: Size, stride: int, rng: np.random.Generator
) -> None:
    spec = spec_of("semantic", 5, (128, 128), "letterbox", stride=stride)
    geometry = Geometry.place(image_hw, spec.input)
    assert geometry.content.height != geometry.content.width
    logits = rng.normal(size=(1, 5, 128 // stride, 128 // stride)).astype(np.float32)
    (mask,) = postprocess(logits, [geometry], spec)
    assert_same_classes(mask, restored(logits[0], geometry, stride=stride))


def cell_positions(geometry: Geometry, axis: int, cells: int, align_corners: bool) -> NDArray[np.float64]:
    """Return where the visible pixel centres of one axis fall among the logit cells that show the image, in float64."""
    image, resized, source = geometry.image_hw[axis], geometry.resized_hw[axis], geometry.input_hw[axis]
    offset, first, count = geometry.offset_yx[axis], geometry.visible[axis], geometry.visible[2 + axis]
    pixels = np.arange(first, first + count)
    if align_corners:
        per_input = Fraction(cells - 1, max(1, source - 1))
        position = (pixels * (resized - 1) / max(1, image - 1) + offset) * float(per_input)
        low, high = math.floor(offset * per_input), math.ceil((offset + resized - 1) * per_input)
    else:
        position = ((pixels + 0.5) * resized / image + offset) * cells / source - 0.5
        low, high = offset * cells // source, -(-(offset + resized) * cells // source) - 1
    return position.clip(max(0, low), min(cells - 1, high))


@settings(max_examples=300)
@given(IMAGE, CELLS, st.sampled_from(["letterbox", "center-crop"]), st.sampled_from([1, 2, 3, 8]), st.booleans())
def test_a_ramp_of_logits_is_read_at_the_exact_positions(
    image_hw: Size, cells: Size, resize: str, stride: int, align_corners: bool
) -> None:
    """Wherever content and cell borders fall: a ramp is interpolated to its position, whatever the position is."""
    spec = spec_of(
        "semantic", 1, (cells[0] * stride, cells[1] * stride), resize,
        stride=stride, align_corners=align_corners, kind="probabilities",
    )  # fmt: skip
    geometry = Geometry.place(image_hw, spec.input)
    for axis in (0, 1):
        ramp = np.indices(cells)[axis].astype(np.float32)[None, None]
        (values,) = confidence(ramp, [geometry], spec)
        seen = values[geometry.visible.slices]
        expected = cell_positions(geometry, axis, cells[axis], align_corners)
        expected = expected[:, None] if axis == 0 else expected[None, :]
        span = max(cells[axis], geometry.resized_hw[axis] / stride)
        assert np.abs(seen - expected).max(initial=0) <= tolerances.POSITION.limit * span


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("stride", [1, 4])
def test_hardly_any_pixel_of_a_frame_is_a_near_tie(stride: int, align_corners: bool, rng: np.random.Generator) -> None:
    spec = spec_of("semantic", 19, (256, 320), stride=stride, align_corners=align_corners)
    geometry = Geometry.place((480, 640), spec.input)
    logits = rng.normal(size=(1, 19, 256 // stride, 320 // stride)).astype(np.float32)
    (mask,) = postprocess(logits, [geometry], spec)
    values = restored(logits[0], geometry, stride=stride, align_corners=align_corners)
    assert assert_same_classes(mask, values) <= tolerances.NEAR_TIES.limit


def test_interpolating_and_then_deciding_differs_from_the_other_order(rng: np.random.Generator) -> None:
    spec = spec_of("semantic", 3, (20, 20))
    geometry = Geometry.place((80, 80), spec.input)
    logits = rng.normal(size=(1, 3, 20, 20)).astype(np.float32)
    (mask,) = postprocess(logits, [geometry], spec)
    decided_first = logits[0].argmax(0).repeat(4, 0).repeat(4, 1)
    assert 0.5 < (mask == decided_first).mean() < 0.95


@pytest.mark.parametrize(("values", "winner"), [((0, 0, 0), 0), ((-1, 2, 2), 1), ((5, -3, 5), 0), ((0, 1, 2), 2)])
def test_ties_take_the_lowest_class(values: tuple[int, ...], winner: int) -> None:
    spec = spec_of("semantic", 3, (6, 9))
    logits = np.broadcast_to(np.array(values, np.float32)[None, :, None, None], (1, 3, 6, 9))
    (mask,) = postprocess(logits, [Geometry.place((31, 17), spec.input)], spec)
    np.testing.assert_array_equal(mask, winner)


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.93])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize(("task", "channels"), [("binary", 1), ("multilabel", 3)])
def test_thresholds_are_applied_to_interpolated_values(
    task: str, channels: int, kind: str, threshold: float, rng: np.random.Generator
) -> None:
    spec = spec_of(task, channels, (23, 31), "letterbox", kind=kind, threshold=threshold)
    geometry = Geometry.place((61, 50), spec.input)
    output: NDArray[Any] = rng.normal(scale=3, size=(1, channels, 23, 31)).astype(np.float32)
    limit = math.log(threshold / (1 - threshold))
    if kind == "probabilities":
        output, limit = 1 / (1 + np.exp(-output)), threshold
    (mask,) = postprocess(output, [geometry], spec)
    values = restored(output[0], geometry)
    decisive = ((values - limit).abs() > 3 * tolerances.MARGIN.limit).numpy()  # logits of about 3
    expected = (values > limit).numpy()
    assert mask.shape == ((3, 61, 50) if task == "multilabel" else (61, 50))
    assert 0.01 < mask.mean() < 0.99
    np.testing.assert_array_equal(mask.reshape(expected.shape)[decisive], expected[decisive])
    assert decisive.mean() > 1 - tolerances.NEAR_TIES.limit


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_a_value_equal_to_the_threshold_is_not_set(task: str) -> None:
    spec = spec_of(task, 1 if task == "binary" else 2, (4, 4))
    output = np.zeros((1, spec.num_channels, 4, 4), np.float32)
    assert not postprocess(output, [Geometry.place((9, 9), spec.input)], spec)[0].any()


@settings(max_examples=200)
@given(IMAGE, CELLS, SEED)
def test_labels_are_those_of_torch_nearest_exact(image_hw: Size, cells: Size, seed: int) -> None:
    spec = spec_of("semantic", 9, cells, kind="labels")
    labels = np.random.default_rng(seed).integers(0, 9, (1, *cells))
    (mask,) = postprocess(labels, [Geometry.place(image_hw, spec.input)], spec)
    expected = F.interpolate(torch.from_numpy(labels)[None].double(), image_hw, mode="nearest-exact")[0, 0].numpy()
    # On the very border of two cells the float32 position of torch may fall on either side; ours takes the second.
    rows, cols = (((2 * np.arange(n) + 1) * m) % (2 * n) != 0 for n, m in zip(image_hw, cells, strict=True))
    np.testing.assert_array_equal(mask[np.ix_(rows, cols)], expected[np.ix_(rows, cols)])


@pytest.mark.parametrize("resize", ["letterbox", "pad"])
def test_labels_of_padding_never_reach_the_mask(resize: str) -> None:
    spec = spec_of("semantic", 2, (40, 40), resize, kind="labels")
    geometry = Geometry.place((17, 31), spec.input)
    labels = np.ones((1, 40, 40), np.int64)
    labels[0][geometry.content.slices] = 0
    for shape in ((1, 40, 40), (1, 1, 40, 40)):
        assert not postprocess(labels.reshape(shape), [geometry], spec)[0].any()


@pytest.mark.parametrize("ignore_index", [255, 7])
@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_pixels_outside_a_center_crop_get_the_ignore_index(kind: str, ignore_index: int) -> None:
    spec = make_spec(size=(16, 16), resize="center-crop", ignore_index=ignore_index, output={"kind": kind})
    geometry = Geometry.place((32, 64), spec.input)
    labels = np.full((1, 16, 16), 2)
    output = labels if kind == "labels" else np.eye(3, dtype=np.float32)[labels].transpose(0, 3, 1, 2)
    (mask,) = postprocess(output, [geometry], spec)
    assert geometry.visible == (0, 16, 32, 32)
    assert (mask[:, 16:48] == 2).all()
    assert (mask[:, :16] == ignore_index).all()
    assert (mask[:, 48:] == ignore_index).all()


def test_pixels_outside_a_center_crop_are_not_set_in_any_plane_of_a_multilabel_mask() -> None:
    spec = make_spec("multilabel", size=(16, 16), resize="center-crop")
    (mask,) = postprocess(np.ones((1, 2, 16, 16), np.float32), [Geometry.place((32, 64), spec.input)], spec)
    assert mask[:, :, 16:48].all()
    assert mask.sum() == 2 * 32 * 32


def test_an_image_without_a_visible_pixel_is_ignored_altogether() -> None:
    spec = make_spec(size=(5, 3), resize="center-crop")
    geometry = Geometry.place((1, 2), spec.input)
    (mask,) = postprocess(np.ones((1, 3, 5, 3), np.float32), [geometry], spec)
    np.testing.assert_array_equal(mask, [[255, 255]])
