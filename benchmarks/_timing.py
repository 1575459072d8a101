"""Timing: contenders take turns in one run, and what a check found wrong stops the run before anything is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PAUSE_S = 0.01  # before every turn: worker threads of the contender before stop spinning, and free the cores
TURN_MS = 40.0  # a turn repeats a short call for about this long ...
TURN_CALLS = 200  # ... but not more often than this

METHOD = (
    f"contenders take turns, in an order that rotates; a turn is a pause of {PAUSE_S * 1e3:.0f} ms, one call that is "
    f"not counted, and as many counted calls as take about {TURN_MS:.0f} ms (1 to {TURN_CALLS}); every counted call of "
    "every turn enters the median and p95; a whole turn of each comes before as warm-up and is not counted; seginfer "
    "and the backend of the U-Net alternate call by call"
)


class CheckError(Exception):
    """A benchmark's result is not what it must be; a time would mean nothing."""


@dataclass(frozen=True)
class Contender:
    """One way of doing the work; `run(n)` does it n times and returns the milliseconds of each."""

    name: str
    run: Callable[[int], list[float]]


@dataclass(frozen=True)
class Stats:
    """What the counted calls of one contender took."""

    median_ms: float
    p95_ms: float
    min_ms: float
    calls: int


@dataclass
class Stage:
    """What one benchmark found; `to_json` is its entry in the results.

    Attributes:
        work: what is done, in words.
        cases: times by case and contender.
        checks: what was compared before timing, and how it came out.
        ratios: the numbers of the goals that this stage answers; None with a reason in `skipped`.
        compared: which case and contenders a ratio comes from: case, the one above the line, the one below it.
        skipped: why a contender or a ratio is missing.
        facts: other numbers that belong to the result.
    """

    work: str
    cases: dict[str, dict[str, Stats]] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float | None] = field(default_factory=dict)
    compared: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def ratio(self, name: str, case: str, above: str, below: str) -> None:
        """Record the median of `above` over that of `below`; None where either was not measured."""
        times = self.cases[case]
        self.compared[name] = (case, above, below)
        if above in times and below in times:
            self.ratios[name] = times[above].median_ms / times[below].median_ms
        else:
            self.ratios[name] = None
            missing = above if above not in times else below
            self.skipped[name] = self.skipped.get(missing, f"{missing} was not measured")

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def local(name: str, call: Callable[[], object]) -> Contender:
    """Return a contender that runs in this process."""

    def run(n: int) -> list[float]:
        times = []
        for _ in range(n):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        return times

    return Contender(name, run)


def interleaved(
    contenders: Sequence[Contender], budget_s: float, *, min_rounds: int = 5, uncounted: int = 1
) -> dict[str, Stats]:
    """Time contenders in turns until the budget is spent; see METHOD.

    Args:
        contenders: with different names.
        budget_s: about how long all of it may take.
        min_rounds: turns of each contender at least, whatever the budget.
        uncounted: calls at the start of a turn that are left out; 0 where contenders share all that could be warmed.
    """
    calls = {contender.name: _calls_per_turn(contender) for contender in contenders}
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    start, rounds = time.perf_counter(), 0
    while rounds < min_rounds or time.perf_counter() - start < budget_s:
        first = rounds % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            time.sleep(PAUSE_S)
            times[contender.name] += contender.run(uncounted + calls[contender.name])[uncounted:]
        rounds += 1
    return {name: stats_of(values) for name, values in times.items()}


def stats_of(times_ms: Sequence[float]) -> Stats:
    """Summarise the times of single calls."""
    return Stats(statistics.median(times_ms), percentile(times_ms, 95), min(times_ms), len(times_ms))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


def check(holds: bool, message: str) -> None:
    """Stop the run unless a result is right."""
    if not holds:
        raise CheckError(message)


def _calls_per_turn(contender: Contender) -> int:
    """Warm up, and return how many calls make a turn."""
    contender.run(1)
    took = statistics.median(contender.run(3))
    calls = max(1, min(TURN_CALLS, round(TURN_MS / max(took, 1e-6))))
    contender.run(calls)
    return calls
