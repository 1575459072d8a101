"""The folder of everything that seginfer keeps between runs."""

from __future__ import annotations

import os
from pathlib import Path

from .._errors import OutputWriteError

VARIABLE = "SEGINFER_CACHE"


def cache_folder() -> Path:
    """Return $SEGINFER_CACHE, else $XDG_CACHE_HOME/seginfer, else ~/.cache/seginfer; it need not exist.

    Raises:
        OutputWriteError: if there is no home directory either, or not the one that $SEGINFER_CACHE names.
    """
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen := os.environ.get(VARIABLE):
            return Path(chosen).expanduser().absolute()
        if os.path.isabs(shared):  # the rule of freedesktop.org: a relative one is to be ignored
            return Path(shared) / "seginfer"
        return Path.home() / ".cache" / "seginfer"
    except RuntimeError as error:
        raise OutputWriteError(f"no place for the engine cache: {error}; set {VARIABLE} to a folder") from error
