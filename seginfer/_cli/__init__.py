"""The command line `seginfer`: one line and exit code 2 for errors, 1 for a job partly done, 130 for Ctrl-C."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from .._errors import OutputWriteError, SegInferError
from .output import Output
from .parser import build_parser

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(name)s: %(message)s")
    output = Output(as_json=args.json)
    try:
        if argv is None:  # a process of our own: end it as Ctrl-C does, so that nothing half-written is left
            _end_on(signal.SIGTERM, signal.SIGHUP)
        with output.waiting("loading"):
            handler = _handler(args.handler)
        code = handler(args, output)
        sys.stdout.flush()
        return code
    except SegInferError as error:
        output.error(error)
        return 2
    except OSError as error:  # a file system or a terminal that refuses in a place that no command foresaw
        if isinstance(error, BrokenPipeError):  # `seginfer ... | head`: the reader has seen enough
            _mute()
            return 0
        refusal = OutputWriteError(f"{error}; check the path and the free space")
        try:
            sys.stdout.flush()
            output.error(refusal)
        except OSError:  # it is standard output itself that refuses
            _mute()
            output.error(refusal)
        return 2
    except KeyboardInterrupt:
        with suppress(OSError):  # a terminal that hung up
            sys.stderr.write("seginfer: interrupted; finished files are complete, the one in progress was dropped\n")
        return INTERRUPTED


def _mute() -> None:
    """Drop what is left in the buffer of standard output, which has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_on(*signals: signal.Signals) -> None:
    for number in signals:
        if signal.getsignal(number) != signal.SIG_IGN:  # `nohup` lets it live on
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _handler(name: str) -> Callable[..., int]:
    """Import a command only when it runs: `seginfer info` must not pay for torch."""
    module, _, function = name.partition(":")
    handler: Callable[..., int] = getattr(importlib.import_module(module), function)
    return handler
