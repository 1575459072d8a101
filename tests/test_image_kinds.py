"""Whatever holds an image is taken: arrays of any stride, files, images of Pillow, tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from fake_pipelines import picture
from PIL import Image as Pillow
from refusal import refuses

from seginfer import InputError, MissingFileError, Segmenter, preprocess
from seginfer._inputs.convert import as_array
from seginfer._inputs.formats import PixelFormat, PixelLayout

RGB = picture((40, 60))


def kinds(folder: Path) -> dict[str, Any]:
    """Return one image in every form."""
    path = folder / "image.png"
    cv2.imwrite(str(path), RGB[..., ::-1])
    return {
        "a view with another stride": np.repeat(RGB, 2, 1)[:, ::2],
        "flipped twice": RGB[::-1][::-1],
        "flipped channels": np.ascontiguousarray(RGB[..., ::-1])[..., ::-1],
        "a path": path,
        "a name": str(path),
        "Pillow": Pillow.fromarray(RGB),
        "a tensor": torch.from_numpy(RGB.copy()),
        "a tensor, channels first": torch.from_numpy(RGB.copy()).permute(2, 0, 1),
    }


@pytest.mark.parametrize("number", range(8))
def test_every_form_of_an_image_gives_the_same_mask(number: int, semantic_model: Path, tmp_path: Path) -> None:
    image = list(kinds(tmp_path).values())[number]
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        expected = segmenter(RGB).mask
        for result in (segmenter(image), *segmenter([image, RGB])):
            np.testing.assert_array_equal(result.mask, expected)


@pytest.mark.parametrize("color", [c for c in get_args(PixelLayout) if c in ("rgb", "bgr", "rgba", "bgra", "gray")])
def test_files_and_pillow_become_the_format_of_the_segmenter(color: PixelFormat, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), RGB[..., ::-1])
    codes: dict[Any, int] = {"bgr": cv2.COLOR_RGB2BGR, "rgba": cv2.COLOR_RGB2RGBA, "bgra": cv2.COLOR_RGB2BGRA}
    expected = RGB if color == "rgb" else None if color == "gray" else cv2.cvtColor(RGB, codes[color])
    for image in (path, Pillow.fromarray(RGB)):
        found = as_array(image, color)
        if expected is None:
            assert found.shape == RGB.shape[:2]
            assert abs(found.astype(int) - cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)).max() <= 1
        else:
            np.testing.assert_array_equal(found, expected)
        assert found.flags.c_contiguous


def test_forms_that_do_not_fit_are_refused(semantic_model: Path, tmp_path: Path) -> None:
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        with refuses(MissingFileError, "none.png"):
            segmenter(tmp_path / "none.png")
        with refuses(InputError, "host memory", ".cpu()"):
            segmenter(torch.zeros(24, 32, 3, dtype=torch.uint8, device="meta"))
        with refuses(InputError, "uint8"):
            segmenter(torch.zeros(24, 32, 3))
    with Segmenter.open(semantic_model, device="cpu", color="nv12") as segmenter, refuses(InputError, "nv12"):
        segmenter(Pillow.fromarray(RGB))


def test_one_image_needs_no_list(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        one, (geometry,) = preprocess(RGB, segmenter.spec)
        listed, (other,) = preprocess([RGB], segmenter.spec)
    np.testing.assert_array_equal(one, listed)
    assert geometry == other


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_images_of_pillow_with_more_than_8_bits_are_refused(mode: str, semantic_model: Path) -> None:
    """Pillow would cut their values at 255 without a word."""
    values = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    image = Pillow.fromarray(RGB[..., 0].astype(values))
    assert image.mode == mode
    with Segmenter.open(semantic_model, device="cpu") as segmenter, refuses(InputError, mode, "8 bits"):
        segmenter(image)


def test_several_pictures_and_cut_files_of_pillow_are_refused(semantic_model: Path, tmp_path: Path) -> None:
    frames = [Pillow.fromarray(np.roll(RGB, i, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-600])
    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        with refuses(InputError, "3 pictures"), Pillow.open(tmp_path / "a.gif") as image:
            segmenter(image)
        with refuses(InputError, "cannot be read"), Pillow.open(tmp_path / "cut.png") as image:
            segmenter(image)


def test_whatever_has_the_interface_of_an_array_is_taken(semantic_model: Path) -> None:
    class Holder:
        __array_interface__ = RGB.__array_interface__

    with Segmenter.open(semantic_model, device="cpu") as segmenter:
        np.testing.assert_array_equal(segmenter(Holder()).mask, segmenter(RGB).mask)
        with refuses(InputError, "a\\x00b"):
            segmenter("a\0b")
