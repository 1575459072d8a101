"""What commands show: rich tables and progress bars for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .._errors import SegInferError
from .._optional import require

Advance = Callable[[], None]


class Output:
    """Shows results.

    Args:
        as_json: print one JSON object at the end and nothing else.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, data: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Print `data` as JSON, or call `show` for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")
        else:
            show()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table."""
        table = _rich("table").Table(title=title, title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_rich("text").Text(printable(str(cell))) for cell in row))
        self._console().print(table)

    def say(self, text: str) -> None:
        """Print one line, for people only."""
        if not self.as_json:
            self._console().print(_rich("text").Text(printable(text)), soft_wrap=True)

    def error(self, error: SegInferError) -> None:
        """Print an error in one line; in JSON mode also as an object."""
        message = printable(" ".join(str(error).split()))
        if self.as_json:
            sys.stdout.write(json.dumps({"error": message, "kind": type(error).__name__}) + "\n")
        sys.stderr.write(f"seginfer: {message}\n")

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Advance]:
        """Show a progress bar on a terminal's standard error; yields what to call after each step."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda: None
            return
        progress = _rich("progress")
        bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=_rich("console").Console(file=sys.stderr),
            transient=True,
        )
        with bar:
            task = bar.add_task(label, total=total)
            yield lambda: bar.advance(task)

    @contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Show that something without steps is going on."""
        if self.as_json or not sys.stderr.isatty():
            yield
            return
        with _rich("console").Console(file=sys.stderr).status(label):
            yield

    def _console(self) -> Any:
        return _rich("console").Console()


def printable(text: str) -> str:
    """Escape what would steer the terminal: names inside a model file are somebody else's."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _rich(module: str) -> Any:
    return require(f"rich.{module}", extra="cli", purpose="the command line")
