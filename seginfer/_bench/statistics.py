"""Percentiles and summaries of latencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._errors import InputError

if TYPE_CHECKING:
    from .._tasks.timings import Timings

STAGES = ("preprocess", "infer", "postprocess", "total")
StageLatency = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Summary:
    """Distribution of call times, in milliseconds.

    The median is the 50th `percentile`, so it is a measured time like the others.
    """

    median_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    max_ms: float
    calls: int


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of a sample.

    This is the smallest value that at least `percent` % of the values do not exceed. It is always one of the values.
    Interpolation between ranks would report latencies that no frame had, below the slow frames of a short run. The
    99th percentile of fewer than 100 values is their maximum.

    Source: R. J. Hyndman and Y. Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50(4),
    1996, definition 1, which is `numpy.percentile(values, percent, method="inverted_cdf")` in exact arithmetic.

    Args:
        values: at least one, in any order.
        percent: 1 to 100.

    Raises:
        InputError: if there are no values, or `percent` is out of range.
    """
    if len(values) == 0 or not 1 <= percent <= 100:
        raise InputError(f"expected values and a percentage of 1 to 100, got {len(values)} values and {percent} %")
    rank = -(-len(values) * percent // 100)  # rounded up
    return sorted(values)[rank - 1]


def summarize(times_ms: Sequence[float]) -> Summary:
    """Summarize the times of single calls.

    Raises:
        InputError: if there are none.
    """
    median, p95, p99 = (percentile(times_ms, percent) for percent in (50, 95, 99))
    return Summary(median, p95, p99, min(times_ms), max(times_ms), len(times_ms))


def summarize_stages(timings: Sequence[Timings]) -> StageLatency:
    """Return p50, p95 and max of every stage in milliseconds.

    The result looks like `{"infer": {"p50": 7.1, ...}}`. It is empty without timings.
    """
    if not timings:
        return {}
    summaries = {stage: summarize([getattr(timing, f"{stage}_ms") for timing in timings]) for stage in STAGES}
    return {
        stage: {"p50": round(found.median_ms, 3), "p95": round(found.p95_ms, 3), "max": round(found.max_ms, 3)}
        for stage, found in summaries.items()
    }
