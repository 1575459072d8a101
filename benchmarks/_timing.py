"""Timing: contenders take turns in one run, and what a check found wrong stops the run before anything is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PAUSE_S = 0.01  # after every turn: its worker threads stop spinning, and free the cores
PEER_PAUSE_S = 0.5  # the same for a peer's process: mmdeploy-runtime's threads keep a core busy for some 0.2 s
WARM_MS = 100.0  # a turn begins with uncounted calls for about this long, one at least: see METHOD
TURN_MS = 40.0  # a turn repeats a short call for about this long ...
TURN_CALLS = 200  # ... but not more often than this

METHOD = (
    "contenders take turns, in an order that rotates; a turn is uncounted calls for about "
    f"{WARM_MS:.0f} ms, one at least, as many counted calls as take about {TURN_MS:.0f} ms (1 to {TURN_CALLS}), and a "
    f"pause of {PAUSE_S * 1e3:.0f} ms, or {PEER_PAUSE_S * 1e3:.0f} ms after a peer in a process of its own; every "
    "counted call of every turn enters the median and p95; a whole turn of each comes before as warm-up and is not "
    "counted; seginfer and the backend of the U-Net alternate call by call"
)


@dataclass(frozen=True)
class Contender:
    """One way of doing the work; `run(n)` does it n times and returns the milliseconds of each."""

    name: str
    run: Callable[[int], list[float]]
    pause_s: float = PAUSE_S
    """How long the machine is left alone after a turn."""


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
    contenders: Sequence[Contender], budget_s: float, *, min_rounds: int = 5, is_warm: bool = False
) -> dict[str, Stats]:
    """Time contenders in turns until the budget is spent; see METHOD.

    Args:
        contenders: with different names.
        budget_s: about how long all of it may take.
        min_rounds: turns of each contender at least, whatever the budget.
        is_warm: leave no call out: contenders share all that could be warmed.
    """
    calls = {contender.name: _calls_per_turn(contender) for contender in contenders}
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    start, rounds = time.perf_counter(), 0
    while rounds < min_rounds or time.perf_counter() - start < budget_s:
        first = rounds % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            uncounted, counted = calls[contender.name]
            left_out = 0 if is_warm else uncounted
            times[contender.name] += contender.run(left_out + counted)[left_out:]
            time.sleep(contender.pause_s)
        rounds += 1
    return {name: stats_of(values) for name, values in times.items()}


def stats_of(times_ms: Sequence[float]) -> Stats:
    """Summarise the times of single calls."""
    return Stats(statistics.median(times_ms), percentile(times_ms, 95), min(times_ms), len(times_ms))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


def _calls_per_turn(contender: Contender) -> tuple[int, int]:
    """Warm up, and return how many calls of a turn are not counted, and how many are."""
    contender.run(1)
    took = max(statistics.median(contender.run(3)), 1e-6)
    uncounted, counted = (max(1, min(TURN_CALLS, round(duration / took))) for duration in (WARM_MS, TURN_MS))
    contender.run(uncounted + counted)
    return uncounted, counted
