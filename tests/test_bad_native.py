"""Ring 4: abuse of the compiled core. What it cannot take is refused in one line, and no array is touched."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import SPECS, make_spec
from native import needs_core
from numpy.lib.stride_tricks import as_strided
from refusal import refuses

from seginfer import Geometry, InputError, Segmenter, _native, confidence, margin, postprocess, preprocess

pytestmark = needs_core

core: Any = _native.core
SIZE = (6, 8)
MOST = 2**31 - 1
PLACEMENT: dict[str, Any] = {"image_hw": SIZE, "input_hw": SIZE, "resized_hw": SIZE, "offset_yx": (0, 0)}
PREPROCESSOR: dict[str, Any] = {
    **PLACEMENT, "pixel_format": "rgb", "yuv_matrix": "bt601", "yuv_range": "limited",
    "resampling": "opencv", "gain": (0.5,) * 3, "bias": (0.0,) * 3,
    "padding": (0.0,) * 3, "is_bgr": False, "is_mirrored": False,
}  # fmt: skip
RESAMPLER: dict[str, Any] = {
    **PLACEMENT, "whole_hw": SIZE, "corner_yx": (0, 0), "labels_hw": SIZE, "visible": (0, 0, *SIZE)
}  # fmt: skip
DECODER: dict[str, Any] = {
    **{key: value for key, value in RESAMPLER.items() if key != "labels_hw"}, "logits_hw": SIZE, "channels": 3,
    "decision": "argmax", "threshold": 0.0, "is_logits": True, "align_corners": False, "upsampling": 0,
    "upsampling_align_corners": False, "table": [],
}  # fmt: skip

RGB = np.zeros((*SIZE, 3), np.uint8)
LOGITS = np.zeros((*SIZE, 3), np.float32)


def huge(shape: tuple[int, ...], dtype: Any = np.uint8) -> Any:
    """Return a writable view of that shape onto a single value."""
    return as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))


def misaligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array whose values start one byte off."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.zeros(size + 1, np.uint8)[1:].view(dtype).reshape(shape)


def preprocessor(**fields: Any) -> Any:
    return core.Preprocessor(**{**PREPROCESSOR, **fields})


def decoder(**fields: Any) -> Any:
    return core.MaskDecoder(**{**DECODER, **fields})


def fill_batch(image: Any = RGB, out: Any = None, **fields: Any) -> None:
    out = np.empty((*SIZE, 3), np.float32) if out is None else out
    preprocessor(**fields).fill(image, out, core.Threads(1))


def fill_mask(logits: Any = LOGITS, mask: Any = None, maps: Any = (None, None), **fields: Any) -> None:
    mask = np.empty(SIZE, np.uint8) if mask is None else mask
    decoder(**fields).fill(logits, mask, *maps, core.Threads(1))


def resample(labels: Any, mask: Any, **fields: Any) -> None:
    core.LabelResampler(**{**RESAMPLER, **fields}).fill(labels, mask, core.Threads(1))


def paint(image: Any = RGB, mask: Any = None, colors: Any = None, weight: int = 128, out: Any = None) -> None:
    mask = np.zeros(SIZE, np.uint8) if mask is None else mask
    colors = np.zeros((3, 3), np.uint8) if colors is None else colors
    core.overlay(image, mask, colors, weight, np.empty((*SIZE, 3), np.uint8) if out is None else out, core.Threads(1))


def of_one_memory(first: tuple[tuple[int, ...], Any], second: tuple[tuple[int, ...], Any]) -> tuple[Any, Any]:
    """Return two arrays, (shape, dtype) each, that begin at the same byte."""
    memory = np.zeros(4096, np.uint8)
    a, b = (
        memory[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
        for shape, dtype in (first, second)
    )
    return a, b


BATCH = ((*SIZE, 3), np.float32)
MASK = (SIZE, np.uint8)

REFUSED: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    # the image
    "float pixels": (lambda: fill_batch(RGB.astype(np.float32)), ("must be uint8, got float32 (6, 8, 3)", "0..255")),
    "signed pixels": (lambda: fill_batch(RGB.astype(np.int8)), ("must be uint8, got int8 (6, 8, 3)",)),
    "bool pixels": (lambda: fill_batch(RGB.astype(bool)), ("must be uint8, got",)),
    "pixels without channels": (lambda: fill_batch(RGB[..., 0]), ("must have 3 axes, got uint8 (6, 8)",)),
    "channels first": (lambda: fill_batch(RGB.transpose(2, 0, 1)), ("3 channels last, got uint8 (3, 6, 8)",)),
    "columns first": (lambda: fill_batch(np.asfortranarray(RGB)), ("side by side", "numpy.ascontiguousarray")),
    "every other column": (lambda: fill_batch(np.zeros((6, 16, 3), np.uint8)[:, ::2]), ("side by side",)),
    "flipped channels": (lambda: fill_batch(RGB[..., ::-1]), ("side by side", "numpy.ascontiguousarray")),
    "flipped columns": (lambda: fill_batch(RGB[:, ::-1]), ("side by side", "numpy.ascontiguousarray")),
    "flipped rows": (lambda: fill_batch(RGB[::-1]), ("flipped rows, got rows -24 bytes apart", "contiguous array")),
    "one row for all": (lambda: fill_batch(np.broadcast_to(RGB[:1], RGB.shape)), ("overlapping", "0 bytes apart")),
    "another size": (lambda: fill_batch(np.zeros((7, 8, 3), np.uint8)), ("images of 6 x 8", "got 7 x 8")),
    "no rows": (lambda: fill_batch(RGB[:0]), ("images of 6 x 8", "got 0 x 8")),
    "no columns": (lambda: fill_batch(RGB[:, :0]), ("images of 6 x 8", "got 6 x 0")),
    "2**31 - 1 columns": (lambda: fill_batch(as_strided(RGB, (1, MOST, 3), (0, 3, 1))), ("at most 1048576", "cut")),
    "2**31 rows": (lambda: fill_batch(as_strided(RGB, (2**31, 8, 3), (0, 3, 1))), ("at most 1048576, got", "cut")),
    "2**40 rows": (lambda: fill_batch(as_strided(RGB, (2**40, 8, 3), (0, 3, 1))), ("at most 1048576, got", "cut")),
    "nv12 of 7 rows": (
        lambda: fill_batch(np.zeros((7, 8), np.uint8), pixel_format="nv12"), ("3/2 rows per pixel row", "got 7 rows")
    ),
    # the batch
    "a batch of doubles": (lambda: fill_batch(out=np.zeros((*SIZE, 3))), ("float32, float16 or uint8, got float64",)),
    "a batch of integers": (lambda: fill_batch(out=np.zeros((*SIZE, 3), np.int32)), ("got int32 (6, 8, 3)",)),
    "a batch of floats as bytes": (lambda: fill_batch(out=np.zeros_like(RGB)), ("gain 1", "float32 or float16")),
    "a batch of one plane": (lambda: fill_batch(out=np.zeros(SIZE, np.float32)), ("3 axes, got float32 (6, 8)",)),
    "a batch of four channels": (
        lambda: fill_batch(out=np.zeros((*SIZE, 4), np.float32)), ("3 channels of 6 x 8, got 4 of 6 x 8",)
    ),
    "an empty batch": (lambda: fill_batch(out=np.zeros((0, 8, 3), np.float32)), ("got 3 of 0 x 8",)),
    "a batch on itself": (lambda: fill_batch(out=huge((*SIZE, 3), np.float32)), ("must not overlap", "NCHW or NHWC")),
    "a flipped batch": (lambda: fill_batch(out=np.zeros((*SIZE, 3), np.float32)[::-1]), ("must not overlap",)),
    "a batch off its bytes": (lambda: fill_batch(out=misaligned((*SIZE, 3), np.float32)), ("aligned", "numpy.array")),
    "a huge batch": (lambda: fill_batch(out=huge((MOST, 8, 3), np.float32)), ("at most 1048576", "cut")),
    "a batch over its image": (
        lambda: fill_batch(*of_one_memory(((*SIZE, 3), np.uint8), BATCH)), ("must not share memory", "of its own")
    ),
    # logits, masks and maps
    "logits as doubles": (lambda: fill_mask(LOGITS.astype(np.float64)), ("float32 or float16, got float64",)),
    "logits as integers": (lambda: fill_mask(LOGITS.astype(np.int32)), ("float32 or float16, got int32",)),
    "logits with channels first": (lambda: fill_mask(LOGITS.reshape(3, 6, 8)), ("3 x 6 x 8, got 8 x 3 x 6",)),
    "logits in a batch": (lambda: fill_mask(LOGITS[None]), ("3 axes, got float32 (1, 6, 8, 3)",)),
    "flipped logits": (lambda: fill_mask(LOGITS[::-1]), ("must not have negative strides",)),
    "no logits": (lambda: fill_mask(LOGITS[:0]), ("got 3 x 0 x 8",)),
    "logits off their bytes": (lambda: fill_mask(misaligned((*SIZE, 3), np.float32)), ("aligned", "numpy.array")),
    "huge logits": (lambda: fill_mask(huge((MOST, 8, 3), np.float32)), ("at most 1048576", "cut")),
    "a mask of integers": (lambda: fill_mask(mask=np.zeros(SIZE, np.int64)), ("uint8 or uint16, got int64 (6, 8)",)),
    "a mask of bools": (lambda: fill_mask(mask=np.zeros(SIZE, bool)), ("uint8 or uint16, got",)),
    "a transposed mask": (lambda: fill_mask(mask=np.zeros((8, 6), np.uint8)), ("6 x 8, got uint8 (8, 6)",)),
    "a mask, columns first": (lambda: fill_mask(mask=np.zeros(SIZE, np.uint8, "F")), ("side by side", "contiguous")),
    "a mask with channels": (lambda: fill_mask(mask=np.zeros((*SIZE, 1), np.uint8)), ("2 axes, got uint8 (6, 8, 1)",)),
    "a flipped mask": (lambda: fill_mask(mask=np.zeros(SIZE, np.uint8)[::-1]), ("overlapping rows", "contiguous")),
    "a mask of one row": (
        lambda: fill_mask(mask=as_strided(np.zeros(8, np.uint8), SIZE, (0, 1))), ("overlapping rows", "contiguous")
    ),
    "masks of one plane": (
        lambda: fill_mask(mask=as_strided(np.zeros(48, np.uint8), (3, *SIZE), (0, 8, 1)), decision="each"),
        ("overlapping planes", "contiguous"),
    ),
    "an empty mask": (lambda: fill_mask(mask=np.zeros((6, 0), np.uint8)), ("6 x 8, got uint8 (6, 0)",)),
    "a huge mask": (lambda: fill_mask(mask=huge((6, MOST))), ("at most 1048576", "cut")),
    "a mask off its bytes": (lambda: fill_mask(mask=misaligned(SIZE, np.uint16)), ("aligned", "numpy.array")),
    "a mask over its logits": (lambda: fill_mask(*of_one_memory(BATCH, MASK)), ("must not share memory", "of its own")),
    "a map of doubles": (lambda: fill_mask(maps=(np.zeros(SIZE), None)), ("confidence must be float32, got float64",)),
    "a map of another size": (lambda: fill_mask(maps=(None, np.zeros((5, 8), np.float32))), ("margin", "6 x 8, got")),
    "a map over the mask": (
        lambda: (lambda pair: fill_mask(mask=pair[0], maps=(pair[1], None)))(of_one_memory(MASK, (SIZE, np.float32))),
        ("the mask and a map must not share memory",),
    ),
    "one map for both": (
        lambda: (lambda one: fill_mask(maps=(one, one)))(np.zeros(SIZE, np.float32)), ("maps must not share memory",)
    ),
    "257 classes in bytes": (
        lambda: fill_mask(np.zeros((*SIZE, 257), np.float32), channels=257), ("above 255 need a uint16 mask",)
    ),
    # labels and colours
    "labels as integers": (
        lambda: resample(np.zeros(SIZE, np.int64), np.zeros(SIZE, np.uint8)),
        ("both be uint8 or both uint16, got int64 (6, 8) and uint8 (6, 8)",),
    ),
    "labels of another width": (
        lambda: resample(np.zeros(SIZE, np.uint16), np.zeros(SIZE, np.uint8)), ("uint16 (6, 8) and uint8 (6, 8)",)
    ),
    "labels of another size": (
        lambda: resample(np.zeros((6, 9), np.uint8), np.zeros(SIZE, np.uint8)), ("6 x 8, got uint8 (6, 9)",)
    ),
    "labels over their mask": (lambda: resample(*of_one_memory(MASK, MASK)), ("must not share memory",)),
    "float colours": (lambda: paint(colors=np.zeros((3, 3))), ("contiguous uint8 (classes, 3), got float64 (3, 3)",)),
    "four levels per colour": (lambda: paint(colors=np.zeros((3, 4), np.uint8)), ("got uint8 (3, 4)",)),
    "a weight above one": (lambda: paint(weight=257), ("0..256, got 257",)),
    "a weight below none": (lambda: paint(weight=-(2**31)), ("0..256, got -2147483648",)),
    "a picture of another size": (lambda: paint(np.zeros((6, 9, 3), np.uint8)), ("6 x 8, got uint8 (6, 9, 3)",)),
    "colours over the picture": (lambda: (lambda one: paint(one, out=one))(RGB.copy()), ("must not share memory",)),
    "a flipped overlay": (lambda: paint(out=np.zeros((*SIZE, 3), np.uint8)[::-1]), ("6 x 8 pixels side by side",)),
    "an empty overlay": (lambda: paint(mask=np.zeros((0, 8), np.uint8)), ("sides of 1..1048576, got 0 x 8",)),
    # arguments
    "an unknown format": (lambda: preprocessor(pixel_format="cmyk"), ("one of", "cmyk")),
    "an unknown resampling": (lambda: preprocessor(resampling="cubic"), ("cubic",)),
    "an unknown decision": (lambda: decoder(decision="vote"), ("one of argmax", "got vote")),
    "a mirrored resize": (
        lambda: preprocessor(resized_hw=(7, 8), is_mirrored=True), ("keep their size",)
    ),
    "yuyv of odd width": (
        lambda: preprocessor(image_hw=(6, 7), pixel_format="yuyv"), ("width, got 7",)
    ),
    "an offset of -2**31": (
        lambda: preprocessor(offset_yx=(-(2**31), 0)), ("got -2147483648, 0",)
    ),
    "a threshold of two channels": (lambda: decoder(decision="threshold"), ("one channel",)),
    "a short table": (lambda: decoder(table=[1, 2]), ("must hold 3 values, got 2",)),
    "an upsampling by 2**30": (lambda: decoder(upsampling=2**30), ("at most 1048576, got 6 x 8",)),
    "an upsampling by 1": (lambda: decoder(upsampling=1), ("at least 2, or 0 for none, got 1",)),
    "pixels that are not there": (
        lambda: decoder(visible=(0, 0, 6, MOST)), ("6 x 8 from 0, 0 on", "got 6 x 2147483647")
    ),
    "pixels that the input does not show": (
        lambda: decoder(resized_hw=(50, 50), offset_yx=(-100, -100), upsampling=2),
        ("the visible pixels must be", "got 6 x 8 from 0, 0 on"),
    ),
    "no threads": (lambda: core.Threads(0), ("1..1024 threads, got 0",)),
    "2**31 - 1 threads": (lambda: core.Threads(MOST), ("1..1024 threads, got 2147483647",)),
    "an unknown instruction set": (lambda: core.use_target("mmx"), ("that this machine has", "got mmx")),
}  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_the_core_refuses(call: Callable[[], object], words: tuple[str, ...]) -> None:
    with refuses(InputError, *words):
        call()


@pytest.mark.parametrize("side", [0, -1, 2**20 + 1, MOST, -(2**31)])
@pytest.mark.parametrize("field", ["image_hw", "input_hw", "resized_hw", "whole_hw", "labels_hw"])
def test_sizes_that_no_image_has_are_refused(field: str, side: int) -> None:
    for size in ((side, 8), (6, side)):
        with refuses(InputError, "sides of 1..1048576", f"{size[0]} x {size[1]}"):
            core.LabelResampler(**{**RESAMPLER, field: size})


UNTAKEN: dict[str, Callable[[], object]] = {
    "a read-only batch": lambda: fill_batch(out=np.broadcast_to(np.float32(0), (*SIZE, 3))),
    "a read-only mask": lambda: fill_mask(mask=np.broadcast_to(np.uint8(0), SIZE)),
    "a read-only map": lambda: fill_mask(maps=(np.broadcast_to(np.float32(0), SIZE), None)),
    "a read-only overlay": lambda: paint(out=np.broadcast_to(np.uint8(0), (*SIZE, 3))),
    "a list": lambda: fill_batch(RGB.tolist()),
    "text": lambda: fill_batch("image.png"),
    "no image": lambda: fill_batch(None),
    "logits of the other byte order": lambda: fill_mask(LOGITS.astype(">f4")),
    "objects": lambda: fill_mask(LOGITS.astype(object)),
    "a size of three": lambda: preprocessor(image_hw=(6, 8, 3)),
    "a size of 2**31": lambda: preprocessor(image_hw=(2**31, 8)),
    "a size of 2**64": lambda: preprocessor(image_hw=(2**64, 8)),
    "a size in text": lambda: preprocessor(image_hw="68"),
    "a table value of 65536": lambda: decoder(table=[0, 1, 65536]),
    "a table value of -1": lambda: decoder(table=[0, 1, -1]),
    "no threads": lambda: core.LabelResampler(**RESAMPLER).fill(
        np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8), None
    ),
    "a missing argument": lambda: core.Preprocessor(**PLACEMENT),
    "positions": lambda: core.LabelResampler(SIZE, SIZE, SIZE, (0, 0), SIZE, (0, 0), SIZE, (0, 0, *SIZE)),
}


@pytest.mark.parametrize("call", UNTAKEN.values(), ids=UNTAKEN.keys())
def test_what_is_no_such_argument_is_a_type_error(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        call()


def test_arrays_of_a_single_element_along_an_axis_may_have_any_stride() -> None:
    """NumPy gives such axes any stride; they are no reason to refuse, nor to read elsewhere."""
    row = as_strided(np.full(24, 9, np.uint8), (1, 8, 3), (-(2**62), 3, 1))
    out = as_strided(np.zeros(24, np.float32), (1, 8, 3), (2**62, 12, 4))
    size = {"image_hw": (1, 8), "input_hw": (1, 8), "resized_hw": (1, 8)}
    core.Preprocessor(**{**PREPROCESSOR, **size}).fill(row, out, core.Threads(1))
    assert (out == 4.5).all()


# ------------------------------------------------------------------------------------------------ the public functions

OVERLAPPING = {"one value": (0, 0), "one row": (0, 1), "rows of half their width": (4, 1)}


@pytest.mark.parametrize("strides", OVERLAPPING.values(), ids=OVERLAPPING.keys())
def test_outputs_that_overlap_themselves_are_refused(strides: tuple[int, int], semantic_model: Any) -> None:
    spec = SPECS["semantic"]
    logits, geometry = np.zeros((1, 3, 24, 32), np.float32), Geometry.place(SIZE, spec.input)
    words = ("out must not overlap itself", "got strides", "numpy.empty")
    mask = as_strided(np.zeros(100, np.uint8), SIZE, strides)
    with refuses(InputError, *words):
        postprocess(logits, [geometry], spec, out=[mask])
    with Segmenter.open(semantic_model) as segmenter, refuses(InputError, *words):
        segmenter(RGB, out=mask)
    values = as_strided(np.zeros(4000, np.float32), SIZE, tuple(4 * stride for stride in strides))
    for stage in (confidence, margin):
        with refuses(InputError, *words):
            stage(logits, [geometry], spec, out=[values])
    batch = as_strided(np.zeros(9000, np.float32), (1, 3, 24, 32), (0, 4, *(4 * stride for stride in strides)))
    with refuses(InputError, *words):
        preprocess([RGB], spec, out=batch)


def test_outputs_that_share_memory_with_what_is_read_are_refused(semantic_model: Any) -> None:
    memory = np.zeros(3 * 24 * 32 * 4, np.uint8)
    image = memory[-24 * 32 * 3 :].reshape(24, 32, 3)
    spec = SPECS["semantic"]
    with refuses(InputError, "out must not share memory with an image", "allocate it by itself"):
        preprocess([image], spec, out=memory.view(np.float32).reshape(1, 3, 24, 32))
    mask = memory[-24 * 32 :].reshape(24, 32)
    with Segmenter.open(semantic_model) as segmenter, refuses(InputError, "must not share memory with an image"):
        segmenter(image, out=mask)
    logits, geometry = memory.view(np.float32).reshape(1, 3, 24, 32), Geometry.place((24, 32), spec.input)
    with refuses(InputError, "out must not share memory with the network's output", "allocate it by itself"):
        postprocess(logits, [geometry], spec, out=[mask])
    for stage in (confidence, margin):
        with refuses(InputError, "out must not share memory with the network's output"):
            stage(logits, [geometry], spec, out=[logits[0, 0]])
    with refuses(InputError, "out must hold arrays that do not overlap", "allocate one per image"):
        postprocess(np.zeros((2, 3, 24, 32), np.float32), [geometry] * 2, spec, out=[mask, mask])


def test_outputs_of_another_dtype_order_or_that_are_read_only_are_refused() -> None:
    for spec in (make_spec(), make_spec(layout="NHWC")):
        shape = (1, 3, 24, 32) if spec.input.layout == "NCHW" else (1, 24, 32, 3)
        other = (1, 24, 32, 3) if spec.input.layout == "NCHW" else (1, 3, 24, 32)
        words = (f"out must be a writable float32 array of shape {shape}", "got")
        for out in (np.zeros(shape), np.zeros(other, np.float32), np.broadcast_to(np.float32(0), shape)):
            with refuses(InputError, *words):
                preprocess([RGB], spec, out=out)


@pytest.mark.parametrize("count", [2**20 + 1, MOST, 2**31, 2**40], ids=str)
def test_arrays_of_huge_sides_are_refused_by_the_public_functions(count: int, semantic_model: Any) -> None:
    image = as_strided(np.zeros(3, np.uint8), (count, 1, 3), (0, 3, 1))
    with refuses(InputError, "sides of at most 1048576", "got uint8", "cut it"):
        preprocess([image], SPECS["semantic"])
    with Segmenter.open(semantic_model) as segmenter, refuses(InputError, "sides of at most 1048576"):
        segmenter(image)
    logits = as_strided(np.zeros(1, np.float32), (1, 3, count, 1), (0, 0, 0, 4))
    with refuses(InputError, "sides of at most 1048576", "got shape"):
        postprocess(logits, [Geometry.place(SIZE, SPECS["semantic"].input)], SPECS["semantic"])


# ------------------------------------------------------------------------------------------------ threads and processes

LARGE: dict[str, Any] = {"image_hw": (512, 512), "input_hw": (512, 512), "resized_hw": (512, 512)}


def in_a_fork(call: Callable[[], bool]) -> int:
    """Call in a forked process and return its exit status: 0 if the call returned True, -SIGKILL if it hung."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of threads, which is what is tested
        child = os.fork()
    if child == 0:
        os._exit(0 if call() else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, 9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_process_computes_without_the_threads_of_its_parent(rng: np.random.Generator) -> None:
    """Workers that are just waking up while the process forks must not leave a lock behind."""
    image = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    plan = core.Preprocessor(**{**PREPROCESSOR, **LARGE})
    for _ in range(30):
        threads, out = [core.Threads(4)], np.zeros((512, 512, 3), np.float32)
        plan.fill(image, out, threads[0])

        def child(threads: list[Any] = threads) -> bool:
            again = np.zeros((512, 512, 3), np.float32)
            plan.fill(image, again, threads[0])
            threads.clear()  # which ends a pool whose threads are not in this process
            return bool((again == image * np.float32(0.5)).all())

        assert in_a_fork(child) == 0
        plan.fill(image, out, threads[0])
        assert (out == image * np.float32(0.5)).all()
