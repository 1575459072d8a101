"""Table rows of a certificate."""

from __future__ import annotations

from .._spec.certificate import Certificate

_NAMED = 8  # images


def certificate_rows(certificate: Certificate) -> list[tuple[str, str]]:
    """Return (label, value) pairs."""
    c = certificate
    own = c.rounding_agreement
    return [
        ("verdict", "passed" if c.passed else f"FAILED at {c.stage}"),
        *([("proved", c.proved())] if c.passed else []),
        *_if(("not proved", c.not_proved())),
        *_if(("cause", c.finding)),
        *(("warning", text) for text in c.warnings),
        ("decisive pixels that agree", c.decisive_text()),
        ("all pixels that agree", f"{c.pixel_agreement:.4%} of {c.pixels:,}"),
        *([("PyTorch float32 and float64 agree", f"{own:.4%}")] if own is not None else []),
        ("undecided pixels", f"{c.undecided_share:.4%}"),
        ("mean IoU with PyTorch", f"{c.mean_iou:.6f}"),
        ("logit error, max", f"{c.logit_max_error:.3e}"),
        ("logit error, 99.9th percentile", f"{c.logit_p999_error:.3e}"),
        ("network error on one input, max", f"{c.network_max_error:.3e}"),
        ("preprocessing error, max", f"{c.batch_max_error:.3e}"),
        *_flip_rows(c),
        *([(f"equal {c.reference_name}", f"{c.reference_agreement:.4%}")] if c.reference_agreement is not None else []),
        *([("mean IoU with your labels", f"{c.labels_mean_iou:.4f}")] if c.labels_mean_iou is not None else []),
        ("images", _images(c)),
        ("precision", c.precision),
        ("runtime", c.runtime),
        *_if(("date", c.date)),
        *_if(("host", c.host)),
        *_if(("versions", ", ".join(f"{name} {version}" for name, version in c.versions.items()))),
    ]


def _if(row: tuple[str, str]) -> list[tuple[str, str]]:
    return [row] if row[1] else []


def _images(certificate: Certificate) -> str:
    """Describe the images, with the names of the first."""
    if certificate.synthetic:
        return f"{certificate.images} synthetic pictures: says nothing about your data"
    names = [record.name for record in certificate.image_records]
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{certificate.images}" + (f": {listed}" if listed else "")


def _flip_rows(certificate: Certificate) -> list[tuple[str, str]]:
    """Return one row per range of margins with flipped pixels."""
    rows, start = [], 0.0
    for count in certificate.flips:
        end = count.margin_below
        if count.flipped:
            where = f"{start:.1e} and more" if end is None else f"{start:.1e} to {end:.1e}"
            rows.append((f"flipped at a margin of {where}", f"{count.flipped:,} of {count.pixels:,}"))
        start = end or start
    return rows
