"""Work in another thread beside that of the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def run_beside(work: Callable[[], object] | None) -> Iterator[None]:
    """Run `work`, if any, in a thread while the block runs. Its error is raised at the end of the block."""
    if work is None:
        yield
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]
