"""Signature of a tensor that a graph takes or yields."""

from __future__ import annotations

from dataclasses import dataclass

from .model_spec import Layout


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and element type; a dimension is a number or, if it varies, a name."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def nchw(self, layout: Layout) -> tuple[int | str, ...]:
        """Return the shape of an image tensor as (N, C, H, W)."""
        return self.shape if layout == "NCHW" else tuple(self.shape[i] for i in (0, 3, 1, 2))
