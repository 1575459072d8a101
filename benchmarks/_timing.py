"""Timing and results of a CPU benchmark stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

from _settings import Settings

from seginfer._bench.statistics import Summary, summarize
from seginfer._bench.turns import Contender, Turns, take_turns

PEER_PAUSE_S = 0.5  # after a peer's process: the threads of mmdeploy-runtime keep a core busy for some 0.2 s

METHOD = (
    f"contenders take turns, in an order that rotates; {Turns(0).description}, or {PEER_PAUSE_S * 1e3:.0f} ms after a "
    "peer in a process of its own; every counted call of every turn enters the median and p95; a whole turn of each "
    "comes before as warm-up and is not counted; seginfer and the backend of the U-Net alternate call by call"
)


@dataclass
class Stage:
    """Results of one benchmark.

    Attributes:
        work: description of the work.
        cases: times by case and contender.
        checks: results of the comparisons before timing.
        ratios: numbers of this stage's goals. None with a reason in `skipped`.
        compared: source of each ratio: case, contender of the numerator, contender of the denominator.
        skipped: reasons for missing contenders and ratios.
        facts: other numbers of the result.
    """

    work: str
    cases: dict[str, dict[str, Summary]] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, float | None] = field(default_factory=dict)
    compared: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def ratio(self, name: str, case: str, above: str, below: str) -> None:
        """Record the ratio of two medians, or None if either is missing."""
        times = self.cases[case]
        self.compared[name] = (case, above, below)
        if above in times and below in times:
            self.ratios[name] = times[above].median_ms / times[below].median_ms
        else:
            self.ratios[name] = None
            missing = above if above not in times else below
            self.skipped[name] = self.skipped.get(missing, f"{missing} was not measured")

    def to_json(self) -> dict[str, Any]:
        """Return the stage's entry in the results, as plain data."""
        return asdict(self)


def measure_in_turns(
    contenders: Sequence[Contender], settings: Settings, budget_s: float, *, is_warm: bool = False
) -> dict[str, Summary]:
    """Time contenders in turns and summarize their calls. See METHOD.

    Args:
        contenders: with unique names.
        settings: of the run.
        budget_s: approximate duration of the whole comparison.
        is_warm: count every call of a turn, where contenders share all that could be warmed.
    """
    turns = Turns(settings.budget(budget_s), settings.min_rounds)
    if is_warm:
        turns = replace(turns, warm_ms=0, min_warm_calls=0)
    rounds = take_turns(contenders, turns)
    return {name: summarize(list(chain.from_iterable(times))) for name, times in rounds.items()}
