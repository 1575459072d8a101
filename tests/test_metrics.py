"""Metrics against torchmetrics, OpenCV's erosion and SciPy's distances, and their laws."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from refusal import refuses
from scipy.ndimage import distance_transform_edt
from torchmetrics.functional import classification as theirs

from seginfer import InputError, metrics

CLASSES = 4
IGNORED = 255
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Return a mask and labels of blobs, some of them ignored."""
    height, width, block = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    classes = draw(st.integers(1, CLASSES))

    def ids() -> NDArray[np.uint8]:
        cells = random.integers(0, classes, (-(-height // block), -(-width // block)), np.uint8)
        return cells.repeat(block, 0).repeat(block, 1)[:height, :width]

    mask, labels = ids(), ids()
    labels[random.random(labels.shape) < 0.1] = IGNORED
    return mask, labels


@settings(max_examples=60, deadline=None)
@given(st.lists(pairs(), min_size=1, max_size=3))
def test_scores_of_pixels_equal_those_of_torchmetrics(images: list[Pair]) -> None:
    total = reduce(add, (metrics.confusion(mask, labels, CLASSES) for mask, labels in images))
    mask, labels = (torch.from_numpy(np.concatenate([pair[i].ravel() for pair in images])).long() for i in (0, 1))
    kept = labels != IGNORED
    mask, labels = mask[kept], labels[kept]
    options: dict[str, Any] = {"num_classes": CLASSES, "average": "none"}
    occurs = np.isin(np.arange(CLASSES), np.union1d(mask, labels))
    if not len(labels):
        assert np.isnan(total.mean_iou)
        return
    same(total.iou, theirs.multiclass_jaccard_index(mask, labels, **options), occurs)
    same(total.dice, theirs.multiclass_f1_score(mask, labels, **options), occurs)
    same(total.sensitivity, theirs.multiclass_recall(mask, labels, **options), np.isin(np.arange(CLASSES), labels))
    same(total.precision, theirs.multiclass_precision(mask, labels, **options), np.isin(np.arange(CLASSES), mask))
    others = np.array([bool((labels != one).any()) for one in range(CLASSES)])
    same(total.specificity, theirs.multiclass_specificity(mask, labels, **options), others)
    assert total.mean_iou == pytest.approx(float(theirs.multiclass_jaccard_index(mask, labels, CLASSES)), abs=1e-6)
    weighted = theirs.multiclass_jaccard_index(mask, labels, CLASSES, average="weighted")
    assert total.frequency_weighted_iou == pytest.approx(float(weighted), abs=1e-6)
    accuracy = theirs.multiclass_accuracy(mask, labels, CLASSES, average="micro")
    assert total.pixel_accuracy == pytest.approx(float(accuracy), abs=1e-6)


def same(ours: NDArray[np.float64], expected: torch.Tensor, counted: NDArray[np.bool_]) -> None:
    """Compare where a class was counted: elsewhere ours are NaN, and theirs 0."""
    assert np.array_equal(np.isnan(ours), ~counted)
    np.testing.assert_allclose(ours[counted], expected.numpy()[counted], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([0.02, 0.05, 0.2]), st.sampled_from([1, 1.5, 2, 3.7]))
def test_boundaries_equal_erosion_and_distances(pair: Pair, width: float, tolerance: float) -> None:
    mask, labels = pair
    found = metrics.boundaries(mask, labels, CLASSES, width=width, tolerance=tolerance)
    mask = np.where(labels == IGNORED, IGNORED, mask)
    for one in range(CLASSES):
        ours, true = band(mask == one, width), band(labels == one, width)
        assert found.band[one].tolist() == [(ours & true).sum(), ours.sum(), true.sum()]
        lines = [line(mask == one), line(labels == one)]
        counts = [within(lines[0], lines[1], tolerance), lines[0].sum(), within(lines[1], lines[0], tolerance)]
        assert found.line[one].tolist() == [*counts, lines[1].sum()]


def band(region: NDArray[np.bool_], width: float) -> NDArray[np.bool_]:
    """Return the pixels of a region near its boundary, as boundary IoU is defined: by erosions in a frame of zeros."""
    depth = max(1, round(width * float(np.hypot(*region.shape))))
    inner = cv2.erode(np.pad(region, 1).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=depth)
    return np.asarray(region & (inner[1:-1, 1:-1] == 0))


def line(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(region & (cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0))


def within(pixels: NDArray[np.bool_], others: NDArray[np.bool_], tolerance: float) -> int:
    if not others.any():
        return 0
    return int((distance_transform_edt(~others)[pixels] <= tolerance).sum())


def test_scores_of_boundaries() -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 30:50] = 1
    total = metrics.boundaries(labels, labels, 3)
    assert total.iou[:2].tolist() == total.f1[:2].tolist() == [1, 1]
    assert np.isnan([total.iou[2], total.f1[2]]).all()
    moved = metrics.boundaries(np.roll(labels, 2, 1), labels, 3, tolerance=2)
    assert moved.iou[1] < metrics.confusion(np.roll(labels, 2, 1), labels, 3).iou[1]
    assert moved.f1[1] == 1
    assert metrics.boundaries(np.roll(labels, 9, 1), labels, 3, tolerance=2).f1[1] < 1
    assert metrics.boundaries(labels * 0, labels, 3).f1[1] == 0


@settings(max_examples=40, deadline=None)
@given(pairs(), st.integers(1, 20), st.integers(0, 99))
def test_calibration_equals_that_of_torchmetrics(pair: Pair, bins: int, seed: int) -> None:
    mask, labels = pair
    confidence = np.random.default_rng(seed).random(mask.shape, np.float32) * 0.74 + 0.26
    found = metrics.calibration(mask, labels, confidence, CLASSES, bins=bins)
    kept = labels != IGNORED
    if not kept.any():
        assert np.isnan(found.expected_error)
        return
    probabilities = np.broadcast_to((1 - confidence[..., None]) / (CLASSES - 1), (*mask.shape, CLASSES)).copy()
    np.put_along_axis(probabilities, mask[..., None].astype(int), confidence[..., None], -1)
    expected = theirs.multiclass_calibration_error(
        torch.from_numpy(probabilities[kept]), torch.from_numpy(labels[kept]).long(), CLASSES, n_bins=bins, norm="l1"
    )
    assert found.expected_error == pytest.approx(float(expected), abs=1e-5)
    coverage, accuracy = found.selective
    assert coverage[0] == 1
    assert accuracy[0] == pytest.approx((mask == labels)[kept].mean())


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        samples = random.normal(3, 1, (60, 1))
        low, high = metrics.bootstrap(samples, lambda total: float(total[0] / 60), repeats=300, seed=seed)
        covered += low <= 3 <= high
    assert 176 <= covered <= 198  # 95 % of 200, within three standard deviations or what the method loses at 60


def test_flicker_is_a_class_for_one_frame() -> None:
    still = np.zeros((4, 5), np.uint8)
    blip = still.copy()
    blip[1, 2] = 1
    assert metrics.flicker(still, blip, still) == 1 / 20
    assert metrics.flicker(still, blip, blip) == 0


@pytest.mark.parametrize(
    ("mask", "labels", "words"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((8, 10), np.uint8), "of one size"),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), np.uint8), "as integers"),
        (np.zeros((4, 5), np.uint8), np.full((4, 5), 7, np.uint8), "labels in 0..2, or 255"),
        (np.full((4, 5), -1), np.zeros((4, 5), np.uint8), "mask in 0..2"),
    ],
)
def test_ids_that_are_no_classes_are_refused(mask: Any, labels: Any, words: str) -> None:
    for measure in (metrics.confusion, metrics.boundaries):
        with refuses(InputError, words):
            measure(mask, labels, 3)


def test_pixels_without_a_class_in_the_mask_are_misses() -> None:
    labels = np.array([[0, 0, 1, 255]], np.uint8)
    found = metrics.confusion(np.array([[0, 255, 1, 255]], np.uint8), labels, 2)
    assert found.counts.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert found.iou.tolist() == [0.5, 1]
    assert found.pixel_accuracy == 2 / 3
