"""One-page HTML report of `seginfer demo`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from .._bench.statistics import StageLatency
from .._spec.certificate import Certificate
from .._system.atomic import atomic_path
from .certificate import certificate_rows
from .output import latency_table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #f6f7f9; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 36px 0 12px; }
.verdict { display: inline-block; padding: 4px 12px; border-radius: 4px; color: #fff; font-weight: 600; }
.passed { background: #1a7f4b; } .failed { background: #b3261e; }
table { border-collapse: collapse; background: #fff; border: 1px solid #dde1e7; width: 100%; }
th, td { text-align: left; padding: 6px 12px; border-top: 1px solid #e8ebf0; }
th { background: #eef1f5; font-weight: 600; }
td + td, th + th { font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 12px; }
img, video { width: 100%; display: block; border-radius: 4px; }
figure { margin: 0; } figcaption, .note { color: #566072; font-size: 14px; }
"""


def write_report(
    path: Path,
    stills: Sequence[tuple[Path, Path]],
    video: Path,
    latency: StageLatency,
    certificate: Certificate,
    backend: str,
    image_hw: tuple[int, ...],
) -> None:
    """Write the report.

    Args:
        path: HTML file to write.
        stills: (overlay, mask) images in the folder of the report.
        video: overlay video in that folder.
        latency: percentiles per stage.
        certificate: of the model.
        backend: description of the backend.
        image_hw: (height, width) of the frames.
    """
    verdict = "passed" if certificate.passed else "failed"
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    body = [
        "<h1>seginfer demo: the soccer field</h1>",
        f'<p class="note">{now} &middot; {html.escape(backend)}</p>',
        f'<p><span class="verdict {verdict}">parity {verdict}</span></p>',
        "<h2>Frames</h2>",
        f'<div class="grid">{"".join(_figure(overlay, mask) for overlay, mask in stills)}</div>',
        f'<h2>Clip</h2><video src="{html.escape(video.name)}" controls loop muted></video>',
        f"<h2>Latency per frame of {image_hw[1]} x {image_hw[0]} pixels, milliseconds</h2>",
        _table(*latency_table(latency)),
        '<p class="note">From image in memory to mask in memory, one frame at a time, on this machine.</p>',
        "<h2>Parity with PyTorch</h2>",
        _table(("", "value"), certificate_rows(certificate)),
        '<p class="note">At a decisive pixel, the margin between the two best classes of PyTorch exceeds twice the '
        "largest logit error. All decisive pixels must agree.</p>",
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>seginfer demo</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    with atomic_path(path) as part:
        part.write_text(page, encoding="utf-8")


def _figure(overlay: Path, mask: Path) -> str:
    name = html.escape(overlay.name)
    link = f'<a href="{html.escape(mask.name)}">mask</a>'
    return f'<figure><img src="{name}" alt="{name}"><figcaption>{name} &middot; {link}</figcaption></figure>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"
