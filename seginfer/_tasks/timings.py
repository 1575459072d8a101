"""Timings: wall-clock time of the stages of a call."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """Wall-clock milliseconds of the stages of a call.

    Images of one batch share them. Those of tiles are added up.
    """

    preprocess_ms: float
    infer_ms: float
    postprocess_ms: float
    batch_size: int = 1
    """Images, or tiles, that went through the network together. The most, if there were several calls."""

    @property
    def total_ms(self) -> float:
        """The whole call."""
        return self.preprocess_ms + self.infer_ms + self.postprocess_ms

    def __add__(self, other: Timings) -> Timings:
        """Return the time of both, one after the other."""
        return Timings(
            self.preprocess_ms + other.preprocess_ms,
            self.infer_ms + other.infer_ms,
            self.postprocess_ms + other.postprocess_ms,
            max(self.batch_size, other.batch_size),
        )
