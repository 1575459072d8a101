"""The command line `seginfer`.

Errors are one line and exit code 2. Exit code 1 is a job partly done, and 130 is Ctrl-C.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from .._errors import InputError, OutputWriteError, SegInferError
from .output import Output, printable
from .parser import build_parser

INTERRUPTED = 130

_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    _open_closed_streams()
    is_process = argv is None  # the whole process is ours, so a signal may clean up as Ctrl-C does
    signals = _Signals(*(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if is_process else ())
    try:
        return _run(argv, signals)
    except BaseException as error:
        if signals.came or isinstance(error, KeyboardInterrupt):  # libraries turn it into other errors
            with suppress(OSError):  # of a closed terminal
                sys.stderr.write("seginfer: interrupted; finished files are complete, the unfinished one was deleted\n")
            return INTERRUPTED
        raise


def _run(argv: Sequence[str] | None, signals: _Signals) -> int:
    args = build_parser().parse_args(argv)
    _log_to_stderr(logging.INFO if args.verbose else logging.WARNING)
    output = Output(as_json=args.json)
    try:
        with output.waiting("loading"):
            handler = _handler(args.handler)
        code = handler(args, output)
        sys.stdout.flush()
        return code
    except SegInferError as error:
        if signals.came:
            raise
        output.error(error)
    except MemoryError:
        output.error(InputError("this needs more memory than there is; use smaller images, or a smaller model"))
    except BrokenPipeError:  # `seginfer ... | head`
        _mute()
        return 0
    except OSError as error:  # of a file system or a terminal, in a place that no command handles
        refusal = OutputWriteError(f"{error}; check the path and the free space")
        try:
            sys.stdout.flush()
            output.error(refusal)
        except OSError:  # of standard output itself
            _mute()
            output.error(refusal)
    return _ERROR


def _open_closed_streams() -> None:
    """Discard the output where a standard stream is closed, as by `>&-`."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # the lowest free descriptor, which is the closed one
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "w"))


def _mute() -> None:
    """Discard the buffer of standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Signals:
    """Signals that end the process as Ctrl-C does."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.came = False
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:  # keep `nohup` working
                signal.signal(number, self._interrupt)
        if numbers:
            wake, woken = os.pipe()
            os.set_blocking(woken, False)
            signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
            threading.Thread(target=_stop_inference, args=(wake,), daemon=True).start()

    def _interrupt(self, *_: object) -> None:
        self.came = True
        raise KeyboardInterrupt


def _stop_inference(wake: int) -> None:
    """Wait for a signal, and stop inference."""
    # Python handles a signal only when a library returns, and a large network, or a graph with a loop, takes its time.
    os.read(wake, 1)
    session = sys.modules.get("seginfer.backends._onnxruntime_session")
    if session is not None and hasattr(session, "stop_runs"):
        session.stop_runs()


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _handler(name: str) -> Callable[..., int]:
    """Import the handler of a command."""
    # Only now: `seginfer info` must not wait for torch.
    module, _, function = name.partition(":")
    handler: Callable[..., int] = getattr(importlib.import_module(module), function)
    return handler
