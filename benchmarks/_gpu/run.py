"""Settings and state that all cases of a run share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from _errors import CheckError

from seginfer import BackendUnavailableError
from seginfer._bench.turns import Turns

from .backends import BackendName

Record = dict[str, Any]


class TimeIsOver(Exception):  # noqa: N818 (not an error)
    """The run's minutes are spent. The remaining cases are listed as skipped."""


@dataclass
class Run:
    """Settings and state of a run.

    Attributes:
        device: "cuda" or "cpu".
        turns: how pairs are timed.
        is_quick: use small pictures.
        ends_at: time.monotonic() after which no work begins.
        backends: requested ones.
        peers: requested ones.
        say: prints a line of progress.
        missing: reasons for missing backends and peers, by "backend <name>" or "peer <name>".
    """

    device: str
    turns: Turns
    is_quick: bool
    ends_at: float
    backends: tuple[BackendName, ...]
    peers: tuple[str, ...]
    say: Callable[[str], None]
    missing: dict[str, str] = field(default_factory=dict)

    def check_time(self, *_: object) -> None:
        """Raise TimeIsOver once the minutes are spent.

        Also a progress callback of engine builds, hence the ignored arguments.
        """
        if time.monotonic() > self.ends_at:
            raise TimeIsOver("the run's minutes were spent; give more with --minutes, or choose fewer cases")


def or_reason(measure: Callable[[], Record]) -> Record:
    """Return a measurement, or the reason why it failed.

    A single failure, such as a wrong result or lack of memory, must not end the run.
    """
    try:
        return measure()
    except CheckError as error:
        return {"wrong": str(error)}
    except (TimeIsOver, BackendUnavailableError) as error:
        return {"skipped": str(error)}
    except Exception as error:  # of any library, mostly out of memory
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
