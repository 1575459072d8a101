"""Certificate: measured agreement of an exported pipeline with PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from .._errors import ExportError, SpecError
from .schema import check_range, coerce_fields

Stage = Literal["preprocess", "network", "postprocess", "reference"]
"""Stage of a pipeline. "reference": it differs from the user's, and no stage can be told."""


@dataclass(frozen=True)
class FlipCount:
    """Flipped labels among the pixels in one range of margins."""

    margin_below: float | None
    """End of the range in the unit of the output, or None for no end. The range starts at the end of the one before."""
    pixels: int
    """Number of pixels in the range."""
    flipped: int
    """How many of them have another label than in PyTorch."""

    def __post_init__(self) -> None:
        coerce_fields(self, "certificate.flips")
        check_range("certificate.flips", 0, self.pixels, flipped=self.flipped)


@dataclass(frozen=True)
class ImageRecord:
    """Image of a certificate."""

    name: str
    """Name of the file, without its folder."""
    sha256: str
    """Hash of shape and pixels."""


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
    """Versions of the packages in use, and the commit of seginfer if it is known."""
    reference: Literal["spec", "user"] = "spec"
    """Pipeline of the comparison: the one that the spec describes, or the user's own as well."""
    reference_name: str = ""
    """Name of the user's function."""
    reference_agreement: float | None = None
    """Share of all pixels with the label of the user's pipeline, 0..1."""
    reference_undecided_share: float | None = None
    """Share of pixels that are not decisive in the user's pipeline, 0..1. It is 0 if that yields labels."""
    has_module: bool = True
    """Whether the graph was compared with a PyTorch module. If not, only the steps around the graph were compared."""
    finding: str = ""
    """Cause of a failure, as far as it can be told."""
    warnings: tuple[str, ...] = ()
    """Signs of a mistake in the spec, the weights or the images."""
    image_records: tuple[ImageRecord, ...] = ()
    """The images, in order. Empty in older certificates."""
    synthetic: bool | None = None
    """Whether the images were drawn by seginfer. None in older certificates."""
    date: str = ""
    """Time of the comparison in UTC, such as "2026-11-28T10:15:00+00:00"."""
    host: str = ""
    """System and processor of the comparison."""
    labels_mean_iou: float | None = None
    """Mean intersection over union with the user's labels, 0..1. None without labels."""

    def __post_init__(self) -> None:
        coerce_fields(self, "certificate")
        shares = [name for name in vars(self) if name.endswith(("_agreement", "_share", "mean_iou"))]
        errors = [name for name in vars(self) if name.endswith("_error")]
        check_range("certificate", 0, 1, **{name: getattr(self, name) for name in shares})
        check_range("certificate", 0, math.inf, **{name: getattr(self, name) for name in errors})
        check_range("certificate", 1, math.inf, images=self.images, pixels=self.pixels)
        if self.passed != (self.stage is None):
            raise SpecError(f"certificate.stage must be null exactly if it passed, got {self.stage!r}")

    def proved(self) -> str:
        """Return the claims of a passed certificate in one line."""
        images = "synthetic pictures" if self.synthetic else "images"
        steps = (
            "graph and pixel steps equal PyTorch" if self.has_module else "pixel steps equal the libraries they name"
        )
        user = f"masks equal those of {self.reference_name}, " if self.reference == "user" else ""
        return f"{user}{steps}, on {self.images} {images}"

    def not_proved(self) -> str:
        """Return the usual claims that the comparison does not support, in one line."""
        claims = []
        if self.reference == "spec":
            claims.append("that the spec is that of training (compare with a reference)")
        if self.synthetic:
            claims.append("anything about your data (compare on your images)")
        if not self.has_module:
            claims.append("that the graph computes the same as PyTorch (compare with the module)")
        if self.rounding_agreement is not None:
            claims.append("single pixels (rounding decides in PyTorch itself)")
        return ", ".join(claims)

    def summary(self) -> str:
        """Return the result in one line."""
        verdict = "passed" if self.passed else f"FAILED at {self.stage}"
        own = self.rounding_agreement
        with_itself = "" if own is None else f" (PyTorch float32 and float64 agree on {own:.4%})"
        return (
            f"parity {verdict}: decisive pixels {self.decisive_text()}, "
            f"all pixels {self.pixel_agreement:.4%}{with_itself}, "
            f"logit error max {self.logit_max_error:.2e}, undecided {self.undecided_share:.4%}, "
            f"mIoU {self.mean_iou:.6f}, {self.images} {'synthetic pictures' if self.synthetic else 'images'}"
            f"{self._with_reference()}{self._ending()}"
        )

    def decisive_text(self) -> str:
        """Return the share of decisive pixels with the same label, as text."""
        return "none" if self.undecided_share == 1 else f"{self.decisive_agreement:.4%}"

    def _ending(self) -> str:
        if self.finding:
            return f"; {self.finding}"
        return f"; not proved: {self.not_proved()}" if self.passed and self.not_proved() else ""

    def _with_reference(self) -> str:
        if self.reference_agreement is None:
            return ""
        return f", {self.reference_agreement:.4%} of the pixels equal {self.reference_name}"


class ParityError(ExportError):
    """Exported pipeline that disagrees with PyTorch.

    Attributes:
        certificate: the measured differences. `stage` is the first stage that diverges.
    """

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate
