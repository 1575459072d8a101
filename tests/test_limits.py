"""Limits: what would take minutes or gigabytes is refused at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make_spec
from refusal import refuses

from seginfer import ClassSpec, Geometry, InputError, ModelSpec, Segmenter, SpecError


def test_tiles_without_number_are_refused() -> None:
    spec = make_spec(size=(8, 8), resize="tile", tile_margin=3, multiple_of=1).input
    assert len(Geometry.place((60, 90), spec).tiles(spec)) == 30 * 45
    start = time.process_time()
    with refuses(InputError, "(10000, 10000)", "tiles", "larger tiles"):
        Geometry.place((10_000, 10_000), spec).tiles(spec)
    assert time.process_time() - start < 1


def test_class_names_without_number_are_refused() -> None:
    start = time.process_time()
    with refuses(SpecError, "classes.names", "65535", "1000000"):
        ClassSpec(tuple(map(str, range(1_000_000))))
    assert time.process_time() - start < 3


def test_a_huge_file_is_no_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    with open(path, "wb") as file:
        file.truncate(10 << 30)  # sparse
    with refuses(SpecError, "spec.json", "more than a spec can have"):
        ModelSpec.load(path)


@pytest.mark.parametrize("size", ["x", (-1, 5), (0, 0), (24,), (24, 32, 3), (24.0, 32), (24, 1 << 30), 24])
def test_a_size_of_images_that_is_none_is_refused(size: Any, semantic_model: Path) -> None:
    with refuses(InputError, "image_hw", "(height, width)"):
        Segmenter.open(semantic_model, device="cpu", image_hw=size)
    with Segmenter.open(semantic_model, device="cpu", image_hw=(48, 64)) as segmenter:
        assert segmenter(np.zeros((48, 64, 3), np.uint8)).mask.shape == (48, 64)
