"""Ring 1: where an image lands in the network input, against torchvision, exact fractions and hand-made numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models import make_spec
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from seginfer import Geometry, InputError, InputSpec, postprocess, preprocess
from seginfer._geometry.geometry import Rect

Size = tuple[int, int]
IMAGE = st.tuples(st.integers(1, 300), st.integers(1, 300))
INPUT = st.tuples(st.integers(1, 120), st.integers(1, 120))
ANCHOR = st.sampled_from(["center", "top-left"])
POLICY = st.sampled_from(["stretch", "letterbox", "pad", "center-crop"])


def place(image_hw: Size, input_hw: Size, resize: Any, anchor: Any = "center") -> Geometry:
    if resize == "pad":
        assume(image_hw[0] <= input_hw[0] and image_hw[1] <= input_hw[1])
    return Geometry.place(image_hw, InputSpec(size=input_hw, resize=resize, anchor=anchor))


@pytest.mark.parametrize(
    ("image_hw", "input_hw", "resized_hw", "offset_yx"),
    [
        ((1080, 1920), (640, 640), (360, 640), (140, 0)),
        ((1080, 1920), (512, 1024), (512, 910), (0, 57)),
        ((480, 640), (512, 512), (384, 512), (64, 0)),
        ((640, 480), (512, 512), (512, 384), (0, 64)),
        ((100, 201), (50, 100), (50, 100), (0, 0)),  # 49.75 rounds up to the whole height
        ((3, 2), (5, 10), (5, 3), (0, 3)),  # 3.33 rounds down; an odd padding of 7 leaves more on the right
        ((1, 1000), (20, 20), (1, 20), (9, 0)),  # never thinner than one pixel
        ((32, 32), (64, 64), (64, 64), (0, 0)),
    ],
)
def test_letterbox_numbers(image_hw: Size, input_hw: Size, resized_hw: Size, offset_yx: Size) -> None:
    geometry = place(image_hw, input_hw, "letterbox")
    assert (geometry.resized_hw, geometry.offset_yx) == (resized_hw, offset_yx)
    assert geometry.content == Rect(*offset_yx, *resized_hw)
    assert place(image_hw, input_hw, "letterbox", "top-left").content == Rect(0, 0, *resized_hw)


@settings(max_examples=300)
@given(IMAGE, INPUT, POLICY, ANCHOR)
def test_the_content_lies_inside_the_input_and_is_not_empty(
    image_hw: Size, input_hw: Size, resize: str, anchor: str
) -> None:
    top, left, height, width = place(image_hw, input_hw, resize, anchor).content
    assert top >= 0
    assert left >= 0
    assert height >= 1
    assert width >= 1
    assert top + height <= input_hw[0]
    assert left + width <= input_hw[1]


@settings(max_examples=300)
@given(IMAGE, INPUT, ANCHOR)
def test_letterbox_keeps_the_aspect_and_touches_two_opposite_borders(
    image_hw: Size, input_hw: Size, anchor: str
) -> None:
    geometry = place(image_hw, input_hw, "letterbox", anchor)
    scale = min(Fraction(input_hw[0], image_hw[0]), Fraction(input_hw[1], image_hw[1]))
    for resized, image in zip(geometry.resized_hw, image_hw, strict=True):
        exact = image * scale
        assert resized == 1 if exact < 1 else abs(resized - exact) <= Fraction(1, 2)
    assert any(resized == full for resized, full in zip(geometry.resized_hw, input_hw, strict=True))
    for offset, resized, full in zip(geometry.offset_yx, geometry.resized_hw, input_hw, strict=True):
        before, after = offset, full - offset - resized
        assert (before == 0) if anchor == "top-left" else (after - before in (0, 1))


@settings(max_examples=200)
@given(IMAGE, INPUT, POLICY, ANCHOR)
def test_visible_are_the_pixels_whose_centre_falls_inside_the_input(
    image_hw: Size, input_hw: Size, resize: str, anchor: str
) -> None:
    geometry = place(image_hw, input_hw, resize, anchor)
    top, left, height, width = geometry.visible
    for axis, (first, count) in enumerate([(top, height), (left, width)]):
        scale = Fraction(geometry.resized_hw[axis], image_hw[axis])
        centres = [(i + Fraction(1, 2)) * scale + geometry.offset_yx[axis] for i in range(image_hw[axis])]
        inside = [i for i, centre in enumerate(centres) if 0 <= centre < input_hw[axis]]
        assert inside == list(range(first, first + count))
    if resize != "center-crop":
        assert geometry.visible == Rect(0, 0, *image_hw)


@settings(max_examples=200)
@given(IMAGE, st.integers(1, 120))
def test_center_crop_is_placed_as_torchvision_places_it(image_hw: Size, side: int) -> None:
    geometry = place(image_hw, (side, side), "center-crop")
    resized = TF.resize(torch.zeros(1, *image_hw, dtype=torch.uint8), [side], InterpolationMode.NEAREST)
    assert geometry.resized_hw == tuple(resized.shape[1:])
    coordinates = torch.stack(torch.meshgrid(*map(torch.arange, geometry.resized_hw), indexing="ij"))
    first_shown = TF.center_crop(coordinates, [side, side])[:, 0, 0].tolist()
    assert tuple(first_shown) == tuple(-offset for offset in geometry.offset_yx)


@settings(max_examples=100)
@given(IMAGE, st.integers(1, 60), st.integers(0, 2**32))
def test_center_crop_shows_the_pixels_that_torchvision_shows(image_hw: Size, side: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    spec = make_spec(size=(side, side), resize="center-crop", resampling="nearest", dtype="uint8", scale=1.0)
    batch, _ = preprocess([image], spec)
    resized = TF.resize(torch.from_numpy(image).permute(2, 0, 1), [side], InterpolationMode.NEAREST)
    np.testing.assert_array_equal(batch[0], TF.center_crop(resized, [side, side]).numpy())


@settings(max_examples=100)
@given(IMAGE, st.integers(1, 64), st.sampled_from(["stretch", "pad"]), ANCHOR)
def test_a_dynamic_input_is_the_next_multiple_of_the_image(
    image_hw: Size, multiple: int, resize: Any, anchor: Any
) -> None:
    geometry = Geometry.place(image_hw, InputSpec(multiple_of=multiple, resize=resize, anchor=anchor))
    for full, image in zip(geometry.input_hw, image_hw, strict=True):
        assert full % multiple == 0
        assert 0 <= full - image < multiple
    assert geometry.resized_hw == (image_hw if resize == "pad" else geometry.input_hw)


@pytest.mark.parametrize("image_hw", [(33, 10), (10, 33), (33, 33)])
def test_pad_refuses_an_image_larger_than_a_fixed_input(image_hw: Size) -> None:
    with pytest.raises(InputError, match=r"up to \(32, 32\).*letterbox"):
        Geometry.place(image_hw, InputSpec(size=(32, 32), resize="pad"))


@settings(max_examples=300)
@given(
    IMAGE, INPUT, st.sampled_from(["stretch", "letterbox", "pad"]), ANCHOR, st.booleans(), st.sampled_from([1, 2, 4])
)
def test_what_the_network_says_about_padding_never_reaches_the_mask(
    image_hw: Size, input_hw: Size, resize: str, anchor: str, align_corners: bool, stride: int
) -> None:
    input_hw = (input_hw[0] * stride, input_hw[1] * stride)
    geometry = place(image_hw, input_hw, resize, anchor)
    spec = make_spec(size=input_hw, resize=resize, output={"align_corners": align_corners, "stride": stride})
    inside = np.zeros(input_hw, bool)
    inside[geometry.content.slices] = True
    # A logit cell belongs to the content as soon as it shows one row and column of it.
    cells = inside.reshape(input_hw[0] // stride, stride, input_hw[1] // stride, stride).any((1, 3))
    if stride > 1 and align_corners:
        assume(cells.all())  # cells are then spread from border to border, and none belongs to one block of pixels
    logits = np.where(cells, 0.0, 1e3)[None, None] * np.array([0, 1, 0], np.float32)[:, None, None]
    (mask,) = postprocess(logits.astype(np.float32), [geometry], spec)
    assert mask.shape == image_hw
    assert not mask.any()


@settings(max_examples=200)
@given(IMAGE, INPUT, st.sampled_from(["letterbox", "pad"]), ANCHOR, st.booleans(), st.integers(0, 2**32))
def test_the_content_comes_back_at_the_images_own_pixels(
    image_hw: Size, input_hw: Size, resize: str, anchor: str, align_corners: bool, seed: int
) -> None:
    """At stride 1, unresized pixels return one to one, and a shrunk image gets the content's corners in its own."""
    geometry = place(image_hw, input_hw, resize, anchor)
    assume(all(resized <= image for resized, image in zip(geometry.resized_hw, image_hw, strict=True)))
    spec = make_spec(size=input_hw, resize=resize, output={"align_corners": align_corners})
    labels = np.random.default_rng(seed).integers(0, 3, input_hw)
    (mask,) = postprocess(np.eye(3, dtype=np.float32)[labels].transpose(2, 0, 1)[None], [geometry], spec)
    content = labels[geometry.content.slices]
    if geometry.resized_hw == image_hw:
        np.testing.assert_array_equal(mask, content)
    np.testing.assert_array_equal(
        mask[:: max(1, image_hw[0] - 1), :: max(1, image_hw[1] - 1)], corners(content, image_hw)
    )


def corners(content: np.ndarray, image_hw: Size) -> np.ndarray:
    rows = [0, -1] if image_hw[0] > 1 else [0]
    cols = [0, -1] if image_hw[1] > 1 else [0]
    return content[np.ix_(rows, cols)]
