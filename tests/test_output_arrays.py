"""Ring 1: layouts, dtypes, buffers and refusals of postprocess() and confidence()."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import make_spec
from numpy.typing import NDArray

from seginfer import ClassSpec, Geometry, InputError, InputSpec, ModelSpec, confidence, postprocess

IMAGES = [(50, 41), (30, 77)]
TASKS = ["semantic", "binary", "multilabel"]


def outputs(spec: ModelSpec, rng: np.random.Generator) -> tuple[NDArray[np.float32], list[Geometry]]:
    """Return random NCHW logits for two images of different size."""
    assert spec.input.size is not None
    logits = rng.normal(size=(2, spec.num_channels, *spec.input.size)).astype(np.float32)
    return logits, [Geometry.place(image_hw, spec.input) for image_hw in IMAGES]


@pytest.mark.parametrize("task", TASKS)
def test_channels_last_outputs_give_the_same_masks_and_confidence(task: str, rng: np.random.Generator) -> None:
    first, last = (make_spec(task, resize="letterbox", output={"layout": layout}) for layout in ("NCHW", "NHWC"))
    logits, geometries = outputs(first, rng)
    transposed = np.ascontiguousarray(logits.transpose(0, 2, 3, 1))
    for stage in (postprocess, confidence):
        for a, b in zip(stage(logits, geometries, first), stage(transposed, geometries, last), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("task", TASKS)
def test_other_floats_give_the_masks_of_their_float32_values(task: str, dtype: Any, rng: np.random.Generator) -> None:
    spec = make_spec(task, resize="letterbox")
    logits, geometries = outputs(spec, rng)
    other = logits.astype(dtype)
    for a, b in zip(
        postprocess(other, geometries, spec), postprocess(other.astype(np.float32), geometries, spec), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_every_image_of_a_batch_gets_its_own_mask(rng: np.random.Generator) -> None:
    spec = make_spec(resize="letterbox")
    logits, geometries = outputs(spec, rng)
    together = postprocess(logits, geometries, spec)
    for i, mask in enumerate(together):
        assert mask.shape == IMAGES[i]
        np.testing.assert_array_equal(mask, postprocess(logits[i : i + 1], geometries[i : i + 1], spec)[0])


@pytest.mark.parametrize("resize", ["letterbox", "center-crop"])
@pytest.mark.parametrize("task", TASKS)
def test_out_is_filled_completely_and_returned(task: str, resize: str, rng: np.random.Generator) -> None:
    spec = make_spec(task, resize=resize)
    logits, geometries = outputs(spec, rng)
    for stage in (postprocess, confidence):
        expected = stage(logits, geometries, spec)
        out = [np.full((*mask.shape[:-1], 2 * mask.shape[-1]), 77, mask.dtype)[..., ::2] for mask in expected]
        filled = stage(logits, geometries, spec, out=out)
        for returned, given, wanted in zip(filled, out, expected, strict=True):
            assert returned is given
            np.testing.assert_array_equal(given, wanted)


@pytest.mark.parametrize("count", [256, 257, 300])
def test_more_than_256_classes_take_uint16(count: int) -> None:
    spec = ModelSpec("semantic", InputSpec(size=(4, 4)), ClassSpec(tuple(map(str, range(count))), ignore_index=None))
    logits = np.zeros((1, count, 4, 4), np.float32)
    logits[:, -1] = 1
    (mask,) = postprocess(logits, [Geometry.place((9, 5), spec.input)], spec)
    assert mask.dtype == (np.uint8 if count == 256 else np.uint16)
    assert (mask == count - 1).all()


def test_an_ignore_index_above_255_takes_uint16() -> None:
    spec = make_spec(size=(4, 4), resize="center-crop", ignore_index=1000)
    (mask,) = postprocess(np.zeros((1, 3, 4, 4), np.float32), [Geometry.place((4, 8), spec.input)], spec)
    assert mask.dtype == np.uint16
    assert set(mask.ravel().tolist()) == {0, 1000}


def test_a_multilabel_mask_of_more_than_256_classes_holds_bytes() -> None:
    names = tuple(map(str, range(300)))
    spec = ModelSpec("multilabel", InputSpec(size=(4, 4)), ClassSpec(names, ignore_index=None))
    (mask,) = postprocess(np.ones((1, 300, 4, 4), np.float32), [Geometry.place((9, 5), spec.input)], spec)
    assert mask.dtype == np.uint8
    assert mask.shape == (300, 9, 5)
    assert (mask == 1).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("where", [(0, 0, 0, 0), (1, 2, 23, 31), (1, 1, 7, 9)])
def test_a_value_that_is_not_finite_is_refused(poison: float, dtype: Any, where: tuple[int, ...]) -> None:
    spec = make_spec()
    logits = np.zeros((2, 3, 24, 32), dtype)
    logits[where] = poison
    geometries = [Geometry.place(image_hw, spec.input) for image_hw in IMAGES]
    for stage in (postprocess, confidence):
        with pytest.raises(InputError, match="NaN or infinite"):
            stage(logits, geometries, spec)


@pytest.mark.parametrize(
    "output",
    [
        np.zeros((1, 3, 24, 32), np.float32),  # two images need two rows
        np.zeros((2, 4, 24, 32), np.float32),  # three classes need three channels
        np.zeros((2, 24, 32, 3), np.float32),  # the other layout
        np.zeros((2, 3, 24), np.float32),
        np.zeros((2, 3, 0, 32), np.float32),
        np.zeros((2, 3, 24, 32), np.int64),
    ],
    ids=lambda output: f"{output.dtype} {output.shape}",
)
def test_an_output_of_another_shape_or_dtype_is_refused(output: NDArray[Any]) -> None:
    spec = make_spec()
    geometries = [Geometry.place(image_hw, spec.input) for image_hw in IMAGES]
    for stage in (postprocess, confidence):
        with pytest.raises(InputError, match=r"expected an? "):
            stage(output, geometries, spec)


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_an_output_that_is_no_array_is_refused(kind: str) -> None:
    spec = make_spec(output={"kind": kind})
    with pytest.raises(InputError, match="as a NumPy array, got list"):
        postprocess([[0.0]], [Geometry.place((9, 9), spec.input)], spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", [[[3]], [[-1]], [[0.5]], [[[0]], [[1]]], []], ids=str)
def test_labels_that_are_no_class_are_refused(labels: list[Any]) -> None:
    spec = make_spec(output={"kind": "labels", "stride": None})
    with pytest.raises(InputError, match="expected labels"):
        postprocess(np.array([labels]), [Geometry.place((9, 9), spec.input)], spec)


@pytest.mark.parametrize(
    "out",
    [
        [],
        [np.zeros((50, 41), np.uint8)],
        [np.zeros((50, 41), np.uint8), np.zeros((77, 30), np.uint8)],
        [np.zeros((50, 41), np.uint8), np.zeros((30, 77), np.int64)],
        [np.zeros((50, 41), np.uint8), None],
        [np.zeros((50, 41), np.uint8), np.broadcast_to(np.uint8(0), (30, 77))],
        7,
    ],
    ids=["none", "one", "transposed", "int64", "no array", "read-only", "a number"],
)
def test_buffers_that_do_not_fit_are_refused(out: Any) -> None:
    spec = make_spec()
    geometries = [Geometry.place(image_hw, spec.input) for image_hw in IMAGES]
    with pytest.raises(InputError, match="out must"):
        postprocess(np.zeros((2, 3, 24, 32), np.float32), geometries, spec, out=out)
