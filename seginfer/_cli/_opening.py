"""Open the model that the command line names, and show the build of an engine if it takes one."""

from __future__ import annotations

import argparse
from pathlib import Path

from .._segmenter import Segmenter
from ._output import Output


def open_segmenter(args: argparse.Namespace, output: Output, model: Path) -> Segmenter:
    """Open a model file on the backend and device of the arguments."""
    with output.phases() as on_step:
        return Segmenter.open(
            model, backend=args.backend, device=args.device, threads=args.threads, on_progress=on_step
        )
