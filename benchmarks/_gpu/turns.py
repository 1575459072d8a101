"""Paired turns: two contenders alternate in short turns, so that a GPU's clocks and its heat treat both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from _timing import PAUSE_S, Contender, percentile

_MOST_CALLS = 200  # of a turn


class Turns(NamedTuple):
    """How long two contenders are compared."""

    warm_ms: float = 100.0
    """Uncounted calls at the begin of a turn: clocks fall while the other one keeps the GPU waiting."""
    counted_ms: float = 40.0
    budget_s: float = 1.2
    min_rounds: int = 3


QUICK = Turns(1.0, 2.0, 0.0, 1)

METHOD = (
    "end to end is the wall clock around segmenter(list of images, out=masks); the network alone is the same backend "
    "on a batch that is on the device already, by CUDA events around a launch; peers are scripts from the same list to "
    "masks, by the wall clock. Two contenders take turns, and who is first changes every round; a turn is uncounted "
    f"calls for about {Turns().warm_ms:.0f} ms, counted calls for about {Turns().counted_ms:.0f} ms (1 to "
    f"{_MOST_CALLS}) and a pause of {PAUSE_S * 1e3:.0f} ms; there are at least {Turns().min_rounds} rounds, and "
    f"{Turns().budget_s} s of them. A ratio is the median over rounds of one turn's median over the other's; medians "
    "and p99 are over all counted calls, and a p99 of fewer than 100 is the slowest. Peak memory is what all processes "
    "have of the GPU while a contender is opened and first run, less what they had before"
)


@dataclass
class Pair:
    """What two contenders took."""

    ours_ms: list[float] = field(default_factory=list)
    theirs_ms: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Of every round: their turn's median over ours."""

    @property
    def ratio(self) -> float:
        """Theirs over ours."""
        return statistics.median(self.ratios)


def paired(ours: Contender, theirs: Contender, turns: Turns) -> Pair:
    """Time two contenders against each other; see METHOD."""
    calls = [(contender, *_calls_per_turn(contender, turns)) for contender in (ours, theirs)]
    pair, start = Pair(), time.perf_counter()
    while len(pair.ratios) < turns.min_rounds or time.perf_counter() - start < turns.budget_s:
        order = calls if len(pair.ratios) % 2 == 0 else calls[::-1]
        found = {contender.name: _turn(contender, uncounted, counted) for contender, uncounted, counted in order}
        pair.ours_ms += found[ours.name]
        pair.theirs_ms += found[theirs.name]
        pair.ratios.append(statistics.median(found[theirs.name]) / statistics.median(found[ours.name]))
    return pair


def summary(times_ms: Sequence[float]) -> dict[str, Any]:
    """Return median, 99th percentile, the fastest call, and how many there were."""
    return {
        "median_ms": statistics.median(times_ms),
        "p99_ms": percentile(times_ms, 99),
        "min_ms": min(times_ms),
        "calls": len(times_ms),
    }


def _turn(contender: Contender, uncounted: int, counted: int) -> list[float]:
    times = contender.run(uncounted + counted)[uncounted:]
    time.sleep(contender.pause_s)
    return times


def _calls_per_turn(contender: Contender, turns: Turns) -> tuple[int, int]:
    """Return how many calls of a turn are not counted, and how many are; long calls warm up by themselves."""
    contender.run(1)
    took = max(*contender.run(1), 1e-6)
    return min(_MOST_CALLS, round(turns.warm_ms / took)), max(1, min(_MOST_CALLS, round(turns.counted_ms / took)))
