"""Sampling positions and weights that map image pixels to output cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..._geometry.geometry import Geometry, Size
from ..._geometry.tiles import window_of
from ..._reference.taps import Taps, compose, crop_taps, is_aligned, mask_taps, nearest_labels, upsampling_taps
from ..._spec.model_spec import ModelSpec


def taps_of(geometry: Geometry, logits_hw: Size, spec: ModelSpec) -> tuple[Taps, Taps]:
    """Return the row and column taps of the visible image pixels.

    They index the logits of the graph.

    Those of a tile are the taps of one pass over the whole image, moved.
    """
    window = window_of(geometry, logits_hw, spec)
    rows, cols = (
        crop_taps(taps, window.corner_yx[axis], logits_hw[axis])
        for axis, taps in enumerate(_graph_taps(window.whole, window.output_hw, spec))
    )
    return rows, cols


def _graph_taps(geometry: Geometry, logits_hw: Size, spec: ModelSpec) -> tuple[Taps, Taps]:
    upsample = spec.output.upsample
    if upsample is None:
        return _placed_taps(geometry, logits_hw, spec.output.align_corners)
    upsampled_hw = (logits_hw[0] * upsample.factor, logits_hw[1] * upsample.factor)
    rows, cols = _placed_taps(geometry, upsampled_hw, spec.output.align_corners)
    inner = [
        upsampling_taps(n, m, align_corners=upsample.align_corners)
        for n, m in zip(logits_hw, upsampled_hw, strict=True)
    ]
    return compose(rows, inner[0]), compose(cols, inner[1])


def _placed_taps(geometry: Geometry, logits_hw: Size, align_corners: bool) -> tuple[Taps, Taps]:
    """Return the taps into logits that cover the network's input."""
    placed = list(zip(geometry.axes, logits_hw, strict=True))
    aligned = all(is_aligned(axis, cells, align_corners) for axis, cells in placed)
    real = np.float32 if aligned else np.float64
    rows, cols = (mask_taps(axis, cells, align_corners=align_corners, real=real) for axis, cells in placed)
    return rows, cols


def label_cells(geometry: Geometry, labels_hw: Size, spec: ModelSpec) -> list[NDArray[np.intp]]:
    """Return rows and columns of the label cells under visible pixels."""
    window = window_of(geometry, labels_hw, spec)
    return [
        nearest_labels(axis, cells) - corner
        for axis, cells, corner in zip(window.whole.axes, window.output_hw, window.corner_yx, strict=True)
    ]
