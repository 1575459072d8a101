"""Ring 2: the compiled mask step writes the bytes of the reference, on every instruction set and thread count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native import THREADS, assert_native_equals_reference, needs_core, pure, sides, target, targets
from numpy.typing import NDArray
from tolerances import NATIVE_CONFIDENCE

from seginfer import (
    ClassSpec,
    Geometry,
    InputError,
    InputSpec,
    ModelSpec,
    OutputSpec,
    UpsampleSpec,
    confidence,
    margin,
    postprocess,
)

pytestmark = needs_core


def spec_of(task: str, classes: int, size: tuple[int, int], output: OutputSpec, **fields: Any) -> ModelSpec:
    count = 2 if task == "binary" else classes
    ignore = 65535 if fields.get("resize") == "center-crop" and task != "multilabel" else None
    names = ClassSpec(tuple(map(str, range(count))), ignore_index=ignore)
    return ModelSpec(task, InputSpec(size=size, **fields), names, (output,))  # type: ignore[arg-type]


def values_of(kind: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    """Return an NHWC output: noise, noise of few levels (ties), or large regions."""
    style = rng.integers(3)
    if style == 2:
        cells = [-(-n // 4) for n in shape[1:3]]
        values = rng.normal(size=(shape[0], *cells, shape[3])).repeat(4, 1).repeat(4, 2)[:, : shape[1], : shape[2]]
    else:
        values = rng.normal(size=shape)
    if style == 1:
        values = np.round(2 * values) / 2
    return (1 / (1 + np.exp(-values)) if kind == "probabilities" else 3 * values).astype(dtype)


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelSpec, NDArray[Any], list[Geometry]]:
    task = draw(st.sampled_from(["semantic", "binary", "multilabel"]))
    many = st.one_of(st.integers(1, 24), st.sampled_from([1, 2, 19, 255, 256, 257, 300]))
    classes = 1 if task == "binary" else draw(many if task == "semantic" else st.integers(1, 5))
    stride = draw(st.sampled_from([1, 1, 2, 3, 4, 8]))
    factor = draw(st.sampled_from([0, 0, 0, 2, 3]))
    kind: Any = draw(st.sampled_from(["logits", "probabilities"]))
    upsample = UpsampleSpec(factor, align_corners=draw(st.booleans())) if factor else None
    output = OutputSpec(
        kind=kind, stride=stride, align_corners=draw(st.booleans()), upsample=upsample,
        layout=draw(st.sampled_from(["NCHW", "NHWC"])), threshold=draw(st.sampled_from([0.5, 0.3])),
    )  # fmt: skip
    logits_hw = draw(sides(24 if classes > 24 else 40)), draw(sides(24 if classes > 24 else 70))
    if upsample and upsample.align_corners:
        logits_hw = max(2, logits_hw[0]), max(2, logits_hw[1])
    total = stride * (factor or 1)
    size = (
        logits_hw[0] * total - draw(st.integers(0, total - 1)),
        logits_hw[1] * total - draw(st.integers(0, total - 1)),
    )
    resize = draw(st.sampled_from(["stretch", "letterbox", "center-crop"]))
    spec = spec_of(task, classes, size, output, resize=resize, anchor=draw(st.sampled_from(["center", "top-left"])))
    geometry = Geometry.place((draw(sides(80)), draw(sides(140))), spec.input)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = values_of(kind, (1, *logits_hw, classes), draw(st.sampled_from(["float32", "float16", "float64"])), rng)
    if output.layout == "NCHW":
        values = values.transpose(0, 3, 1, 2)
    if draw(st.booleans()):
        values = np.ascontiguousarray(values)
    return spec, values, [geometry]


@settings(max_examples=400)
@given(case=cases(), threads=st.sampled_from(THREADS))
def test_masks_and_margins_of_every_head(case: tuple[ModelSpec, NDArray[Any], list[Geometry]], threads: int) -> None:
    spec, values, geometries = case
    assert_native_equals_reference(lambda threads: postprocess(values, geometries, spec, threads=threads), threads)
    assert_native_equals_reference(lambda threads: margin(values, geometries, spec, threads=threads), threads)


@settings(max_examples=150)
@given(case=cases(), threads=st.sampled_from(THREADS))
def test_confidence_is_within_its_tolerance(case: tuple[ModelSpec, NDArray[Any], list[Geometry]], threads: int) -> None:
    spec, values, geometries = case
    with pure():
        (expected,) = confidence(values, geometries, spec)
    for name in targets():
        with target(name):
            (got,) = confidence(values, geometries, spec, threads=threads)
        assert np.abs(got - expected).max(initial=0) <= NATIVE_CONFIDENCE.limit


@pytest.mark.parametrize("threads", range(1, 9))
@pytest.mark.parametrize("classes", [1, 3, 19, 300])
def test_large_masks_are_shared_among_threads(threads: int, classes: int, rng: np.random.Generator) -> None:
    spec = spec_of("semantic", classes, (64, 96), OutputSpec(stride=4))
    values = rng.normal(size=(1, classes, 16, 24)).astype(np.float32)
    geometries = [Geometry.place((270, 480), spec.input)]
    assert_native_equals_reference(lambda threads: postprocess(values, geometries, spec, threads=threads), threads)


def test_logits_at_full_size_and_larger_than_the_image(rng: np.random.Generator) -> None:
    spec = spec_of("semantic", 7, (130, 200), OutputSpec())
    values = rng.normal(size=(1, 7, 130, 200)).astype(np.float32)
    for image_hw in ((130, 200), (131, 199), (64, 77), (13, 20), (1, 1)):
        geometries = [Geometry.place(image_hw, spec.input)]
        assert_native_equals_reference(lambda threads, g=geometries: postprocess(values, g, spec, threads=threads), 2)


def test_batches_tiles_and_labels(rng: np.random.Generator) -> None:
    tiles = InputSpec(size=(40, 48), resize="tile", tile_margin=8, multiple_of=4)
    for kind, count in (("logits", 4), ("labels", 300)):
        names = ClassSpec(tuple(map(str, range(count))), ignore_index=None)
        spec = ModelSpec("semantic", tiles, names, (OutputSpec(kind=kind, stride=4),))  # type: ignore[arg-type]
        (geometry,) = [Geometry.place((70, 110), tiles)]
        parts = geometry.tiles(tiles)
        shape = (len(parts), 10, 12) if kind == "labels" else (len(parts), 4, 10, 12)
        values = rng.integers(0, count, shape) if kind == "labels" else rng.normal(size=shape).astype(np.float32)
        assert_native_equals_reference(
            lambda threads, v=values, s=spec, p=parts: postprocess(v, p, s, threads=threads), 2
        )


@pytest.mark.parametrize("task", ["semantic", "binary"])
@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_classes_are_remapped(task: str, kind: str, rng: np.random.Generator) -> None:
    if task == "binary" and kind == "labels":
        kind = "probabilities"
    spec = spec_of(task, 5, (24, 32), OutputSpec(kind=kind), resize="letterbox")  # type: ignore[arg-type]
    geometries = [Geometry.place((50, 61), spec.input)]
    values = rng.integers(0, 5, (1, 24, 32)) if kind == "labels" else rng.random((1, spec.num_channels, 24, 32))
    (plain,) = postprocess(values, geometries, spec)
    for table in ([7, 0, 255, 3, 3], [70, 0, 60000, 3, 3]):
        remap = table[: spec.num_classes]
        (mask,) = postprocess(values, geometries, spec, remap=remap)
        assert mask.dtype == (np.uint16 if max(remap) > 255 else np.uint8)
        np.testing.assert_array_equal(mask, np.array(remap)[plain])
        assert_native_equals_reference(
            lambda threads, r=remap: postprocess(values, geometries, spec, remap=r, threads=threads), 2
        )


@pytest.mark.parametrize("remap", [[1], [0, 1, -1], [0, 1, 65536], 7, ["a", "b", "c"], [[0], [1], [2]]], ids=str)
def test_a_remap_that_does_not_fit_is_refused(remap: Any) -> None:
    spec = spec_of("semantic", 3, (4, 4), OutputSpec())
    with pytest.raises(InputError, match="remap must"):
        postprocess(np.zeros((1, 3, 4, 4), np.float32), [Geometry.place((4, 4), spec.input)], spec, remap=remap)
    several = spec_of("multilabel", 3, (4, 4), OutputSpec())
    with pytest.raises(InputError, match="multilabel"):
        postprocess(
            np.zeros((1, 3, 4, 4), np.float32), [Geometry.place((4, 4), several.input)], several, remap=[0, 1, 2]
        )


def test_ties_take_the_lowest_class_and_margins_are_zero() -> None:
    spec = spec_of("semantic", 40, (8, 8), OutputSpec())
    geometries = [Geometry.place((33, 47), spec.input)]
    values = np.ones((1, 40, 8, 8), np.float32)
    assert not postprocess(values, geometries, spec)[0].any()
    assert not margin(values, geometries, spec)[0].any()
    values[:, 7] += 2
    assert (postprocess(values, geometries, spec)[0] == 7).all()
    np.testing.assert_allclose(margin(values, geometries, spec)[0], 2, rtol=1e-6)
    single = spec_of("semantic", 1, (8, 8), OutputSpec())
    assert np.isinf(margin(values[:, :1], [Geometry.place((9, 9), single.input)], single)[0]).all()


def test_every_float16_value_is_read_and_written_exactly() -> None:
    """All 63488 finite float16 values, as labels of a threshold between each value and the next."""
    halves: NDArray[np.float16] = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(1, 1, 248, 256)
    spec = spec_of("binary", 1, (248, 256), OutputSpec())
    geometries = [Geometry.place((248, 256), spec.input)]
    assert_native_equals_reference(lambda threads: margin(halves, geometries, spec, threads=threads), 2)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_values_that_are_not_finite_are_found_wherever_they_are(
    poison: float, dtype: str, resize: str, rng: np.random.Generator
) -> None:
    """Also in padding, which no pixel reads, and in rows that a small image skips."""
    spec = spec_of("semantic", 5, (20, 37), OutputSpec(), resize=resize)
    for image_hw in ((50, 61), (300, 500), (4, 3), (1, 9)):
        geometries = [Geometry.place(image_hw, spec.input)]
        for row in range(20):
            values = rng.normal(size=(1, 5, 20, 37)).astype(dtype)
            values[0, rng.integers(5), row, rng.choice([0, 15, 16, 31, 32, 36])] = poison
            values[0, :, (row + 1) % 20] = poison  # in all classes, so that none can win
            for name in targets():
                with target(name), pytest.raises(InputError, match="NaN or infinite"):
                    postprocess(values, geometries, spec, remap=[9, 8, 7, 6, 5], threads=2)
