"""Protocol between a peer's process and the benchmark.

The peer saves its result, then times calls on request.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


class Channel:
    """Lines of JSON on the process's standard output.

    Output of libraries is redirected to standard error.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def serve(self, calls: dict[str, Callable[[], object]], about: dict[str, Any]) -> None:
        """Send `about`, then reply to requests until standard input closes.

        A request `{"call": name, "times": n}` gets the milliseconds of n calls.
        """
        self.send(about)
        for line in sys.stdin:
            request = json.loads(line)
            self.send({"ms": _times(calls[request["call"]], request["times"])})


def _times(call: Callable[[], object], n: int) -> list[float]:
    times = []
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times
