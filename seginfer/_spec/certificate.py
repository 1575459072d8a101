"""Certificate: measured agreement of an exported pipeline with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .._errors import ExportError
from .schema import coerce_fields

Stage = Literal["preprocess", "network", "postprocess"]


@dataclass(frozen=True)
class FlipCount:
    """Flipped labels among the pixels in one range of margins."""

    margin_below: float | None
    """End of the range in the unit of the output, or None for no end. The range starts at the end of the one before."""
    pixels: int
    """Number of pixels in the range."""
    flipped: int
    """How many of them have another label than in PyTorch."""


@dataclass(frozen=True)
class Certificate:
    """Differences between an exported pipeline and PyTorch's own pipeline.

    Pixels are counted at the sizes of the images. A pixel is *decisive* if the margin between the two best classes of
    PyTorch exceeds twice the largest logit error, plus the rounding of the interpolation. Interpolation is a convex
    combination. So logit errors cannot change the class of a decisive pixel, and if one changes, the pipeline is wrong.
    """

    passed: bool
    """Whether all limits of the precision are met."""
    stage: Stage | None
    """First stage that diverges, or None."""
    precision: str
    """Precision of the exported graph, such as "fp32"."""
    images: int
    """Number of images."""
    pixels: int
    """Number of mask pixels."""
    batch_max_error: float
    """Largest difference of the preprocessed tensors, in the unit of the network's input."""
    network_max_error: float
    """Largest difference of the network's outputs for the same input."""
    logit_max_error: float
    """Largest difference of the network's outputs, each pipeline with its own preprocessing."""
    logit_p999_error: float
    """99.9th percentile of that difference within an image, of the worst image."""
    pixel_agreement: float
    """Share of all pixels with the same label, 0..1."""
    decisive_agreement: float
    """Share of decisive pixels with the same label, 0..1. It must be exactly 1 in fp32.

    An output of labels has no margins. Then all pixels count, and one of a thousand may flip at a near-tie.
    """
    undecided_share: float
    """Share of pixels that are not decisive, 0..1."""
    mean_iou: float
    """Mean intersection over union with PyTorch's labels over the classes present, 0..1."""
    rounding_agreement: float | None = None
    """Share of pixels with the same label in PyTorch's float32 and float64, 0..1.

    It is measured only if float32 rounding in the network itself exceeds the limits, as in unpooling by the indices of
    maxima. The limits are then relative to it. None otherwise.
    """
    flips: tuple[FlipCount, ...] = ()
    """Flipped pixels by PyTorch's margin, in rising order. Empty for an output of labels.

    Rounding flips pixels of narrow margins. A wrong pipeline flips others too.
    """
    pipeline_sha256: str = ""
    """Hash of the certified pipeline: the graph, and the spec that feeds and reads it."""
    runtime: str = ""
    """Backend that ran the exported graph, such as "onnxruntime 1.23.2 on cpu"."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages in use."""

    def __post_init__(self) -> None:
        coerce_fields(self, "certificate")

    def summary(self) -> str:
        """Return the result in one line."""
        verdict = "passed" if self.passed else f"FAILED at {self.stage}"
        own = self.rounding_agreement
        with_itself = "" if own is None else f" (PyTorch float32 and float64 agree on {own:.4%})"
        return (
            f"parity {verdict}: decisive pixels {self.decisive_agreement:.4%}, "
            f"all pixels {self.pixel_agreement:.4%}{with_itself}, "
            f"logit error max {self.logit_max_error:.2e}, undecided {self.undecided_share:.4%}, "
            f"mIoU {self.mean_iou:.6f}, {self.images} images"
        )


class ParityError(ExportError):
    """Exported pipeline that disagrees with PyTorch.

    Attributes:
        certificate: the measured differences. `stage` is the first stage that diverges.
    """

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate
