"""Ring 1: confidence() against torch's softmax and sigmoid of the interpolated output."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_spec
from numpy.typing import NDArray

from seginfer import Geometry, InputError, ModelSpec, confidence, postprocess

TASKS = ["semantic", "binary", "multilabel"]
KINDS = ["logits", "probabilities"]
SIZES = st.tuples(st.integers(1, 80), st.integers(1, 80))


def activated(values: torch.Tensor, task: str) -> torch.Tensor:
    return values.softmax(-3) if task == "semantic" else values.sigmoid()


def expected_confidence(values: torch.Tensor, spec: ModelSpec) -> NDArray[np.float32]:
    """Return the probability of the decision for (C, H, W) values at the image's size."""
    p = activated(values, spec.task) if spec.output.kind == "logits" else values
    if spec.task == "semantic":
        p = p.amax(0)
    if spec.task == "binary":
        p = torch.where(p > spec.output.threshold, p, 1 - p)[0]
    return p.numpy()


def assert_close(ours: NDArray[np.float32], expected: NDArray[np.float32], limit: float) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    assert ours.min() >= 0
    assert ours.max() <= 1
    assert float(np.abs(ours - expected).max()) <= limit


@pytest.mark.parametrize("scale", [1, 10, 90])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("task", TASKS)
def test_confidence_is_the_activation_of_torch_up_to_saturated_logits(
    task: str, threshold: float, scale: float, rng: np.random.Generator
) -> None:
    spec = make_spec(task, size=(60, 70), output={"threshold": threshold})
    logits = rng.normal(scale=scale, size=(1, spec.num_channels, 60, 70)).astype(np.float32)
    (ours,) = confidence(logits, [Geometry.place((60, 70), spec.input)], spec)
    assert_close(ours, expected_confidence(torch.from_numpy(logits[0]), spec), tolerances.ACTIVATION.limit)


@settings(max_examples=80)
@given(SIZES, SIZES, st.sampled_from(TASKS), st.sampled_from(KINDS), st.booleans(), st.integers(0, 2**32))
def test_confidence_is_that_of_interpolated_values(
    image_hw: tuple[int, int], input_hw: tuple[int, int], task: str, kind: str, align_corners: bool, seed: int
) -> None:
    spec = make_spec(task, size=input_hw, resize="letterbox", output={"kind": kind, "align_corners": align_corners})
    geometry = Geometry.place(image_hw, spec.input)
    logits = np.random.default_rng(seed).normal(size=(1, spec.num_channels, *input_hw)).astype(np.float32)
    output = torch.from_numpy(logits) if kind == "logits" else activated(torch.from_numpy(logits), task)
    content = output[(...,) + geometry.content.slices]  # noqa: RUF005, mypy takes the other form for Python 3.11
    values = F.interpolate(content, image_hw, mode="bilinear", align_corners=align_corners)[0]
    (ours,) = confidence(output.numpy(), [geometry], spec)
    assert_close(ours, expected_confidence(values, spec), tolerances.CONFIDENCE.limit)


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_is_at_least_as_probable_as_chance(kind: str, rng: np.random.Generator) -> None:
    spec = make_spec(size=(20, 30), output={"kind": kind})
    logits = torch.from_numpy(rng.normal(scale=3, size=(1, 3, 20, 30)).astype(np.float32))
    output = logits if kind == "logits" else activated(logits, "semantic")
    (ours,) = confidence(output.numpy(), [Geometry.place((64, 64), spec.input)], spec)
    assert ours.min() >= 1 / 3 - tolerances.CONFIDENCE.limit


@pytest.mark.parametrize("task", TASKS)
def test_pixels_that_the_network_did_not_see_have_no_confidence(task: str) -> None:
    spec = make_spec(task, size=(16, 16), resize="center-crop")
    logits = np.ones((1, spec.num_channels, 16, 16), np.float32)
    (ours,) = confidence(logits, [Geometry.place((32, 64), spec.input)], spec)
    assert not ours[..., :16].any()
    assert not ours[..., 48:].any()
    assert ours[..., 16:48].all()


def test_an_image_without_a_visible_pixel_has_no_confidence() -> None:
    spec = make_spec(size=(5, 3), resize="center-crop")
    (ours,) = confidence(np.ones((1, 3, 5, 3), np.float32), [Geometry.place((1, 2), spec.input)], spec)
    np.testing.assert_array_equal(ours, [[0, 0]])


def test_working_in_chunks_changes_neither_mask_nor_confidence(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    spec = make_spec(size=(20, 30), resize="letterbox")
    geometry = Geometry.place((77, 64), spec.input)
    logits = rng.normal(size=(1, 3, 20, 30)).astype(np.float32)
    whole = postprocess(logits, [geometry], spec)[0], confidence(logits, [geometry], spec)[0]
    for chunk in (1, 64 * 3 * 5 + 1):
        monkeypatch.setattr("seginfer._reference.mask._CHUNK", chunk)
        np.testing.assert_array_equal(postprocess(logits, [geometry], spec)[0], whole[0])
        np.testing.assert_array_equal(confidence(logits, [geometry], spec)[0], whole[1])


def test_labels_have_no_confidence() -> None:
    spec = make_spec(output={"kind": "labels"})
    with pytest.raises(InputError, match="no confidence"):
        confidence(np.zeros((1, 24, 32), np.int64), [Geometry.place((24, 32), spec.input)], spec)
