"""Ring 1: YUV images become the RGB of the standards' formula, of OpenCV and of FFmpeg's swscale."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import tolerances
from models import make_spec
from native import YUV_FORMATS, image_of
from numpy.typing import NDArray

from seginfer import InputError, YuvFormat, preprocess
from seginfer._inputs.formats import YuvLayout, pixels_of
from seginfer._reference.yuv import YuvMatrix, YuvRange, coefficients, rgb_from_yuv

MATRICES, RANGES = get_args(YuvMatrix), get_args(YuvRange)
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
OPENCV = ("bt601", "limited")
Array = NDArray[Any]


def yuv_from_rgb(matrix: str, values: str) -> tuple[Array, Array]:
    """Return the standards' encoding of 0..255 as `matrix @ rgb + offset`, in float64."""
    red, blue = WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    u, v = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)), (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    scale = [219 / 255, 224 / 255, 224 / 255] if values == "limited" else [1, 1, 1]
    return np.diag(scale) @ np.stack((luma, u, v)), np.array([16 if values == "limited" else 0, 128, 128])


def test_the_weights_are_those_of_the_standards_own_matrices() -> None:
    """Compare with the numbers that BT.601 and BT.709 print, and with JPEG's decoder."""
    encode, _ = yuv_from_rgb("bt709", "full")
    np.testing.assert_allclose(encode[1], [-0.1146, -0.3854, 0.5], atol=5e-5)
    decode = np.linalg.inv(yuv_from_rgb("bt601", "full")[0])
    np.testing.assert_allclose(decode, [[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], atol=1e-6)


@pytest.mark.parametrize(("matrix", "values"), [*product(MATRICES, RANGES)])
def test_every_chroma_becomes_the_formula(matrix: YuvMatrix, values: YuvRange, rng: np.random.Generator) -> None:
    u, v = np.meshgrid(np.arange(256), np.arange(256))
    luma = rng.integers(0, 256, (12, 256, 256))
    encode, offset = yuv_from_rgb(matrix, values)
    black = np.stack(np.broadcast_arrays(np.maximum(luma, offset[0]), u, v), -1)  # darker than black counts as black
    exact = ((black - offset) @ np.linalg.inv(encode).T).clip(0, 255)
    found = rgb_from_yuv(luma, u[None], v[None], coefficients(matrix, values))
    limit = tolerances.OPENCV_YUV if (matrix, values) == OPENCV else tolerances.YUV
    assert np.abs(found - exact).max() <= limit.limit


@pytest.mark.parametrize("layout", get_args(YuvLayout))
def test_layouts_equal_opencv(layout: YuvLayout, rng: np.random.Generator) -> None:
    conversion = getattr(cv2, f"COLOR_YUV2RGB_{layout.upper()}")
    for _ in range(20):
        height, width = (2 * rng.integers(1, 200, 2)).tolist()
        image = image_of(layout, height, width, rng)
        np.testing.assert_array_equal(pixels_of(image, layout)[0], cv2.cvtColor(image, conversion))
        stated = YuvFormat(layout, "bt601", "limited")
        np.testing.assert_array_equal(pixels_of(image, stated)[0], pixels_of(image, layout)[0])


def test_every_chroma_equals_opencv(rng: np.random.Generator) -> None:
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).astype(np.uint8)
    luma = rng.integers(0, 256, (2, 256 * 256), dtype=np.uint8)
    every = np.concatenate([np.repeat(luma, 2, 1), grid.reshape(1, -1)])
    np.testing.assert_array_equal(pixels_of(every, "nv12")[0], cv2.cvtColor(every, cv2.COLOR_YUV2RGB_NV12))


def test_jpeg_is_bt601_of_full_range(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    y, u, v = np.moveaxis(pixels, -1, 0)
    expected = cv2.cvtColor(np.stack((y, v, u), -1), cv2.COLOR_YCrCb2RGB)
    found = rgb_from_yuv(y, u, v, coefficients("bt601", "full"))
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("matrix", "values"), [*product(MATRICES, RANGES)])
def test_a_frame_equals_that_of_swscale(matrix: YuvMatrix, values: YuvRange, rng: np.random.Generator) -> None:
    av = pytest.importorskip("av", minversion="17")
    scaler, flags = av.video.reformatter, av.video.reformatter.Interpolation
    colors = rng.integers(0, 256, (6, 8, 3))
    encode, offset = yuv_from_rgb(matrix, values)
    blocks = np.rint(colors @ encode.T + offset).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    height, width = blocks.shape[:2]
    luma, u, v = blocks[..., 0], blocks[::2, ::2, 1], blocks[::2, ::2, 2]
    image = np.concatenate([luma, u.reshape(-1, width), v.reshape(-1, width)])
    space = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": "BT2020"}[matrix]
    frame = av.VideoFrame.from_ndarray(image, format="yuv420p").reformat(
        format="rgb24", src_colorspace=scaler.Colorspace[space],
        src_color_range={"limited": 1, "full": 2}[values], dst_color_range=2,
        interpolation=flags.POINT | flags.ACCURATE_RND | flags.FULL_CHR_H_INT,
    )  # fmt: skip
    found = pixels_of(image, YuvFormat("i420", matrix, values))[0]
    inside = np.s_[8:height:16, 8:width:16]  # away from the borders of blocks, which swscale may interpolate
    assert np.abs(frame.to_ndarray().astype(int) - found)[inside].max() <= tolerances.SWSCALE.limit
    assert np.abs(found[inside].astype(int) - colors).max() <= 3  # 8 bits of YUV


def test_another_matrix_or_range_is_another_batch(rng: np.random.Generator) -> None:
    image = image_of("nv12", 24, 32, rng)
    batches = {preprocess([image], make_spec(), color=one)[0].tobytes() for one in YUV_FORMATS[:6]}
    assert len(batches) == 6


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("rgb", "bt601", "full"), "layout must be one of nv12, nv21, i420, yuyv, uyvy, got 'rgb'"),
        (("nv12", "709", "full"), "matrix must be one of bt601, bt709, bt2020, got '709'"),
        (("nv12", "bt709", None), "range must be one of limited, full, got None"),
    ],
)
def test_a_format_states_what_it_may_be(parts: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        YuvFormat(*parts)
    assert str(caught.value) == message
