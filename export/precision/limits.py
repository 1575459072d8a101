"""Limits of a parity certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace

from seginfer._spec.certificate import Certificate

# Two pipelines that round independently differ in single cases, so a pipeline may lose a few times as much agreement as
# PyTorch's own rounding does on the same images.
_ROUNDING_FACTOR = 4
# Below these, rounding decides too much for a comparison to prove anything.
_LEAST_AGREEMENT = 0.99
_LEAST_MEAN_IOU = 0.95


@dataclass(frozen=True)
class Limits:
    """Largest differences from PyTorch that an export may have."""

    network_share: float
    """Error of an output value, as a share of the network's largest value."""
    channel_share: float
    """Error of an output value, as a share of its channel's largest value, so that a faint class counts too."""
    channel_floor: float
    """Share of the network's largest value below which an error is rounding in any channel."""
    undecided_share: float
    """Share of pixels that need not be decisive. A comparison that decides less proves nothing."""
    pixel_agreement: float
    """Share of all pixels that must agree. If fewer do, the measured errors are more than rounding."""
    mean_iou: float
    """Agreement averaged over classes, so that a rare class counts too."""

    def loosen(self, noise_floor: Certificate) -> Limits:
        """Return limits that allow a few times PyTorch's own rounding.

        Errors of values are not limited by the result, nor is the share of undecided pixels: a maximum that moves to
        another place is a large error.
        """
        return replace(
            self,
            undecided_share=1,
            pixel_agreement=_loosen_share(self.pixel_agreement, noise_floor.pixel_agreement, _LEAST_AGREEMENT),
            mean_iou=_loosen_share(self.mean_iou, noise_floor.mean_iou, _LEAST_MEAN_IOU),
        )


def _loosen_share(limit: float, own: float, least: float) -> float:
    return min(limit, max(least, 1 - _ROUNDING_FACTOR * (1 - own)))
