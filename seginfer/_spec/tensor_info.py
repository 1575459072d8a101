"""TensorInfo: input or output of a graph."""

from __future__ import annotations

from dataclasses import dataclass

from .model_spec import Layout

UNKNOWN_SHAPE = ("...",)


@dataclass(frozen=True)
class TensorInfo:
    """Input or output of a graph."""

    name: str
    shape: tuple[int | str, ...]
    """A dimension that varies is a name. UNKNOWN_SHAPE is one that the file does not state."""
    dtype: str
    """NumPy's name, or "unknown"."""

    def nchw(self, layout: Layout) -> tuple[int | str, ...]:
        """Return the shape of an image tensor as (N, C, H, W)."""
        return self.shape if layout == "NCHW" else tuple(self.shape[i] for i in (0, 3, 1, 2))
