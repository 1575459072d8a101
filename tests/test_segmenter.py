"""Ring 4: the Segmenter from image to mask: batches, colours, buffers and threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from models import SPECS, logits_of, make_spec
from numpy.typing import NDArray

from seginfer import BackendError, Geometry, InputError, ModelSpec, Segmenter, confidence, postprocess, preprocess

Image = NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 0) -> Image:
    """Return smooth colours, so that a mask has regions."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def expected_mask(image: Image, spec: ModelSpec) -> NDArray[np.uint8]:
    """Run the network of `make_onnx` at stride 1 in NumPy."""
    batch, geometries = preprocess([image], spec)
    return postprocess(logits_of(batch, spec.task), geometries, spec)[0]


def test_an_image_comes_back_as_a_mask_of_its_own_size(semantic_model: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :16, 0] = image[:, 16:40, 1] = image[:, 40:, 2] = 200
    with Segmenter.open(semantic_model) as segmenter:
        result = segmenter(image)
    assert result.mask.dtype == np.uint8
    np.testing.assert_array_equal(result.mask, np.tile(np.repeat([0, 1, 2], [16, 24, 24]), (48, 1)))
    assert result.class_areas() == {"red": 0.25, "green": 0.375, "blue": 0.375}
    assert result.confidence is None
    assert result.timings.batch_size == 1
    assert result.timings.total_ms > result.timings.infer_ms > 0


@pytest.mark.parametrize("name", ["semantic", "binary", "multilabel", "letterbox", "dynamic size", "tiles"])
@pytest.mark.parametrize("image_hw", [(24, 32), (61, 50), (9, 100)])
def test_the_runtime_gives_the_masks_of_the_network_in_numpy(
    name: str, image_hw: tuple[int, int], make_model: Callable[..., Path]
) -> None:
    image = picture(*image_hw)
    with Segmenter.open(make_model(SPECS[name])) as segmenter:
        np.testing.assert_array_equal(segmenter(image).labels, expected_mask(image, SPECS[name]))


def test_every_kind_of_network_runs_and_its_stages_agree_with_its_trace(
    any_spec: ModelSpec, make_model: Callable[..., Path]
) -> None:
    image = picture(40, 50)
    with Segmenter.open(make_model(any_spec)) as segmenter:
        first, second, trace = segmenter(image), segmenter(image), segmenter.trace(image)
    assert first.labels.shape[-2:] == (40, 50)
    assert len(np.unique(first.labels)) > 1
    for mask in (
        second.labels,
        trace.mask,
        postprocess(trace.output, trace.geometry.tiles(any_spec.input), any_spec)[0],
    ):
        np.testing.assert_array_equal(mask, first.labels)
    np.testing.assert_array_equal(trace.batch, preprocess([image], any_spec)[0])


@pytest.mark.parametrize("container", [list, tuple])
def test_several_images_of_different_sizes_are_one_batch(container: type, semantic_model: Path) -> None:
    images = [picture(30, 40, 1), picture(90, 20, 2), picture(24, 32, 3)]
    with Segmenter.open(semantic_model) as segmenter:
        results = segmenter(container(images))
        assert [r.timings.batch_size for r in results] == [3, 3, 3]
        for image, result in zip(images, results, strict=True):
            np.testing.assert_array_equal(result.mask, segmenter(image).mask)
            assert result.mask.shape == image.shape[:2]
        assert isinstance(segmenter(images[:1]), list)


def test_a_fixed_batch_is_filled_up_and_split(fixed_batch_model: Path, semantic_model: Path) -> None:
    images = [picture(30, 40, seed) for seed in range(5)]
    with Segmenter.open(fixed_batch_model) as fixed, Segmenter.open(semantic_model) as free:
        assert fixed.backend.batch_size == 2
        assert free.backend.batch_size is None
        results = fixed(images)
        assert [r.timings.batch_size for r in results] == [2, 2, 2, 2, 1]
        for image, result in zip(images, results, strict=True):
            np.testing.assert_array_equal(result.mask, free(image).mask)
            np.testing.assert_array_equal(result.mask, fixed(image).mask)


def test_images_of_a_dynamic_network_are_grouped_by_input_size(make_model: Callable[..., Path]) -> None:
    spec = SPECS["dynamic size"]
    images = [picture(h, w, i) for i, (h, w) in enumerate([(8, 16), (30, 30), (7, 9), (25, 32), (8, 10)])]
    with Segmenter.open(make_model(spec)) as segmenter:
        results = segmenter(images)
    assert [r.timings.batch_size for r in results] == [3, 2, 3, 2, 3]
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result.mask, expected_mask(image, spec))


def test_bgr_images_give_the_masks_of_their_rgb_copies(any_spec: ModelSpec, make_model: Callable[..., Path]) -> None:
    path, image = make_model(any_spec), picture(40, 50)
    flipped = np.ascontiguousarray(image[:, :, ::-1])
    with Segmenter.open(path, color="bgr") as bgr, Segmenter.open(path) as rgb:
        np.testing.assert_array_equal(bgr(flipped).mask, rgb(image).mask)
        assert not np.array_equal(bgr(image).mask, rgb(image).mask)
        assert bgr(flipped).color == "bgr"


def test_images_are_rgb_unless_stated_also_for_a_bgr_network(make_model: Callable[..., Path]) -> None:
    image = picture(40, 50)
    with Segmenter.open(make_model(make_spec(color="bgr"))) as segmenter:
        assert segmenter.color == "rgb"
        expected = expected_mask(np.ascontiguousarray(image[:, :, ::-1]), make_spec())
        np.testing.assert_array_equal(segmenter(image).mask, expected)


@pytest.mark.parametrize("name", ["semantic", "binary", "multilabel"])
def test_out_is_filled_and_is_the_mask_of_the_result(name: str, make_model: Callable[..., Path]) -> None:
    image = picture(40, 50)
    with Segmenter.open(make_model(SPECS[name])) as segmenter:
        expected = segmenter(image).labels
        out = [np.full_like(expected, 77) for _ in range(2)]
        assert segmenter(image, out=out[0]).labels is out[0]
        results = segmenter([image, image], out=[out[1], np.empty_like(expected)])
        assert results[0].labels is out[1]
    np.testing.assert_array_equal(out, [expected, expected])


@pytest.mark.parametrize("name", ["semantic", "binary", "multilabel", "probabilities"])
def test_confidence_is_given_where_it_is_asked_for(name: str, make_model: Callable[..., Path]) -> None:
    image, spec = picture(40, 50), SPECS[name]
    with Segmenter.open(make_model(spec)) as segmenter:
        result, trace = segmenter(image, confidence=True), segmenter.trace(image)
    assert result.confidence is not None
    np.testing.assert_array_equal(result.confidence, confidence(trace.output, [trace.geometry], spec)[0])


def test_results_own_their_memory(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model) as segmenter:
        first = segmenter(picture(40, 50, 1), confidence=True)
        trace = segmenter.trace(picture(40, 50, 1))
        assert first.confidence is not None
        kept = [array.copy() for array in (first.mask, first.confidence, trace.batch, trace.output, trace.mask)]
        for seed in range(2, 6):
            assert not np.array_equal(segmenter(picture(40, 50, seed), confidence=True).mask, first.mask)
    for before, after in zip(kept, (first.mask, first.confidence, trace.batch, trace.output, trace.mask), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ["semantic", "dynamic size", "tiles"])
def test_eight_threads_get_the_masks_of_one(name: str, make_model: Callable[..., Path]) -> None:
    images = [picture(20 + 5 * i, 60 - 4 * i, i) for i in range(8)]
    with Segmenter.open(make_model(SPECS[name]), threads=1) as segmenter:
        expected = [segmenter(image).mask for image in images]
        with ThreadPoolExecutor(8) as pool:
            calls = [(i * 5 + k) % 8 for k in range(50) for i in range(8)]
            masks = pool.map(lambda i: segmenter(images[i]).mask, calls)
            for i, mask in zip(calls, masks, strict=True):
                np.testing.assert_array_equal(mask, expected[i])


def test_nothing_runs_when_a_buffer_does_not_fit(semantic_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, out = [picture(24, 32), picture(40, 50)], [np.full((24, 32), 77, np.uint8), np.empty((50, 40), np.uint8)]
    with Segmenter.open(semantic_model) as segmenter:
        monkeypatch.setattr(segmenter.backend, "infer", lambda *_: pytest.fail("the network ran"))
        with pytest.raises(InputError, match=r"\(40, 50\), got uint8 \(50, 40\)"):
            segmenter(images, out=out)
    assert (out[0] == 77).all()


def test_a_failed_call_leaves_the_segmenter_usable(semantic_model: Path) -> None:
    image = picture(40, 50)
    with Segmenter.open(semantic_model) as segmenter:
        expected = segmenter(image).mask
        with pytest.raises(InputError):
            segmenter(image, out=np.empty((1, 1), np.uint8))
        with pytest.raises(BackendError, match=r"float32 \(1, 3, 7, 7\)"):
            segmenter.backend.infer(np.zeros((1, 3, 7, 7), np.float32))
        np.testing.assert_array_equal(segmenter(image).mask, expected)


def test_plans_are_kept_for_a_few_sizes_only(semantic_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seginfer._pipelines.plans._KEPT", 3)
    images = [picture(20 + i, 30) for i in range(8)]
    planned: list[tuple[int, int]] = []
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        plan = segmenter.pipeline.plan

        def counted(geometry: Geometry) -> Any:
            planned.append(geometry.image_hw)
            return plan(geometry)

        monkeypatch.setattr(segmenter.pipeline, "plan", counted)
        for image in [*images, images[-1], *images[-2:]]:
            np.testing.assert_array_equal(segmenter(image).mask, expected_mask(image, SPECS["semantic"]))
            assert len(segmenter._plans._kept) <= 3
    assert planned == [image.shape[:2] for image in images], "a size that is kept is planned once"
