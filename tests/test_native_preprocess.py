"""Ring 2: the compiled preprocess step writes the bytes of the reference, on every instruction set and thread count."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_spec
from native import (
    THREADS,
    assert_native_equals_reference,
    formats,
    image_of,
    needs_core,
    sides,
    target,
    targets,
)

from seginfer import InputError, _native, preprocess
from seginfer._inputs.formats import PixelFormat
from seginfer._spec.model_spec import Resampling, Resize

pytestmark = needs_core
RESAMPLINGS = get_args(Resampling)
NORMAL: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "pad_value": (114.0, 3.0, 250.7)}
GRAY: dict[str, Any] = {"mean": (0.4,), "std": (0.2,), "pad_value": (114.0,)}


def spec_of(color: PixelFormat, size: tuple[int, int], resampling: str, resize: str, dtype: str, **fields: Any) -> Any:
    values: dict[str, Any] = {"scale": 1.0} if dtype == "uint8" else (GRAY if color == "gray" else NORMAL)
    return make_spec(
        size=size, resampling=resampling, resize=resize, dtype=dtype, color="gray" if color == "gray" else "rgb",
        **{**values, **fields},
    )  # fmt: skip


@settings(max_examples=300)
@given(data=st.data())
def test_every_format_resampling_policy_and_dtype(data: st.DataObject) -> None:
    draw = data.draw
    color, resampling = draw(formats()), draw(st.sampled_from(RESAMPLINGS))
    floats = ["float32", "float16"]
    dtype = draw(st.sampled_from(floats if "torch" in resampling else [*floats, "uint8"]))
    resize = draw(st.sampled_from([name for name in get_args(Resize) if name not in ("tile", "pad")]))
    spec = spec_of(
        color, (draw(sides(90)), draw(sides(150))), resampling, resize, dtype,
        anchor=draw(st.sampled_from(["center", "top-left"])), layout=draw(st.sampled_from(["NCHW", "NHWC"])),
    )  # fmt: skip
    if color != "gray" and draw(st.booleans()):
        object.__setattr__(spec.input, "color", "bgr")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    image = image_of(color, draw(sides(120)), draw(sides(150)), rng, draw(st.integers(0, 9)))
    threads = draw(st.sampled_from(THREADS))
    assert_native_equals_reference(
        lambda threads: [preprocess([image], spec, color=color, threads=threads)[0]], threads
    )


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("threads", range(1, 9))
def test_large_frames_are_shared_among_threads(resampling: str, threads: int, rng: np.random.Generator) -> None:
    spec = spec_of("rgb", (256, 448), resampling, "letterbox", "float32")
    image = image_of("rgb", 270, 480, rng)
    assert_native_equals_reference(lambda threads: [preprocess([image], spec, threads=threads)[0]], threads)


@settings(max_examples=60)
@given(data=st.data())
def test_tiles_and_padding_without_resize(data: st.DataObject) -> None:
    draw = data.draw
    height, width = draw(sides(60)), draw(sides(90))
    image = image_of("rgb", height, width, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    margin = draw(st.integers(0, 5))
    tiles = make_spec(size=(24, 32), resize="tile", tile_margin=margin, multiple_of=2)
    padded = make_spec(size=None, multiple_of=draw(st.integers(1, 40)), resize="pad", pad_value=(9.5,))
    for spec in (tiles, padded):
        assert_native_equals_reference(lambda threads, spec=spec: [preprocess([image], spec, threads=threads)[0]], 2)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("size", [(1, 7), (700, 1), (9, 1100), (1, 1)], ids=str)
def test_extreme_scales(resampling: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    for image_hw in ((3, 900), (640, 2), (1, 1)):
        image = image_of("rgb", *image_hw, rng)
        spec = spec_of("rgb", size, resampling, "stretch", "float32")
        assert_native_equals_reference(lambda threads, i=image, s=spec: [preprocess([i], s, threads=threads)[0]], 2)


def test_an_image_at_the_end_of_its_memory_is_not_read_past(rng: np.random.Generator) -> None:
    """Each image ends where its memory does, which the sanitizers of tests/cpp watch; here values must be right."""
    for width in range(1, 70):
        image = rng.integers(0, 256, 5 * width * 3, dtype=np.uint8).reshape(5, width, 3)
        spec = spec_of("rgb", (7, 64), "torch", "stretch", "float32")
        assert_native_equals_reference(lambda threads, i=image, s=spec: [preprocess([i], s, threads=threads)[0]], 1)


def test_strided_images_and_batches(rng: np.random.Generator) -> None:
    spec = spec_of("rgb", (24, 32), "opencv", "letterbox", "float32")
    memory = image_of("rgb", 60, 80, rng)
    views = [
        memory[3:41, 5:50],
        memory[::2],
        memory[:, ::3],
        np.asfortranarray(memory),
        np.broadcast_to(memory[:1], (9, 80, 3)),
    ]
    for view in views:
        assert_native_equals_reference(lambda threads, v=view: [preprocess([v], spec, threads=threads)[0]], 2)
    expected, _ = preprocess([memory], spec)
    for out in (np.zeros((1, 3, 24, 64), np.float32)[..., ::2], np.zeros((32, 24, 3, 1), np.float32).T):
        preprocess([memory], spec, out=out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("color", "image", "message"),
    [
        ("nv12", np.zeros((7, 8), np.uint8), "(H * 3 / 2, W)"),
        ("nv12", np.zeros((6, 7), np.uint8), "even H and W"),
        ("nv12", np.zeros((3, 8), np.uint8), None),
        ("i420", np.zeros((7, 8), np.uint8), "(H * 3 / 2, W)"),
        ("nv21", np.zeros((6, 7), np.uint8), "even H and W"),
        ("yuyv", np.zeros((4, 7, 2), np.uint8), "even W"),
        ("uyvy", np.zeros((4, 8, 3), np.uint8), "(H, W, 2)"),
        ("rgba", np.zeros((4, 7, 3), np.uint8), "(H, W, 4)"),
        ("rgb", np.zeros((4, 7, 4), np.uint8), "(H, W, 3)"),
        ("rgb", np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (2**20 + 1, 1, 3)), "sides of at most"),
        ("rgb", np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (1, 2**31 - 1, 3)), "sides of at most"),
    ],
)
def test_images_of_another_format_are_refused(color: PixelFormat, image: Any, message: str | None) -> None:
    spec = make_spec()
    if message is None:
        assert preprocess([image], spec, color=color)[1][0].image_hw == (2, 8)
        return
    with pytest.raises(InputError) as caught:
        preprocess([image], spec, color=color)
    assert message in str(caught.value)


@pytest.mark.parametrize("threads", [0, -1, 1025, 2.0, True, "2"])
def test_a_number_of_threads_is_checked(threads: Any) -> None:
    with pytest.raises(InputError, match="threads must be an integer"):
        preprocess([np.zeros((4, 4, 3), np.uint8)], make_spec(), threads=threads)


def test_instruction_sets_are_chosen_by_name() -> None:
    assert "portable" in targets()
    for name in targets():
        with target(name):
            assert _native.core.target() == name
            assert name in _native.describe()
    with pytest.raises(InputError, match="that this machine has"):
        _native.core.use_target("neon2048")
