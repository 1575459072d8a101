"""Paired turns of two contenders on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from seginfer._bench.statistics import Summary, summarize
from seginfer._bench.turns import Contender, Turns, paired_ratio, take_turns

TURNS = Turns(budget_s=1.2, min_rounds=3, min_warm_calls=0, warm_rounds=0)
QUICK = Turns(budget_s=0, min_rounds=1, warm_ms=1, min_warm_calls=0, counted_ms=2, warm_rounds=0)

METHOD = (
    "end to end is the wall clock around segmenter(list of images, out=masks); the network alone is the same backend "
    "on a batch that is on the device already, by CUDA events around a launch; peers are scripts from the same list to "
    f"masks, by the wall clock. Two contenders take turns, in an order that alternates; {TURNS.description}; "
    f"there are at least {TURNS.min_rounds} rounds, and {TURNS.budget_s} s of them. A ratio is the median over rounds "
    "of one turn's median over the other's; medians and p99 are over all counted calls, and a p99 of fewer than 100 is "
    "the slowest. Peak memory is the GPU memory of all processes while a contender is opened and first run, "
    "less their memory before"
)


@dataclass(frozen=True)
class Pair:
    """Times of two contenders, and their ratio to ours."""

    ours_ms: list[float]
    theirs: Summary
    ratio: float


def time_pair(ours: Contender, theirs: Contender, turns: Turns) -> Pair:
    """Time two contenders against each other. See METHOD."""
    rounds = take_turns((ours, theirs), turns)
    ours_ms, theirs_ms = (list(chain.from_iterable(rounds[name])) for name in (ours.name, theirs.name))
    return Pair(ours_ms, summarize(theirs_ms), paired_ratio(rounds[theirs.name], rounds[ours.name]))
