"""The library's timing cache: what it measured in earlier builds on this device, which makes the next one faster."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .library import Library, message_log


def load_timing_cache(library: Library, config: Any, data: bytes) -> str:
    """Give a build an earlier cache, or an empty one if there is none, and return why it could not be used.

    A cache belongs to one version of the library and one kind of GPU; one of another is refused by the library.
    """
    problem = _load(library, config, data) if data else ""
    if problem or not data:
        _load(library, config, b"")
    return problem


def saved_timing_cache(config: Any) -> bytes:
    """Return the cache of a build that is done; empty if the library has none."""
    with _without_deprecation():
        cache = config.get_timing_cache()
        data = None if cache is None else cache.serialize()
    return b"" if data is None else bytes(memoryview(data))


def _load(library: Library, config: Any, data: bytes) -> str:
    with message_log(library).collect() as messages, _without_deprecation():
        cache = config.create_timing_cache(data)
        is_set = cache is not None and config.set_timing_cache(cache, False)
    # A cache that cannot be read comes back empty, with a warning in the log.
    said = next((m.text for m in messages if m.severity == "WARNING" and "timing cache" in m.text.lower()), "")
    return said if said or is_set else f"{library.description} refused it"


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """TensorRT for RTX keeps this part of the API, does nothing in it, and warns of it from its version 1.2 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
