"""Ring 1: the reference's resize arithmetic against OpenCV, Pillow and torch themselves, over drawn sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest
import tolerances
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from seginfer._reference.resize import RESIZE

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
HAS_IPP = hasattr(cv2, "ipp")
EXTENT = st.integers(1, 90)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Pixels, Size]:
    """Draw an image and a size: any two sizes, exactly twice, exactly half, one pixel, or one axis alone."""
    height, width, new_height, new_width = (draw(EXTENT) for _ in range(4))
    sizes = {
        "any": ((height, width), (new_height, new_width)),
        "twice": ((height, width), (2 * height, 2 * width)),
        "half": ((2 * height, 2 * width), (height, width)),
        "from one pixel": ((1, width), (new_height, new_width)),
        "to one pixel": ((height, width), (new_height, 1)),
        "one axis": ((height, width), (height, new_width)),
    }
    image_hw, size = sizes[draw(st.sampled_from(sorted(sizes)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = rng.integers(0, 256, (*image_hw, draw(st.sampled_from([1, 3]))), dtype=np.uint8)
    return (image if draw(st.booleans()) else (image & 1) * np.uint8(255)), size


@contextmanager
def ipp(is_on: bool) -> Iterator[None]:
    before = HAS_IPP and cv2.ipp.useIPP()
    if HAS_IPP:
        cv2.ipp.setUseIPP(is_on)
    try:
        yield
    finally:
        if HAS_IPP:
            cv2.ipp.setUseIPP(before)


def cv2_resize(image: Pixels, size: Size) -> Pixels:
    result = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, -1)
    return result.astype(np.uint8, copy=False)


def pillow_resize(image: Pixels, *sizes: Size) -> Pixels:
    """Resize to each of the sizes in turn; an axis at a time, the order of the two passes is known."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for size in sizes:
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(*sizes[-1], -1)


def torch_resize(image: Pixels, size: Size, **mode: Any) -> NDArray[np.float32]:
    """Resize the image in 0..1 and return (h, w, c)."""
    tensor = torch.from_numpy(image.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None].contiguous()
    return F.interpolate(tensor, size, **mode)[0].permute(1, 2, 0).numpy()


def transposed(image: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(image.transpose(1, 0, 2))


def largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b).max())


@settings(max_examples=400)
@given(cases())
def test_opencv_is_equal_to_cv2_bit_for_bit(case: tuple[Pixels, Size]) -> None:
    image, size = case
    with ipp(False):
        expected = cv2_resize(image, size)
    allowed = 0 if HAS_IPP else tolerances.OPENCV_WITH_IPP.limit  # IPP that cannot be switched off may be in use
    assert largest_difference(RESIZE["opencv"](image, size), expected) <= allowed


@pytest.mark.skipif(not HAS_IPP, reason="this OpenCV has no switch for IPP; the test above covers it")
@settings(max_examples=200)
@given(cases())
def test_opencv_is_within_one_level_of_cv2_with_ipp(case: tuple[Pixels, Size]) -> None:
    image, size = case
    with ipp(True):
        expected = cv2_resize(image, size)
    assert largest_difference(RESIZE["opencv"](image, size), expected) <= tolerances.OPENCV_WITH_IPP.limit


@settings(max_examples=400)
@given(cases())
def test_pillow_is_equal_to_a_horizontal_then_a_vertical_pass_bit_for_bit(case: tuple[Pixels, Size]) -> None:
    image, size = case
    expected = pillow_resize(image, (image.shape[0], size[1]), size)
    np.testing.assert_array_equal(RESIZE["pillow"](image, size), expected)


@settings(max_examples=400)
@given(cases())
def test_pillow_in_one_call_is_equal_or_runs_the_same_passes_in_the_other_order(case: tuple[Pixels, Size]) -> None:
    image, size = case
    ours, theirs = RESIZE["pillow"](image, size), pillow_resize(image, size)
    if size[0] >= image.shape[0]:  # with a height that does not shrink every Pillow goes horizontally first
        np.testing.assert_array_equal(ours, theirs)
    elif not np.array_equal(ours, theirs):
        other_order = transposed(RESIZE["pillow"](transposed(image), size[::-1]))
        np.testing.assert_array_equal(other_order, theirs)
        assert largest_difference(ours, theirs) <= tolerances.PILLOW_PASS_ORDER.limit


@settings(max_examples=400)
@given(cases())
def test_torch_is_equal_to_interpolate_in_float_precision(case: tuple[Pixels, Size]) -> None:
    image, size = case
    expected = torch_resize(image, size, mode="bilinear", align_corners=False)
    assert largest_difference(RESIZE["torch"](image, size) / 255, expected) <= tolerances.TORCH_RESIZE.limit


@settings(max_examples=400)
@given(cases())
def test_torch_antialias_is_equal_to_interpolate_in_float_precision(case: tuple[Pixels, Size]) -> None:
    image, size = case
    mode = {"mode": "bilinear", "align_corners": False, "antialias": True}
    if size[1] == 1 and size[0] != image.shape[0]:
        # torch's own vertical pass is wrong on tensors of width 1; lying on its side, the image goes through the other.
        expected = transposed(torch_resize(transposed(image), size[::-1], **mode))
    else:
        expected = torch_resize(image, size, **mode)
    ours = RESIZE["torch-antialias"](image, size) / 255
    assert largest_difference(ours, expected) <= tolerances.TORCH_ANTIALIAS.limit


@settings(max_examples=400)
@given(cases())
def test_nearest_is_equal_to_torch_nearest_bit_for_bit(case: tuple[Pixels, Size]) -> None:
    image, size = case
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(tensor, size, mode="nearest")[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(RESIZE["nearest"](image, size), expected)


@pytest.mark.parametrize("resampling", sorted(RESIZE))
@pytest.mark.parametrize("level", [0, 1, 127, 255])
@pytest.mark.parametrize("size", [(1, 1), (7, 90), (31, 5), (64, 64)])
def test_a_flat_image_stays_flat(resampling: str, level: int, size: Size) -> None:
    resized = RESIZE[resampling](np.full((23, 41, 3), level, np.uint8), size)
    assert resized.shape == (*size, 3)
    assert largest_difference(resized / 255, np.full_like(resized, level) / 255) <= tolerances.TORCH_ANTIALIAS.limit


@pytest.mark.parametrize("resampling", sorted(RESIZE))
def test_an_image_of_the_right_size_is_not_changed(resampling: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (19, 26, 3), dtype=np.uint8)
    np.testing.assert_array_equal(RESIZE[resampling](image, (19, 26)), image)


def test_the_resamplings_are_told_apart_by_a_photo_sized_shrink(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (90, 75, 3), dtype=np.uint8)
    results = {name: resize(image, (30, 28)).astype(np.float32) for name, resize in RESIZE.items()}
    for name, other in [("opencv", "pillow"), ("torch", "torch-antialias"), ("opencv", "nearest")]:
        assert largest_difference(results[name], results[other]) > 20
