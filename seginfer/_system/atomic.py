"""Writes: a file appears complete under its name or not at all, and a refusal of the file system is one clear error."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .._errors import OutputWriteError, SegInferError

PART_NAME = re.compile(r"\.\d+-[0-9a-f]+\.part(\.\w+)*")
"""Name of a file that is being written, or that a process has left which was killed while it wrote."""


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` that replaces it on success and vanishes on any failure, Ctrl-C included.

    Raises:
        OutputWriteError: if the file system refuses; the old file, if any, is intact.
    """
    target = Path(os.path.realpath(target))  # a link stays a link
    _check_target(target)
    # Chance, because processes of two containers may share a folder and have one number. Short: names have a limit.
    part = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part{target.suffix}")
    try:
        yield part
        os.replace(part, target)
    except SegInferError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not target.parent.is_dir():
            raise OutputWriteError(f"cannot write {target}: no folder {target.parent}; create it first") from error
        if error.filename is None or Path(error.filename) in (part, target):
            raise _refused(target, error) from error
        raise
    finally:
        with suppress(OSError):  # mostly it is gone; what else there is to say is being said
            part.unlink()


def _check_target(target: Path) -> None:
    """Find out before the work what the file system will say after it."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:  # a name that is too long, a file where a folder should be
        raise _refused(target, error) from error
    if not stat.S_ISREG(mode):
        raise OutputWriteError(f"cannot write {target}: it is not a regular file; choose another name")


def _refused(target: Path, error: OSError) -> OutputWriteError:
    reason = error.strerror or str(error)
    return OutputWriteError(f"cannot write {target}: {reason}; check the name, the folder and its free space")


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it; one that exists is fine.

    Raises:
        OutputWriteError: if the file system refuses, or a file has that name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputWriteError(f"cannot make the folder {path}: {reason}; choose another folder") from error
