"""Table rows of a certificate."""

from __future__ import annotations

from .._spec.certificate import Certificate


def certificate_rows(certificate: Certificate) -> list[tuple[str, str]]:
    """Return (label, value) pairs."""
    c = certificate
    own = c.rounding_agreement
    return [
        ("verdict", "passed" if c.passed else f"FAILED at {c.stage}"),
        ("decisive pixels that agree", f"{c.decisive_agreement:.4%}"),
        ("all pixels that agree", f"{c.pixel_agreement:.4%} of {c.pixels:,}"),
        *([("PyTorch float32 and float64 agree", f"{own:.4%}")] if own is not None else []),
        ("undecided pixels", f"{c.undecided_share:.4%}"),
        ("mean IoU with PyTorch", f"{c.mean_iou:.6f}"),
        ("logit error, max", f"{c.logit_max_error:.3e}"),
        ("logit error, 99.9th percentile", f"{c.logit_p999_error:.3e}"),
        ("network error on one input, max", f"{c.network_max_error:.3e}"),
        ("preprocessing error, max", f"{c.batch_max_error:.3e}"),
        *_flip_rows(c),
        ("images", str(c.images)),
        ("precision", c.precision),
        ("runtime", c.runtime),
    ]


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
