"""ONNX Runtime's CUDA provider says what its CPU provider says."""

from __future__ import annotations

import numpy as np
import pytest
from shared import need_cuda_provider

from seginfer import Segmenter
from seginfer._media.video import VideoReader
from seginfer.assets import SOCCER


@pytest.mark.needs_cuda
def test_masks_on_cuda_are_those_on_the_cpu() -> None:
    need_cuda_provider()
    pytest.importorskip("av")
    frames = list(VideoReader(SOCCER / "clip.webm"))[::8]
    with (
        Segmenter.open(SOCCER / "pitch.onnx", device="cuda") as cuda,
        Segmenter.open(SOCCER / "pitch.onnx", device="cpu") as cpu,
    ):
        assert cuda.backend.device == "cuda:0"
        on_cuda, on_cpu = (np.stack([result.mask for result in segmenter(frames)]) for segmenter in (cuda, cpu))
    assert (on_cuda == on_cpu).mean() >= 0.9999
