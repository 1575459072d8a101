"""The way of a steady frame: how many functions of ours it calls, in how many files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from fake_network import FakeDeviceBackend
from fake_pipelines import on_gpu, picture
from models import SPECS

import seginfer
from seginfer import Segmenter, _native

ROOT = str(Path(seginfer.__file__).parent)


def calls_of(work: Callable[[], object]) -> list[tuple[str, str]]:
    """Return (file, function) of every Python function under seginfer/ that runs, lambdas and properties included."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            calls.append((frame.f_code.co_filename, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def files_of(calls: list[tuple[str, str]]) -> set[str]:
    return {file for file, _ in calls}


@pytest.mark.skipif(_native.core is None, reason="no compiled core")
def test_a_steady_frame_on_the_cpu_is_short(semantic_model: Path) -> None:
    with Segmenter.open(semantic_model, device="cpu", threads=1) as segmenter:
        image = picture((48, 64))
        segmenter(image)
        calls = calls_of(lambda: segmenter(image))
    assert 0 < len(calls) <= 36, calls
    assert len(files_of(calls)) <= 10, files_of(calls)


@pytest.mark.skipif(_native.core is None, reason="no compiled core")
@pytest.mark.parametrize("name", sorted(SPECS))
def test_a_steady_frame_derives_nothing_from_spec_or_geometry(name: str, make_model: Callable[..., Path]) -> None:
    spec = SPECS[name]
    with Segmenter.open(make_model(spec), device="cpu", threads=1) as segmenter:
        image = picture((48, 64), segmenter.color)
        segmenter(image)
        files = files_of(calls_of(lambda: segmenter(image)))
    derived = [file for file in files if "/_geometry/" in file or ("/_spec/" in file and spec.output.kind != "labels")]
    assert not derived


@pytest.mark.usefixtures("world")
def test_a_steady_frame_on_a_gpu_is_short(semantic_model: Path) -> None:
    backend: Any = FakeDeviceBackend(semantic_model, ("logits",))
    with on_gpu(backend) as segmenter:
        image = np.ascontiguousarray(picture((48, 64)))
        segmenter(image)
        calls = calls_of(lambda: segmenter(image))
    assert 0 < len(calls) <= 60, calls
    assert not [file for file in files_of(calls) if "/_geometry/" in file or "/_spec/" in file]
