"""Tables, progress bars and JSON output of commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._errors import MissingDependencyError, SegInferError, shortened
from .._system.environment import require

if TYPE_CHECKING:  # not every command needs it
    from .._bench.statistics import StageLatency
    from .._tensorrt import BuildStep

Advance = Callable[[], None]


class Output:
    """Writer of results and progress.

    Args:
        as_json: print one JSON object at the end, and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, data: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Print `data` as JSON, or call `show` to print tables."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")
        else:
            show()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table."""
        cells = [[printable(str(cell)) for cell in row] for row in (columns, *rows)]
        if not _has_rich():
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
            sys.stdout.write("\n".join([printable(title), *lines, "\n"]))
            return
        text = _rich("text").Text
        table = _rich("table").Table(title=text(printable(title)), title_justify="left", title_style="bold")
        for column in cells[0]:
            table.add_column(text(column), overflow="fold")
        for row in cells[1:]:
            table.add_row(*map(text, row))
        _console().print(table)

    def say(self, text: str) -> None:
        """Print one line, except in JSON mode."""
        if not self.as_json:
            sys.stdout.write(f"{printable(text)}\n")

    def error(self, error: SegInferError) -> None:
        """Print an error in one line, and as JSON if requested."""
        message = in_one_line(str(error))
        if self.as_json:
            sys.stdout.write(json.dumps({"error": message, "kind": type(error).__name__}) + "\n")
            sys.stdout.flush()  # if this fails, the caller prints another error, and no line must be out yet
        sys.stderr.write(f"seginfer: {message}\n")

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Advance]:
        """Show a progress bar if standard error is a terminal.

        Yields:
            A function to call after each step.
        """
        if not self._is_animated():
            yield lambda: None
            return
        with self._bars() as bar:
            task = bar.add_task(printable(label), total=total)
            yield lambda: bar.advance(task)

    @contextmanager
    def phases(self) -> Iterator[Callable[[BuildStep], None] | None]:
        """Show nested progress bars for the phases of a build.

        Yields:
            A function to call with each step, or None if standard error is no terminal.
        """
        if not self._is_animated():
            yield None
            return
        with self._bars() as bars:
            yield _Phases(bars).show

    @contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Show a spinner for work without steps."""
        if not self._is_animated():
            yield
            return
        with _rich("console").Console(file=sys.stderr).status(_rich("text").Text(printable(label))):
            yield

    def _is_animated(self) -> bool:
        return not self.as_json and sys.stderr.isatty() and _has_rich()

    def _bars(self) -> Any:
        progress = _rich("progress")
        return progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=_rich("console").Console(file=sys.stderr),
            transient=True,
        )


class _Phases:
    """Progress bars of the current phases."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._open: dict[str, Any] = {}

    def show(self, step: BuildStep) -> None:
        """Add, advance or remove the bar of a phase."""
        if step.done >= step.total:
            if step.phase in self._open:
                self._bars.remove_task(self._open.pop(step.phase))
            return
        if step.phase not in self._open:
            label = f"{'  ' * step.depth}{printable(step.phase)}"
            self._open[step.phase] = self._bars.add_task(label, total=step.total)
        self._bars.update(self._open[step.phase], completed=step.done)


def latency_table(latency: StageLatency) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and rows of a latency table."""
    rows = [(stage, *(f"{value:.2f}" for value in values.values())) for stage, values in latency.items()]
    return ("stage", "p50", "p95", "max"), rows


def printable(text: str) -> str:
    """Escape control characters, which names of files and in model files may hold."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def in_one_line(message: str) -> str:
    """Return a message in one printable line of limited length."""
    return printable(shortened(" ".join(message.split())))


def _console() -> Any:
    console = _rich("console").Console()
    console.on_broken_pipe = _raise_again  # rich would exit with code 1
    return console


def _raise_again() -> None:
    raise


def _has_rich() -> bool:
    try:
        _rich("table")
    except MissingDependencyError:
        return False
    return True


def _rich(module: str) -> Any:
    return require(f"rich.{module}", extra="cli", purpose="the command line")
