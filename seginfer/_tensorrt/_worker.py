"""The process in which `_isolated` lets NVIDIA's library work: reads one path, writes one JSON object per line."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from .._errors import SegInferError
from .._schema import unstructure
from ._check import check_here


def main() -> None:
    """Check the file that the command line names; a second argument "progress" asks for every step of the build."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the library prints lines of its own there

    def tell(kind: str, value: Any) -> None:
        channel.write(json.dumps({kind: value}) + "\n")
        channel.flush()

    try:
        report = check_here(
            sys.argv[1],
            on_progress=(lambda *step: tell("progress", step)) if "progress" in sys.argv[2:] else None,
            on_stage=lambda stage: tell("stage", stage),
        )
        tell("report", unstructure(report))
    except SegInferError as error:
        tell("error", [type(error).__name__, str(error)])
