"""Statistics and turns of benchmarks: definitions on samples, and order and counts by a clock of the tests."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from seginfer import InputError, Timings
from seginfer._bench import turns as engine
from seginfer._bench.statistics import percentile, summarize, summarize_stages
from seginfer._bench.turns import Contender, Turns, make_contender, paired_ratio, take_turns

ONE_ROUND = Turns(budget_s=0, min_rounds=1, warm_rounds=0)


class Clock:
    """Stands for the module `time`: it moves when a call or a pause takes its time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[str] = []
        self.pauses: list[float] = []

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds

    def contender(self, name: str, duration_ms: Callable[[], float]) -> Contender:
        def call() -> None:
            self.calls.append(name)
            self.now_s += duration_ms() / 1e3

        return make_contender(name, call)

    def turns(self) -> list[tuple[str, int]]:
        """Return who was called, and how often in a row."""
        found: list[tuple[str, int]] = []
        for name in self.calls:
            last, count = found.pop() if found and found[-1][0] == name else (name, 0)
            found.append((last, count + 1))
        return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(engine, "time", clock)
    return clock


@pytest.mark.parametrize("count", [1, 2, 3, 7, 19, 20, 21, 99, 100, 101, 1000])
@pytest.mark.parametrize("percent", [1, 5, 50, 90, 95, 99, 100])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(count: int, percent: int) -> None:
    values = [random.Random(count).randrange(50) / 7 for _ in range(count)]
    least = min(value for value in values if sum(other <= value for other in values) * 100 >= percent * count)
    assert percentile(values, percent) == least


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_a_percentile_is_that_of_numpy_by_the_same_definition(percent: int) -> None:
    values = np.random.default_rng(0).lognormal(size=777).tolist()
    assert percentile(values, percent) == np.percentile(values, percent, method="inverted_cdf")


def test_a_slow_frame_of_a_short_run_is_not_averaged_away() -> None:
    assert percentile([5.0] * 59 + [100.0], 99) == 100.0


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentiles_of_nothing_are_refused(values: list[float], percent: int) -> None:
    with pytest.raises(InputError, match="expected values and a percentage"):
        percentile(values, percent)


def test_a_summary_holds_measured_times() -> None:
    summary = summarize([float(ms) for ms in range(200, 0, -1)])
    assert (summary.min_ms, summary.median_ms, summary.p95_ms, summary.p99_ms) == (1, 100, 190, 198)
    assert (summary.max_ms, summary.calls) == (200, 200)


def test_stages_have_p50_p95_and_max() -> None:
    timings = [Timings(1.0, 10.0 * i, 0.1234567) for i in range(1, 5)]
    latency = summarize_stages(timings)
    assert latency["infer"] == {"p50": 20.0, "p95": 40.0, "max": 40.0}
    assert latency["postprocess"] == {"p50": 0.123, "p95": 0.123, "max": 0.123}
    assert latency["total"]["max"] == 41.123
    assert list(latency) == ["preprocess", "infer", "postprocess", "total"]
    assert summarize_stages([]) == {}


@pytest.mark.parametrize(
    ("duration_ms", "min_warm_calls", "warm", "counted"),
    [(10.0, 1, 10, 4), (0.01, 1, 200, 200), (300.0, 1, 1, 1), (300.0, 0, 0, 1), (0.0, 1, 200, 200)],
)
def test_a_turn_holds_about_as_many_calls_as_its_duration(
    clock: Clock, duration_ms: float, min_warm_calls: int, warm: int, counted: int
) -> None:
    turns = Turns(budget_s=0, min_rounds=1, warm_rounds=0, min_warm_calls=min_warm_calls)
    ((times,),) = take_turns([clock.contender("a", lambda: duration_ms)], turns).values()
    assert times == pytest.approx([duration_ms] * counted)
    assert len(clock.calls) == 1 + 3 + warm + counted  # the first call, those that are measured, and the turn


def test_a_slow_first_call_does_not_shorten_the_turns(clock: Clock) -> None:
    contender = clock.contender("a", lambda: 5000.0 if len(clock.calls) == 1 else 10.0)
    ((times,),) = take_turns([contender], ONE_ROUND).values()
    assert times == pytest.approx([10.0] * 4)


def test_the_order_rotates_and_every_turn_is_followed_by_its_pause(clock: Clock) -> None:
    contenders = [clock.contender(name, lambda: 300.0) for name in "abc"]
    contenders[1] = Contender("b", contenders[1].run, pause_s=0.5)
    take_turns(contenders, Turns(budget_s=0, min_rounds=4, warm_rounds=0))
    assert [name for name, _ in clock.turns()] == list("abc" + "abc" + "bca" + "cab" + "abc")
    assert clock.pauses == [0.01, 0.5, 0.01, 0.5, 0.01, 0.01, 0.01, 0.01, 0.5, 0.01, 0.5, 0.01]


def test_warm_rounds_are_not_counted(clock: Clock) -> None:
    contender = clock.contender("a", lambda: 300.0 if clock.pauses else 900.0)
    rounds = take_turns([contender], Turns(budget_s=0, min_rounds=3, warm_rounds=1))["a"]
    assert len(clock.pauses) == 4
    assert rounds == [pytest.approx([300.0])] * 3


def test_rounds_go_on_until_the_budget_is_spent(clock: Clock) -> None:
    turns = Turns(budget_s=10.0, min_rounds=2, warm_ms=0, min_warm_calls=0, warm_rounds=5)
    rounds = take_turns([clock.contender("a", lambda: 990.0)], turns)["a"]
    assert len(rounds) == 10  # of one second each, with the pause
    assert len(clock.pauses) == 15


def test_contenders_without_warm_calls_alternate_call_by_call(clock: Clock) -> None:
    contenders = [clock.contender(name, lambda: 300.0) for name in "ab"]
    take_turns(contenders, Turns(budget_s=0, min_rounds=2, warm_ms=0, min_warm_calls=0, warm_rounds=0))
    assert clock.turns() == [("a", 4), ("b", 4), ("a", 1), ("b", 2), ("a", 1)]


def test_a_clock_that_falls_changes_times_and_no_ratio(clock: Clock) -> None:
    """Both contenders slow down from round to round; medians of all calls move, the ratio of the rounds does not."""
    slow = {"ours": 2.0, "theirs": 3.0}

    def duration(name: str) -> Callable[[], float]:
        return lambda: slow[name] * 1.5 ** (len(clock.pauses) // 2)

    contenders = [clock.contender(name, duration(name)) for name in slow]
    rounds = take_turns(contenders, Turns(budget_s=0, min_rounds=6, warm_rounds=0))
    assert paired_ratio(rounds["theirs"], rounds["ours"]) == pytest.approx(1.5)
    assert rounds["ours"][5][0] == pytest.approx(2.0 * 1.5**5)


def test_a_turn_is_described_with_its_numbers() -> None:
    assert "about 100 ms, one at least, counted calls for about 40 ms (1 to 200)" in Turns(budget_s=1).description
    assert "one at least" not in Turns(budget_s=1, min_warm_calls=0).description
