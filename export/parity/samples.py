"""Synthetic pictures for exports without images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seginfer._spec.model_spec import InputSpec

_COUNT = 4


def sample_images(spec: InputSpec, *, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Draw four uint8 pictures, (H, W, 3) or (H, W).

    Their sizes exercise the resize policy. They have smooth colours with edges and grain: a constant picture or pure
    noise would exercise a network less.
    """
    rng = np.random.default_rng(seed)
    return [_picture(rng, size, spec.channels) for size in _sizes(spec)]


def is_synthetic(images: Sequence[NDArray[np.uint8]], spec: InputSpec) -> bool:
    """Return whether all images are among those that `sample_images` draws."""
    sizes = _sizes(spec)
    if len(images) > len(sizes) or any(image.shape[:2] not in sizes for image in images):
        return False
    drawn = [image for seed in (0, 1) for image in sample_images(spec, seed=seed)]
    return all(any(np.array_equal(image, one) for one in drawn) for image in images)


def _sizes(spec: InputSpec) -> list[tuple[int, int]]:
    height, width = spec.size or (6 * max(spec.multiple_of, 16), 8 * max(spec.multiple_of, 16))
    if spec.resize == "pad" and spec.size:  # a fixed padded input takes nothing larger
        scales = ((1.0, 1.0), (0.8, 0.9), (0.5, 1.0), (0.7, 0.3))
    else:
        scales = ((1.0, 1.0), (1.5, 1.4), (0.7, 0.9), (2.0, 1.1))
    return [(max(1, round(height * y)), max(1, round(width * x))) for y, x in scales[:_COUNT]]


def _picture(rng: np.random.Generator, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
    planes = []
    for _ in range(channels):
        fx, fy, phase, edge = rng.uniform(1, 6), rng.uniform(1, 6), rng.uniform(0, 6.28), rng.uniform(0.3, 0.7)
        plane = 96 * np.sin(6.28 * (fx * x + fy * y) + phase) + 80 * (x * fy + y * fx > edge * (fx + fy))
        planes.append(plane + rng.normal(96, 12, size))
    picture: NDArray[np.uint8] = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return picture[:, :, 0] if channels == 1 else picture
