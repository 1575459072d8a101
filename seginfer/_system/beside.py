"""Work in another thread beside that of the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def run_beside(work: Callable[[], object] | None) -> Iterator[None]:
    """Run `work`, if any, in a thread while the block runs.

    Where no thread starts, it runs before the block.

    Its error is raised at the end of the block, and takes the place of an error of the block.
    """
    if work is None:
        yield
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    # Pools of the standard library start no work once the main thread has ended.
    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system has no thread left
        thread = threading.current_thread()
        run()
    try:
        yield
    finally:
        if thread is not threading.current_thread():
            thread.join()
        if errors:
            raise errors[0]
