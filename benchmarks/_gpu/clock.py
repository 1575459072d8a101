"""GPU timing by CUDA events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seginfer._bench.turns import Contender
from seginfer._cuda import compiler
from seginfer._cuda.gpu import Gpu


class EventClock:
    """Times work on a stream by the GPU's own clock."""

    def __init__(self, gpu: Gpu, stream: Any) -> None:
        options = compiler.require_cuda().EventOptions(timing_enabled=True)
        self._start, self._end = (gpu.device.create_event(options) for _ in range(2))
        self._gpu, self._stream = gpu, stream

    def times_ms(self, start: Callable[[], object], count: int, *, calls: int = 1) -> list[float]:
        """Time work on the stream, `count` times.

        Args:
            start: starts the work on the clock's stream.
            count: of the times to return.
            calls: starts between two events, without a gap. A time is the mean of them.

        Returns:
            Milliseconds of one call each.
        """
        self._gpu.use()
        times = []
        for _ in range(count):
            self._stream.record(self._start)
            for _ in range(calls):
                start()
            self._stream.record(self._end)
            self._end.sync()
            times.append(float(self._end - self._start) / calls)
        return times

    def contender(self, name: str, start: Callable[[], object]) -> Contender:
        """Return a contender that times work on the stream."""
        return Contender(name, lambda count: self.times_ms(start, count))
