"""Segmenters on the fake GPU, beside those of the host, and pictures for both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
from fake_network import FakeDeviceBackend
from models import SPECS, save_model
from numpy.typing import NDArray

from seginfer import ModelSpec, Segmentation, Segmenter
from seginfer._inputs.formats import PixelFormat, YuvLayout, even, image_shape, parts_of
from seginfer._pipelines.gpu import GpuPipeline

Image = NDArray[np.uint8]
SIZES = [(24, 32), (61, 50), (9, 100), (1, 1), (48, 20)]


def on_gpu(backend: FakeDeviceBackend, spec: ModelSpec = SPECS["semantic"], **options: Any) -> Segmenter:
    return Segmenter(spec, backend, pixels="cuda", threads=1, **options)


def pipeline_of(segmenter: Segmenter) -> GpuPipeline:
    assert isinstance(segmenter.pipeline, GpuPipeline)
    return segmenter.pipeline


def picture(size: tuple[int, int], color: PixelFormat = "rgb", seed: int = 0) -> Image:
    """Return noise, with a pitch for every other seed."""
    shape = image_shape(even(size) if parts_of(color)[0] in get_args(YuvLayout) else size, color)
    pixels = np.random.default_rng(seed).integers(0, 256, (shape[0], shape[1] + seed % 2 * 6, *shape[2:]), np.uint8)
    return pixels[:, : shape[1]]


def assert_same(found: Segmentation, expected: Segmentation) -> None:
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.dtype == expected.labels.dtype
    assert (found.margin is None, found.confidence is None) == (expected.margin is None, expected.confidence is None)
    if expected.margin is not None and expected.confidence is not None:
        np.testing.assert_array_equal(found.margin, expected.margin)
        assert found.confidence is not None
        np.testing.assert_allclose(found.confidence, expected.confidence, rtol=0, atol=1e-6)


@contextmanager
def both(tmp_path: Path, spec: ModelSpec, color: Any = None, **options: Any) -> Iterator[tuple[Segmenter, Segmenter]]:
    """Open one network on the fake GPU and on the host."""
    path = save_model(tmp_path / "m.onnx", spec)
    backend = FakeDeviceBackend(path, (spec.output.name,), **options)
    with (
        on_gpu(backend, spec, color=color) as fake,
        Segmenter.open(path, device="cpu", color=color, threads=1) as host,
    ):
        yield fake, host
    assert not backend.opened
    assert pipeline_of(fake).gpu.live_buffers == 0
