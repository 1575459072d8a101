"""Ring 1: preprocess() against a pipeline of the training libraries themselves, for every policy and resampling."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import pytest
import tolerances
import torch
import torch.nn.functional as F
from models import make_spec
from numpy.typing import NDArray
from PIL import Image

from seginfer import InputError, ModelSpec, preprocess

Size = tuple[int, int]
SIZE = (36, 52)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICIES = ["stretch", "letterbox", "pad", "center-crop"]
RESAMPLINGS = ["opencv", "pillow", "torch", "torch-antialias", "nearest"]
IMAGES = {"larger": (90, 101), "smaller": (17, 31), "tall": (71, 20), "the same": SIZE}

# How far the resize alone may be off, in levels of 0..255.
RESIZE_LIMITS = {
    "opencv": 0 if hasattr(cv2, "ipp") else tolerances.OPENCV_WITH_IPP.limit,
    "pillow": 0,
    "nearest": 0,
    "torch": 255 * tolerances.TORCH_RESIZE.limit,
    "torch-antialias": 255 * tolerances.TORCH_ANTIALIAS.limit,
}


@pytest.fixture(autouse=True)
def _without_ipp() -> Any:
    if not hasattr(cv2, "ipp"):
        yield
        return
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    yield
    cv2.ipp.setUseIPP(before)


def resized(image: NDArray[np.uint8], size: Size, resampling: str) -> NDArray[Any]:
    """Resize (h, w, c) with the library that `resampling` names."""
    if resampling == "opencv":
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, -1)
    if resampling == "pillow":  # an axis at a time: recent Pillow chooses the order of its passes by itself
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        wide = picture.resize((size[1], picture.height), Image.Resampling.BILINEAR)
        return np.asarray(wide.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, -1)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    if resampling == "nearest":
        tensor = F.interpolate(tensor, size, mode="nearest")
    else:
        tensor = F.interpolate(tensor, size, mode="bilinear", antialias=resampling == "torch-antialias")
    return tensor[0].permute(1, 2, 0).numpy()


def placed(image: NDArray[np.uint8], spec: ModelSpec) -> NDArray[Any]:
    """Resize and place by the textbook formula of each policy: (h, w, c), values 0..255."""
    assert spec.input.size is not None
    (h, w), (in_h, in_w), policy = image.shape[:2], spec.input.size, spec.input.resize
    if policy == "stretch":
        return resized(image, (in_h, in_w), spec.input.resampling)
    if policy == "center-crop":
        scale = max(in_h / h, in_w / w)
        big = resized(image, (max(in_h, int(h * scale)), max(in_w, int(w * scale))), spec.input.resampling)
        top, left = round((big.shape[0] - in_h) / 2), round((big.shape[1] - in_w) / 2)
        return big[top : top + in_h, left : left + in_w]
    scale = 1.0 if policy == "pad" else min(in_h / h, in_w / w)
    small = resized(image, (int(h * scale + 0.5), int(w * scale + 0.5)), spec.input.resampling)
    canvas = np.empty((in_h, in_w, image.shape[2]), small.dtype)
    canvas[:] = spec.input.pad_value
    top, left = ((in_h - small.shape[0]) // 2, (in_w - small.shape[1]) // 2)
    if spec.input.anchor == "top-left":
        top = left = 0
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def normalized(pixels: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Return (C, h, w) as torchvision's ToTensor and Normalize make it."""
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) * spec.input.scale
    mean, std = (torch.tensor(spec.input.per_channel(v)).view(-1, 1, 1) for v in (spec.input.mean, spec.input.std))
    return ((tensor - mean) / std).numpy()


def assert_close(ours: NDArray[Any], expected: NDArray[Any], *, limit: float) -> None:
    assert ours.shape == expected.shape
    rounding = tolerances.NORMALIZED.limit * float(np.abs(expected).max())
    assert float(np.abs(ours.astype(np.float64) - expected).max()) <= limit + rounding


@pytest.mark.parametrize("image_hw", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_and_resampling_gives_the_batch_of_the_training_libraries(
    policy: str, resampling: str, image_hw: Size, rng: np.random.Generator
) -> None:
    spec = make_spec(size=SIZE, resize=policy, resampling=resampling, mean=MEAN, std=STD, pad_value=(123.0, 5.0, 200.0))
    image = rng.integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    if policy == "pad":
        image = np.ascontiguousarray(image[: SIZE[0], : SIZE[1]])
    batch, (geometry,) = preprocess([image], spec)
    assert batch.dtype == np.float32
    assert geometry.image_hw == image.shape[:2]
    limit = RESIZE_LIMITS[resampling] / 255 / min(STD)
    assert_close(batch[0], normalized(placed(image, spec), spec), limit=limit)


@pytest.mark.parametrize("policy", ["letterbox", "pad"])
def test_the_top_left_anchor_pads_only_below_and_to_the_right(policy: str, rng: np.random.Generator) -> None:
    spec = make_spec(size=SIZE, resize=policy, anchor="top-left", pad_value=(9.0,), mean=(0.5,), std=(0.25,))
    image = rng.integers(0, 256, (30, 19, 3), dtype=np.uint8)
    batch, _ = preprocess([image], spec)
    assert_close(batch[0], normalized(placed(image, spec), spec), limit=0)


@pytest.mark.parametrize("image_hw", [(90, 101), (7, 30)])
def test_a_shrunk_image_is_the_same_in_pillow_as_in_one_call_of_it_within_one_level(image_hw: Size) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    batch, _ = preprocess([image], make_spec(size=SIZE, resampling="pillow", dtype="uint8", scale=1.0))
    expected = np.asarray(Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BILINEAR))
    assert_close(batch[0].transpose(1, 2, 0), expected, limit=tolerances.PILLOW_PASS_ORDER.limit)


@pytest.mark.parametrize("network", ["rgb", "bgr"])
def test_bgr_images_are_swapped_for_an_rgb_network_and_the_other_way_round(
    network: Literal["rgb", "bgr"], rng: np.random.Generator
) -> None:
    spec = make_spec(size=SIZE, color=network, mean=MEAN, std=STD)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    other: Literal["rgb", "bgr"] = "bgr" if network == "rgb" else "rgb"
    straight, swapped = preprocess([image], spec, color=network)[0], preprocess([image], spec, color=other)[0]
    assert_close(straight[0], normalized(placed(image, spec), spec), limit=0)
    flipped = image[..., ::-1]
    assert_close(swapped[0], normalized(placed(flipped, spec), spec), limit=0)
    assert not np.array_equal(straight, swapped)
    np.testing.assert_array_equal(preprocess([image], spec)[0], preprocess([image], spec, color="rgb")[0])


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1)])
def test_a_gray_network_takes_images_with_and_without_a_channel_axis(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    spec = make_spec("binary", size=SIZE, color="gray", mean=(0.4,), std=(0.2,), resize="letterbox", pad_value=(70.0,))
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    batch, _ = preprocess([image], spec)
    assert batch.shape == (1, 1, *SIZE)
    assert_close(batch[0], normalized(placed(image.reshape(40, 50, 1), spec), spec), limit=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_channels_last_is_the_same_batch_transposed(policy: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    first, last = (
        preprocess([image], make_spec(size=SIZE, resize=policy, mean=MEAN, std=STD, layout=layout))[0]
        for layout in ("NCHW", "NHWC")
    )
    assert last.shape == (1, *SIZE, 3)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), first)


def test_float16_is_the_float32_batch_rounded(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    spec = make_spec(size=SIZE, resize="letterbox", dtype="float16", mean=MEAN, std=STD, pad_value=(114.0,))
    batch, _ = preprocess([image], spec)
    assert batch.dtype == np.float16
    expected = normalized(placed(image, spec), spec)
    assert_close(batch[0], expected, limit=tolerances.FLOAT16_STEP.limit * float(np.abs(expected).max()))


@pytest.mark.parametrize("resampling", ["opencv", "pillow", "nearest"])
@pytest.mark.parametrize("policy", POLICIES)
def test_uint8_is_the_placed_pixels_themselves(policy: str, resampling: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (33, 41, 3), dtype=np.uint8)
    spec = make_spec(
        size=SIZE, resize=policy, resampling=resampling, dtype="uint8", scale=1.0, pad_value=(1.0, 2.0, 3.0)
    )
    batch, _ = preprocess([image], spec)
    assert batch.dtype == np.uint8
    assert_close(batch[0].transpose(1, 2, 0), placed(image, spec), limit=RESIZE_LIMITS[resampling])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_out_is_filled_completely_and_returned(layout: str, rng: np.random.Generator) -> None:
    spec = make_spec(size=SIZE, resize="letterbox", layout=layout, mean=MEAN, std=STD, pad_value=(114.0,))
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(20, 80), (80, 20)]]
    expected, _ = preprocess(images, spec)
    for out in (
        np.full(expected.shape, np.nan, np.float32),
        np.full((4, *expected.shape[1:]), np.nan, np.float32)[::2],
    ):
        filled, _ = preprocess(images, spec, out=out)
        assert filled is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_strided_views_give_the_batch_of_their_copies(policy: str, resampling: str, rng: np.random.Generator) -> None:
    spec = make_spec(size=SIZE, resize=policy, resampling=resampling)
    wide = rng.integers(0, 256, (70, 100, 4), dtype=np.uint8)
    for view in (wide[4:70:2, 10:90:2, :3], wide.transpose(1, 0, 2)[3:37, 5:40, 1:]):
        assert not view.flags.c_contiguous
        np.testing.assert_array_equal(preprocess([view], spec)[0], preprocess([view.copy()], spec)[0])


def test_every_image_of_a_batch_gets_its_own_place(rng: np.random.Generator) -> None:
    spec = make_spec(size=SIZE, resize="letterbox")
    images = [rng.integers(0, 256, (*hw, 3), dtype=np.uint8) for hw in IMAGES.values()]
    batch, geometries = preprocess(images, spec)
    for image, row, geometry in zip(images, batch, geometries, strict=True):
        alone, (alone_geometry,) = preprocess([image], spec)
        np.testing.assert_array_equal(row, alone[0])
        assert geometry == alone_geometry


def test_a_dynamic_network_takes_one_input_size_per_batch() -> None:
    spec = make_spec(size=None, multiple_of=32, resize="pad")
    images = [np.zeros((h, w, 3), np.uint8) for h, w in [(33, 64), (64, 40), (60, 65)]]
    assert preprocess(images[:2], spec)[0].shape == (2, 3, 64, 64)
    with pytest.raises(InputError, match=r"\(64, 64\), \(64, 96\)"):
        preprocess(images, spec)
