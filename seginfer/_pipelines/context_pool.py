"""Pool of execution contexts, one per call in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from .._errors import BackendError
from ..backends._protocol import CLOSED
from .context import Context
from .layout import FrameKey


class ContextPool:
    """A fixed number of contexts, made on demand. Further callers wait.

    Args:
        make: makes a context.
        count: the most contexts.
    """

    def __init__(self, make: Callable[[], Context], count: int) -> None:
        self._make = make
        self._count = count
        self._changed = threading.Condition()
        self._free: list[Context] = []
        self._lent = 0
        self._is_closed = False

    @contextmanager
    def borrow(self, key: FrameKey, passes: type[Exception]) -> Iterator[Context]:
        """Borrow a context, preferring one with a cached frame. It is closed if the block fails.

        Args:
            key: of the frame.
            passes: exceptions that do not invalidate the context.

        Raises:
            BackendError: if the contexts are closed.
        """
        context = self._take(key) or self._made()
        is_sound = False
        try:
            yield context
            is_sound = True
        except passes:
            is_sound = True
            raise
        finally:
            try:
                if not is_sound:
                    context.close()
            finally:
                self._give_back(context if is_sound else None)

    def _take(self, key: FrameKey) -> Context | None:
        """Return a free context, or None if a new one may be made."""
        with self._changed:
            while not self._is_closed and not self._free and self._lent >= self._count:
                self._changed.wait()
            if self._is_closed:
                raise BackendError(CLOSED)
            self._lent += 1
            fit = [i for i, context in enumerate(self._free) if context.has(key)]
            return self._free.pop(fit[-1] if fit else -1) if self._free else None

    def _made(self) -> Context:
        try:
            return self._make()
        except BaseException:
            self._give_back(None)
            raise

    def _give_back(self, context: Context | None) -> None:
        with self._changed:
            self._lent -= 1
            if context is not None:
                self._free.append(context)
            self._changed.notify_all()

    def clear_idle(self) -> bool:
        """Free the memory of idle contexts. Return whether there was any."""
        with self._changed:
            had_any = [context.clear() for context in self._free]
        return any(had_any)

    def close(self) -> None:
        """Free every context after the calls in flight. Waiting calls raise BackendError. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            while self._lent:
                self._changed.wait()
            contexts, self._free = self._free, []
        with ExitStack() as stack:  # whatever happens, each is closed
            for context in contexts:
                stack.callback(context.close)
