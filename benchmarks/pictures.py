"""Seeded pictures and logits of the benchmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_GRID = (5, 9)  # a picture and a class map of about this many blobs
_NOISE = 1  # grey levels, as of a camera in daylight


def picture(image_hw: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Return an (H, W, 3) uint8 picture of noisy blobs."""
    rng = np.random.default_rng(seed)
    values = smooth(rng.uniform(0, 255, (*_GRID, 3)).astype(np.float32), image_hw)
    noise = rng.integers(-_NOISE, _NOISE + 1, values.shape)
    return np.clip(np.rint(values) + noise, 0, 255).astype(np.uint8)


def smooth_logits(classes: int, logits_hw: tuple[int, int]) -> Floats:
    """Return (1, C, h, w) logits with regions, like a trained network's."""
    coarse = np.random.default_rng(3).standard_normal((*_GRID, classes)).astype(np.float32)
    return np.ascontiguousarray(smooth(coarse, logits_hw).transpose(2, 0, 1)[None])


def noise_logits(classes: int, logits_hw: tuple[int, int]) -> Floats:
    """Return (1, C, h, w) logits without regions, the worst case."""
    return np.random.default_rng(4).standard_normal((1, classes, *logits_hw)).astype(np.float32)


def mixed_share(logits: NDArray[np.floating]) -> float:
    """Return the share of 2 x 2 blocks with several classes.

    Only these need interpolation in the mask step. The share is 6 % to 12 % for the shipped model.

    Args:
        logits: (1, C, h, w).
    """
    low = logits[0].argmax(0)
    corner = low[:-1, :-1]
    is_mixed = (corner != low[1:, :-1]) | (corner != low[:-1, 1:]) | (corner != low[1:, 1:])
    return float(is_mixed.mean())


def smooth(coarse: Floats, size: tuple[int, int]) -> Floats:
    """Enlarge (h, w, C) to `size` by cosine interpolation."""
    rows, cols = (_weights(n, m) for n, m in zip(coarse.shape, size, strict=False))
    enlarged: Floats = np.einsum("yh,xw,hwc->yxc", rows, cols, coarse, optimize=True)
    return enlarged


def _weights(n: int, m: int) -> Floats:
    """Return (m, n) weights of n samples at m positions."""
    position = np.linspace(0, n - 1, m)
    first = np.minimum(position.astype(int), n - 2)
    weight = (1 - np.cos(np.pi * (position - first))) / 2
    weights = np.zeros((m, n), np.float32)
    weights[np.arange(m), first] = 1 - weight
    weights[np.arange(m), first + 1] = weight
    return weights
