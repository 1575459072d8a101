"""Placement of an image along one axis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One axis of a placed image, in whole samples.

    Images have two axes, rows and columns. Sample positions along one do not depend on the other.
    """

    image: int
    """Number of image samples."""
    resized: int
    """Number of samples after the resize."""
    input: int
    """Number of samples of the network input."""
    offset: int
    """Position of the resized image in the input. Negative if the image is cut."""
    core: tuple[int, int] | None = None
    """First image sample and number of samples that a tile writes. None without tiles."""

    @property
    def content(self) -> tuple[int, int]:
        """First input sample of the image, and their number."""
        start = min(max(0, self.offset), self.input)
        return start, max(0, min(self.input, self.offset + self.resized) - start)

    @property
    def visible(self) -> tuple[int, int]:
        """First visible image sample, and number of visible samples.

        Sample i is visible where 0 <= (i + 1/2) * resized / image + offset < input.
        """
        if self.core:
            return self.core
        before, after = 2 * self.offset * self.image, 2 * (self.input - self.offset) * self.image
        first = min(self.image, max(0, _ceil_div(-before - self.resized, 2 * self.resized)))
        end = min(self.image, _ceil_div(after - self.resized, 2 * self.resized))
        return first, max(0, end - first)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
