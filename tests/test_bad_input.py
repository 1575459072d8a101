"""Ring 4: abuse. A wrong image, buffer or path is a SegInferError of one helpful line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import SPECS
from refusal import BUILTINS, refuses

import seginfer
from seginfer import InputError, MissingFileError, ModelSpec, SegInferError, Segmenter, preprocess, read_model


def test_every_error_is_a_seginfer_error_and_a_builtin() -> None:
    errors = [kind for kind in vars(seginfer).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) == 14
    for kind in errors:
        assert issubclass(kind, SegInferError)
        builtins = {base for base in kind.__mro__ if base.__module__ == "builtins"} - {Exception, BaseException, object}
        assert builtins or kind is SegInferError
    for kind, builtin in BUILTINS.items():
        assert issubclass(kind, builtin)


BAD_IMAGES: dict[str, Any] = {
    "floats": np.zeros((24, 32, 3), np.float32),
    "16 bits": np.zeros((24, 32, 3), np.uint16),
    "bools": np.zeros((24, 32, 3), bool),
    "gray": np.zeros((24, 32), np.uint8),
    "one row": np.zeros(32, np.uint8),
    "no dimension": np.array(0, np.uint8),
    "channels first": np.zeros((3, 24, 32), np.uint8),
    "alpha": np.zeros((24, 32, 4), np.uint8),
    "no height": np.zeros((0, 32, 3), np.uint8),
    "no width": np.zeros((24, 0, 3), np.uint8),
    "nested lists": [[[0, 0, 0]]],
    "a number": 7,
    "none": None,
}


@pytest.mark.parametrize("image", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_bad_image_is_refused_alone_in_a_list_and_in_preprocess(image: Any, semantic_model: Path) -> None:
    good = np.zeros((24, 32, 3), np.uint8)
    with Segmenter.open(semantic_model) as segmenter:
        with refuses(InputError, "image"):
            segmenter(image)
        with refuses(InputError, "image must"):
            segmenter([good, image])
    with refuses(InputError, "image must"):
        preprocess([good, image], SPECS["semantic"])


@pytest.mark.parametrize("images", [[], (), np.zeros((2, 24, 32, 3), np.uint8), {}], ids=repr)
def test_what_is_not_one_or_more_images_is_refused(images: Any, semantic_model: Path) -> None:
    with Segmenter.open(semantic_model) as segmenter, refuses(InputError, "image"):
        segmenter(images)


BAD_BUFFERS: dict[str, Any] = {
    "transposed": np.zeros((32, 24), np.uint8),
    "floats": np.zeros((24, 32), np.float32),
    "with channels": np.zeros((24, 32, 1), np.uint8),
    "read-only": np.broadcast_to(np.uint8(0), (24, 32)),
    "a list": [[0]],
    "a number": 7,
}


@pytest.mark.parametrize("out", BAD_BUFFERS.values(), ids=BAD_BUFFERS.keys())
def test_a_bad_buffer_is_refused(out: Any, semantic_model: Path) -> None:
    image = np.zeros((24, 32, 3), np.uint8)
    with Segmenter.open(semantic_model) as segmenter:
        with refuses(InputError, "out must be a writable uint8 array of shape (24, 32)"):
            segmenter(image, out=out)
        with refuses(InputError, "out must hold 2 arrays"):
            segmenter([image, image], out=[np.zeros((24, 32), np.uint8)])
        with refuses(InputError, "out must hold 1 arrays"):
            segmenter([image], out=7)  # type: ignore[call-overload]


@pytest.mark.parametrize("out", [np.zeros((1, 3, 24, 31), np.float32), np.zeros((1, 3, 24, 32)), [1]], ids=type)
def test_a_bad_batch_buffer_is_refused(out: Any) -> None:
    with refuses(InputError, "out must be a writable float32 array of shape (1, 3, 24, 32)"):
        preprocess([np.zeros((24, 32, 3), np.uint8)], SPECS["semantic"], out=out)


@pytest.mark.parametrize("call", [Segmenter.open, read_model, ModelSpec.load])
def test_a_path_that_does_not_exist_or_is_a_folder_is_refused(call: Callable[[Path], Any], tmp_path: Path) -> None:
    with refuses(MissingFileError, "missing.onnx", "check the path"):
        call(tmp_path / "missing.onnx")
    with pytest.raises(SegInferError, match=tmp_path.name):
        call(tmp_path)
