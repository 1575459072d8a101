"""Scores of several images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError
from ._labels import Ids


def flicker(before: Ids, mask: Ids, after: Ids) -> float:
    """Return the share of pixels whose class differs in one frame of three alone, 0..1.

    Motion rarely does that, and an undecided network often.

    Raises:
        InputError: if shapes differ.
    """
    if not before.shape == mask.shape == after.shape:
        raise InputError(f"expected masks of one size, got {before.shape}, {mask.shape} and {after.shape}")
    return float(((before == after) & (mask != before)).mean())


class Interval(NamedTuple):
    """An interval of a score."""

    low: float
    high: float


def bootstrap(
    samples: NDArray[Any],
    score: Callable[[NDArray[Any]], float],
    *,
    level: float = 0.95,
    repeats: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a score (Efron and Tibshirani, 1993).

    Args:
        samples: (N, ...) additive counts of one image each.
        score: of the sum of samples, for example `lambda counts: Confusion(counts).mean_iou`.
        level: share of the distribution inside of the interval.
        repeats: number of resamples.
        seed: of the resamples.

    Raises:
        InputError: if there are no samples.
    """
    if not len(samples):
        raise InputError("expected samples of one image at least, got none")
    random = np.random.default_rng(seed)
    # The sum of a resample is a sum weighted by how often each image was drawn.
    draws = random.multinomial(len(samples), np.full(len(samples), 1 / len(samples)), size=repeats)
    scores = [score(np.tensordot(draw, samples, 1)) for draw in draws]
    low, high = np.nanquantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
