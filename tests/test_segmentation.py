"""Ring 4: the forms of a result: areas, colours, run lengths, polygons and files."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from picture_files import read_picture
from pycocotools import mask as coco  # type: ignore[import-untyped]

from seginfer import ClassSpec, Geometry, InputError, OutputWriteError, Segmentation, Timings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools

COLORS = ((0, 0, 0), (250, 10, 20), (5, 240, 30), (40, 50, 230))
NAMES = ("background", "red", "green", "blue")


def blocks(height: int, width: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Return a mask of four classes in random blocks of `side` pixels: noise at 1, one class where side is large."""
    coarse = np.random.default_rng(seed).integers(0, 4, (-(-height // side), -(-width // side)), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(side, 0).repeat(side, 1)[:height, :width])


MASKS = st.builds(
    blocks, st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 3, 8, 40]), st.integers(0, 2**32)
)


def result_of(mask: NDArray[Any], task: Any = "semantic", **fields: Any) -> Segmentation:
    image_hw = mask.shape[-2:]
    count = {"semantic": 4, "binary": 2, "multilabel": mask.shape[0]}[task]
    classes = ClassSpec(NAMES[:count], COLORS[:count])
    geometry = Geometry(image_hw, image_hw, image_hw, (0, 0))
    return Segmentation(mask, classes, task, geometry, Timings(1.0, 2.0, 3.0), **fields)


def decoded(rle: dict[str, Any]) -> NDArray[np.uint8]:
    mask: NDArray[np.uint8] = coco.decode(coco.frPyObjects(rle, *rle["size"]))
    return mask


@settings(max_examples=150)
@given(MASKS)
def test_run_lengths_are_read_back_by_pycocotools(mask: NDArray[np.uint8]) -> None:
    rle = result_of(mask).rle()
    assert set(rle) == {NAMES[i] for i in np.unique(mask)}
    for name, encoded in rle.items():
        np.testing.assert_array_equal(decoded(encoded), mask == NAMES.index(name))


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (1, 9)])
def test_run_lengths_of_a_full_plane_start_with_no_zeros(shape: tuple[int, int]) -> None:
    rle = result_of(np.ones(shape, np.uint8), "binary").rle()
    assert rle == {"red": {"size": list(shape), "counts": [0, shape[0] * shape[1]]}}
    assert decoded(rle["red"]).all()


def test_an_empty_binary_mask_has_neither_run_lengths_nor_polygons() -> None:
    result = result_of(np.zeros((5, 6), np.uint8), "binary")
    assert result.rle() == {}
    assert result.polygons() == []


@settings(max_examples=150)
@given(MASKS)
def test_polygons_fill_back_to_the_mask(mask: NDArray[np.uint8]) -> None:
    filled = np.zeros((4, *mask.shape), np.uint8)
    for polygon in result_of(mask).polygons():
        assert polygon.class_name == NAMES[polygon.class_id]
        cv2.fillPoly(filled[polygon.class_id], [polygon.exterior, *polygon.holes], 1)
    np.testing.assert_array_equal(filled, [mask == i for i in range(4)])


def test_a_ring_is_one_polygon_with_one_hole() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:18, 3:27] = 2
    mask[6:12, 8:20] = 0
    mask[8:10, 10:12] = 2
    ring, island = sorted((p for p in result_of(mask).polygons() if p.class_id == 2), key=lambda p: -len(p.holes))
    assert (len(ring.holes), len(island.holes)) == (1, 0)
    assert {tuple(point) for point in ring.exterior.tolist()} == {(3, 2), (26, 2), (26, 17), (3, 17)}
    assert {tuple(point) for point in island.exterior.tolist()} == {(10, 8), (11, 8), (11, 9), (10, 9)}
    refilled = cv2.fillPoly(np.zeros_like(mask), [ring.exterior, *ring.holes, island.exterior], 2)
    np.testing.assert_array_equal(refilled, mask)


@settings(max_examples=50)
@given(MASKS)
def test_class_areas_are_shares_that_sum_to_one(mask: NDArray[np.uint8]) -> None:
    areas = result_of(mask).class_areas()
    assert list(areas) == list(NAMES)
    assert sum(areas.values()) == pytest.approx(1)
    for i, name in enumerate(NAMES):
        assert areas[name] == pytest.approx((mask == i).mean())


def test_ignored_pixels_belong_to_no_class() -> None:
    mask = np.array([[255, 1], [255, 3]], np.uint8)
    result = result_of(mask)
    assert result.class_areas() == {"background": 0, "red": 0.25, "green": 0, "blue": 0.25}
    assert set(result.rle()) == {"red", "blue"}
    assert not result.colorize()[mask == 255].any()


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_colours_come_in_the_channel_order_of_the_image(color: str) -> None:
    mask = np.arange(4, dtype=np.uint8).reshape(2, 2)
    expected = np.array(COLORS, np.uint8).reshape(2, 2, 3)
    colored = result_of(mask, color=color).colorize()
    assert colored.dtype == np.uint8
    np.testing.assert_array_equal(colored, expected[..., ::-1] if color == "bgr" else expected)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_an_overlay_blends_colours_and_leaves_the_background(
    color: str, alpha: float, rng: np.random.Generator
) -> None:
    mask = rng.integers(0, 4, (30, 40), dtype=np.uint8)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    before = image.copy()
    result = result_of(mask, color=color)
    blended = result.overlay(image, alpha=alpha)
    exact = (1 - alpha) * image + alpha * result.colorize()
    assert np.abs(blended - np.where(mask[..., None] == 0, image, exact)).max() <= 0.5
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1)])
def test_an_overlay_on_a_gray_image_has_colours(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    blended = result_of(np.full((30, 40), 1, np.uint8), color="gray").overlay(image, alpha=0.5)
    assert np.abs(blended - (image.reshape(30, 40, 1) / 2 + np.array(COLORS[1]) / 2)).max() <= 0.5


@pytest.mark.parametrize(
    "image",
    [np.zeros((30, 41, 3), np.uint8), np.zeros((30, 40, 3)), np.zeros((30, 40, 4), np.uint8), [[0]]],
    ids=["another size", "floats", "four channels", "a list"],
)
def test_an_overlay_on_another_image_is_refused(image: Any) -> None:
    with pytest.raises(InputError, match=r"uint8 image of 30 x 40 .*got"):
        result_of(np.zeros((30, 40), np.uint8)).overlay(image)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_an_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        result_of(np.zeros((3, 4), np.uint8)).overlay(np.zeros((3, 4, 3), np.uint8), alpha=alpha)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".pgm"])
def test_saved_masks_hold_the_ids_exactly(suffix: str, dtype: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    mask = rng.integers(0, np.iinfo(dtype).max + 1, (33, 47)).astype(dtype)
    path = tmp_path / f"mask{suffix}"
    result_of(mask).save(path)
    read = read_picture(path, cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, mask)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "suffix", [".jpg", ".JPG", ".jpeg", ".jpe", ".webp", ".avif", ".gif", ".pbm", ".hdr", ".xyz", ""]
)
def test_a_format_that_would_change_ids_is_refused(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"use \.png"):
        result_of(np.zeros((3, 4), np.uint8)).save(tmp_path / f"mask{suffix}")
    with pytest.raises(InputError, match=r"use \.png"):
        result_of(np.zeros((3, 4), np.uint16)).save(tmp_path / "mask.bmp")
    assert list(tmp_path.iterdir()) == []


def test_saving_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputWriteError, match="create it first"):
        result_of(np.zeros((3, 4), np.uint8)).save(tmp_path / "missing" / "mask.png")


def test_a_multilabel_result_has_overlapping_planes(tmp_path: Path) -> None:
    planes = np.zeros((3, 4, 6), np.uint8)
    planes[0, :, :3] = 1
    planes[1, :, 2:4] = 1
    result = result_of(planes, "multilabel")
    assert result.class_areas() == {"background": 0.5, "red": pytest.approx(1 / 3), "green": 0}
    assert set(result.rle()) == {"background", "red"}
    np.testing.assert_array_equal(decoded(result.rle()["red"]), planes[1])
    assert [p.class_id for p in result.polygons()] == [0, 1]
    assert (result.colorize()[planes[1] == 1] == COLORS[1]).all()
    assert not result.colorize()[:, 4:].any()
    with pytest.raises(InputError, match="several ids per pixel"):
        result.save(tmp_path / "mask.png")


def test_repr_names_the_classes_that_are_there() -> None:
    text = repr(result_of(np.array([[0, 1], [1, 1]], np.uint8)))
    assert text == "Segmentation(mask=uint8 (2, 2), background 25.0%, red 75.0%, 6.0 ms)"


def _sample(task: str) -> Segmentation:
    rng = np.random.default_rng(1)
    shape = (3, 7, 9) if task == "multilabel" else (7, 9)
    return result_of(rng.integers(0, 4 if task == "semantic" else 2, shape, np.uint8), task, _threads=1)


@pytest.mark.parametrize("task", ["semantic", "binary", "multilabel"])
def test_results_can_be_pickled_and_copied(task: str) -> None:
    result = _sample(task)
    result.colorize()  # fills what is cached
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        np.testing.assert_array_equal(other.labels, result.labels)
        np.testing.assert_array_equal(other.colorize(), result.colorize())
        assert other.geometry == result.geometry
        assert other.timings == result.timings


@pytest.mark.parametrize("task", ["semantic", "binary", "multilabel"])
def test_an_array_of_a_result_is_its_mask_of_class_ids(task: str) -> None:
    result = _sample(task)
    assert result.mask.shape == result.geometry.image_hw
    np.testing.assert_array_equal(np.asarray(result), result.mask)
    assert np.asarray(result, np.int64).dtype == np.int64
    if task != "multilabel":
        assert np.asarray(result) is result.mask
        assert np.array(result, copy=True) is not result.mask


def test_where_classes_of_a_multilabel_mask_overlap_the_last_one_counts() -> None:
    result = _sample("multilabel")
    expected = np.full(result.geometry.image_hw, 255)
    for class_id, plane in enumerate(result.labels):
        expected[plane != 0] = class_id
    np.testing.assert_array_equal(result.mask, expected)
