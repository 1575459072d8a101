"""The command line `seginfer`.

Errors are one line and exit code 2. Exit code 1 is a job partly done, and 130 is Ctrl-C.
"""

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
        if argv is None:  # the whole process is ours, so a signal may clean up as Ctrl-C does
            _end_on(signal.SIGTERM, signal.SIGHUP)
        with output.waiting("loading"):
            handler = _handler(args.handler)
        code = handler(args, output)
        sys.stdout.flush()
        return code
    except SegInferError as error:
        output.error(error)
        return 2
    except OSError as error:  # of a file system or a terminal, in a place that no command handles
        if isinstance(error, BrokenPipeError):  # `seginfer ... | head`
            _mute()
            return 0
        refusal = OutputWriteError(f"{error}; check the path and the free space")
        try:
            sys.stdout.flush()
            output.error(refusal)
        except OSError:  # of standard output itself
            _mute()
            output.error(refusal)
        return 2
    except KeyboardInterrupt:
        with suppress(OSError):  # of a closed terminal
            sys.stderr.write("seginfer: interrupted; finished files are complete, the unfinished one was deleted\n")
        return INTERRUPTED


def _mute() -> None:
    """Discard the buffer of standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_on(*signals: signal.Signals) -> None:
    for number in signals:
        if signal.getsignal(number) != signal.SIG_IGN:  # keep `nohup` working
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _handler(name: str) -> Callable[..., int]:
    """Import the handler of a command."""
    # Only now: `seginfer info` must not wait for torch.
    module, _, function = name.partition(":")
    handler: Callable[..., int] = getattr(importlib.import_module(module), function)
    return handler
