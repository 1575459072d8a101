"""The soccer example renders labelled frames and trains on them."""

from __future__ import annotations

import subprocess
import sys
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from picture_files import read_picture

EXAMPLE = Path(__file__).parent.parent / "examples" / "soccer"

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(find_spec("dm_control") is None, reason="needs dm_control: pip install 'seginfer[sim]'"),
    pytest.mark.skipif(find_library("OSMesa") is None, reason="needs Debian's libosmesa6"),
]

RENDER = """
import sys, pathlib, dataclasses
import dataset, render
split = dataclasses.replace(dataset.TEST, num_matches=1, frames_per_match=4)
render.render_split(split, pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of the test split, rendered in a process of their own: Mesa and torch each bring an LLVM."""
    folder = tmp_path_factory.mktemp("soccer")
    command = [sys.executable, "-c", RENDER, str(folder)]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "test"


def test_rendered_frames_are_labelled(frames: Path) -> None:
    masks = [read_picture(path, cv2.IMREAD_UNCHANGED) for path in sorted(frames.glob("*_mask.png"))]
    images = [read_picture(path) for path in sorted(frames.glob("????.png"))]
    assert [mask.shape for mask in masks] == [(360, 640)] * 4
    assert [image.shape for image in images] == [(360, 640, 3)] * 4
    shares = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=8) / (4 * 360 * 640)
    assert len(shares) == 8
    assert shares[1] > 0.2  # the field
    assert (shares[[1, 2, 7]] > 0).all()
    image, mask = np.concatenate(images), np.concatenate(masks)
    green = image[..., 1] > image[..., 0]
    assert green[mask == 1].mean() > 0.95  # labels lie on their pixels: the field is green, its lines are white
    assert (image[..., 0][mask == 7] > 0.6 * image[..., 1][mask == 7]).mean() > 0.9


def test_the_shipped_model_holds_its_promise_on_fresh_frames(frames: Path) -> None:
    from seginfer import Segmenter
    from seginfer._media.images import read_image
    from seginfer.assets import SOCCER

    agreement = []
    with Segmenter.open(SOCCER / "pitch.onnx") as segmenter:
        for path in sorted(frames.glob("????.png")):
            truth = read_picture(path.with_name(f"{path.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
            agreement.append((segmenter(read_image(path)).mask == truth).mean())
    assert np.mean(agreement) > 0.95
