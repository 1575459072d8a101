"""Certificate: the measured comparison of an exported pipeline with PyTorch, and the error when it fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .._errors import ExportError
from .schema import coerce_fields

Stage = Literal["preprocess", "network", "postprocess"]


@dataclass(frozen=True)
class FlipCount:
    """How often labels differ from PyTorch's among pixels whose margin lies in one range."""

    margin_below: float | None
    """End of the range, in the output's unit; it begins where the one before ends. None: it has no end."""
    pixels: int
    flipped: int


@dataclass(frozen=True)
class Certificate:
    """What was compared with PyTorch's own pipeline, and how far the two are apart.

    Pixels are counted at the images' own sizes. A pixel is *decisive* when PyTorch's margin between its two best
    classes exceeds twice the largest logit error (plus the rounding of the interpolation itself). Interpolation is a
    convex combination, so no such errors can change the class of a decisive pixel: where it does change, the pipeline
    is wrong.
    """

    passed: bool
    """Every limit of the precision was met."""
    stage: Stage | None
    """The first stage that diverged; None if none did."""
    precision: str
    """Precision of the exported graph, such as "fp32"."""
    images: int
    """How many images were compared."""
    pixels: int
    """How many mask pixels were compared."""
    batch_max_error: float
    """Largest difference of the preprocessed tensors, in the network's input units."""
    network_max_error: float
    """Largest difference of the network's outputs for one and the same input."""
    logit_max_error: float
    """Largest difference of the network's outputs, each pipeline with its own preprocessing."""
    logit_p999_error: float
    """99.9th percentile of that difference within one image; the worst image."""
    pixel_agreement: float
    """Share of all pixels with the same label, 0..1."""
    decisive_agreement: float
    """Share of decisive pixels with the same label, 0..1; must be exactly 1 in fp32. An output of labels has no
    margins: there every pixel counts, and near-ties may flip in one of a thousand."""
    undecided_share: float
    """Share of pixels that are not decisive, 0..1."""
    mean_iou: float
    """Intersection over union with PyTorch's labels, averaged over the classes present, 0..1."""
    rounding_agreement: float | None = None
    """Share of pixels on which PyTorch agrees with itself in float64, 0..1; measured, and allowed for, only where a
    network's own rounding exceeds the limits, as unpooling by the places of maxima does. None elsewhere."""
    flips: tuple[FlipCount, ...] = ()
    """Pixels by PyTorch's margin, narrowest first: rounding flips some of the narrowest, and a wrong pipeline others
    too. Empty for an output of labels, which have no margins."""
    pipeline_sha256: str = ""
    """Hash of the graph and of how the spec feeds and reads it: the pipeline that the numbers belong to."""
    runtime: str = ""
    """What ran the exported graph, such as "onnxruntime 1.23.2 on cpu"."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that took part."""

    def __post_init__(self) -> None:
        coerce_fields(self, "certificate")

    def summary(self) -> str:
        """Return the result in one line."""
        verdict = "passed" if self.passed else f"FAILED at {self.stage}"
        own = self.rounding_agreement
        with_itself = "" if own is None else f" (PyTorch agrees with itself in float64 on {own:.4%})"
        return (
            f"parity {verdict}: decisive pixels {self.decisive_agreement:.4%}, "
            f"all pixels {self.pixel_agreement:.4%}{with_itself}, "
            f"logit error max {self.logit_max_error:.2e}, undecided {self.undecided_share:.4%}, "
            f"mIoU {self.mean_iou:.6f}, {self.images} images"
        )


class ParityError(ExportError):
    """An exported pipeline disagrees with PyTorch.

    Attributes:
        certificate: the measured comparison, with `stage` naming the first stage that diverged.
    """

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate
