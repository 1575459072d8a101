"""Ring 2: the compiled overlay writes the bytes of the reference, for every image format and mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import THREADS, YUV_FORMATS, assert_native_equals_reference, formats, image_of, needs_core, sides
from test_segmentation import result_of

from seginfer import ClassSpec, Geometry, Segmentation, Timings
from seginfer._inputs.formats import image_size, pixels_of

pytestmark = needs_core


@settings(max_examples=200)
@given(data=st.data())
def test_overlays_of_every_format_and_mask(data: st.DataObject) -> None:
    draw = data.draw
    color = draw(formats())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = image_of(color, draw(sides(60)), draw(sides(200)), rng, draw(st.integers(0, 5)))
    height, width = image_size(image, color)
    count = draw(st.sampled_from([1, 2, 5, 254, 300]))
    dtype: Any = draw(st.sampled_from([np.uint8, np.uint16]))
    cell = draw(st.sampled_from([1, 3, 40]))  # runs of one class, short and long
    small = rng.integers(0, min(count + 3, np.iinfo(dtype).max), (-(-height // cell), -(-width // cell)), dtype=dtype)
    mask = small.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    colors = tuple(map(tuple, rng.integers(0, 256, (count, 3)).tolist()))
    classes = ClassSpec(tuple(map(str, range(count))), ((0, 0, 0), *colors[1:]))
    result = Segmentation(mask, classes, "semantic", _geometry(height, width), Timings(0, 0, 0), color)
    alpha = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    assert_native_equals_reference(
        lambda **_: [result.overlay(image, alpha=alpha), result.colorize()], draw(st.sampled_from(THREADS))
    )


def _geometry(height: int, width: int) -> Geometry:
    return Geometry((height, width), (height, width), (height, width), (0, 0))


def test_overlapping_classes_of_a_multilabel_mask(rng: np.random.Generator) -> None:
    mask = rng.integers(0, 2, (4, 30, 41), dtype=np.uint8)
    result = Segmentation(mask, ClassSpec(("a", "b", "c", "d")), "multilabel", _geometry(30, 41), Timings(0, 0, 0))
    image = image_of("rgb", 30, 41, rng)
    assert_native_equals_reference(lambda **_: [result.overlay(image), result.colorize()], 2)


@pytest.mark.parametrize("color", ["nv12", "i420", "uyvy", YUV_FORMATS[-1], "rgba", "bgra"], ids=str)
def test_an_overlay_on_a_camera_image_is_one_on_its_pixels(color: Any, rng: np.random.Generator) -> None:
    image = image_of(color, 30, 40, rng)
    mask = rng.integers(0, 4, (30, 40), dtype=np.uint8)
    pixels, order = pixels_of(image, color)
    expected = result_of(mask, color=order).overlay(np.ascontiguousarray(pixels))
    np.testing.assert_array_equal(result_of(mask, color=color).overlay(image), expected)
