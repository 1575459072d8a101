"""Paired timing: contenders alternate in short turns.

Clocks, heat and other load then affect all alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAUSE_S = 0.01
MAX_CALLS = 200


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: unique within a comparison.
        run: does the work n times and returns the milliseconds of each call.
        pause_s: idle time after a turn, in which worker threads stop spinning and free the cores.
    """

    name: str
    run: Callable[[int], list[float]]
    pause_s: float = PAUSE_S


@dataclass(frozen=True)
class Turns:
    """Length of a comparison and of its turns.

    A turn is warm calls, which are not counted, counted calls, and the contender's pause.

    Attributes:
        budget_s: no round starts after this long.
        min_rounds: rounds that are counted whatever the budget.
        warm_ms: duration of a turn's warm calls. Clocks fall and caches cool while the others run.
        min_warm_calls: warm calls of a turn at least, of work that takes longer than `warm_ms`.
        counted_ms: duration of a turn's counted calls. There is one at least.
        warm_rounds: rounds before the first one that is counted.
    """

    budget_s: float
    min_rounds: int = 5
    warm_ms: float = 100.0
    min_warm_calls: int = 1
    counted_ms: float = 40.0
    warm_rounds: int = 1

    @property
    def description(self) -> str:
        """One turn in words."""
        least = ", one at least" if self.min_warm_calls else ""
        return (
            f"a turn is uncounted calls for about {self.warm_ms:.0f} ms{least}, counted calls for about "
            f"{self.counted_ms:.0f} ms (1 to {MAX_CALLS}) and a pause of {PAUSE_S * 1e3:.0f} ms"
        )


def make_contender(name: str, call: Callable[[], object]) -> Contender:
    """Make a contender that times a call in this process."""

    def run(n: int) -> list[float]:
        times = []
        for _ in range(n):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        return times

    return Contender(name, run)


def take_turns(contenders: Sequence[Contender], turns: Turns) -> dict[str, list[list[float]]]:
    """Time contenders in turns.

    The order rotates with every round.

    Returns:
        Milliseconds of the counted calls, by contender and round.
    """
    calls = {contender.name: _calls_per_turn(contender, turns) for contender in contenders}
    rounds: dict[str, list[list[float]]] = {contender.name: [] for contender in contenders}
    number, end = 0, math.inf
    while number < turns.warm_rounds + turns.min_rounds or time.perf_counter() < end:
        if number == turns.warm_rounds:
            end = time.perf_counter() + turns.budget_s
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            warm, counted = calls[contender.name]
            times = contender.run(warm + counted)[warm:]
            time.sleep(contender.pause_s)
            if number >= turns.warm_rounds:
                rounds[contender.name].append(times)
        number += 1
    return rounds


def paired_ratio(times: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    """Return the median of the time ratios of all rounds.

    A ratio is one contender's median time over another's.
    """
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(times, others, strict=True)]
    return statistics.median(ratios)


def _calls_per_turn(contender: Contender, turns: Turns) -> tuple[int, int]:
    """Return the numbers of warm and counted calls per turn."""
    contender.run(1)  # may allocate or compile
    duration_ms = max(statistics.median(contender.run(3)), 1e-6)
    warm, counted = (min(MAX_CALLS, round(share / duration_ms)) for share in (turns.warm_ms, turns.counted_ms))
    return max(warm, turns.min_warm_calls), max(counted, 1)
