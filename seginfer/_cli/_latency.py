"""Latency of the stages over a run: percentiles, not means, because a robot waits for the slow frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._tasks.timings import Timings

STAGES = ("preprocess", "infer", "postprocess", "total")
Summary = dict[str, dict[str, float]]


def summarize(timings: Sequence[Timings]) -> Summary:
    """Return p50, p95 and max in milliseconds for every stage, such as `{"infer": {"p50": 7.1, ...}}`."""
    return {stage: _percentiles([getattr(t, f"{stage}_ms") for t in timings]) for stage in STAGES} if timings else {}


def rows(summary: Summary) -> list[tuple[str, ...]]:
    """Return the summary as table rows: stage, p50, p95, max."""
    return [(stage, *(f"{value:.2f}" for value in values.values())) for stage, values in summary.items()]


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "max": round(max(values), 3)}
