"""What all cases of a run share: what was asked for, what is not there, how long it may take, and what became of it."""

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
    """The run's minutes are spent; what is left is listed as skipped."""


@dataclass
class Run:
    """What all cases of a run share.

    Attributes:
        device: "cuda" or "cpu".
        turns: how pairs are timed.
        is_quick: small pictures.
        ends_at: on time.monotonic, when no further work begins.
        backends: asked for.
        peers: asked for.
        say: prints a line for who waits.
        missing: why a backend or a peer is not there, by "backend <name>" or "peer <name>".
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
        """Raise TimeIsOver once the minutes are spent; builders of engines call it too."""
        if time.monotonic() > self.ends_at:
            raise TimeIsOver("the run's minutes were spent; give more with --minutes, or choose fewer cases")


def or_reason(measure: Callable[[], Record]) -> Record:
    """Return what was measured, or why it was not: a run must not lose the rest over one lack of memory.

    Raises:
        CheckError: if a result is wrong.
    """
    try:
        return measure()
    except CheckError:
        raise
    except (TimeIsOver, BackendUnavailableError) as error:
        return {"skipped": str(error)}
    except Exception as error:  # of this package and of others; mostly memory that ran out
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
