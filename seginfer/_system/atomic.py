"""Atomic writes: a file is complete or absent."""

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
"""Name of a temporary file, which a killed process may leave."""


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `target` on success.

    The file is complete or absent after a loss of power, too. The temporary file is deleted on failure, including
    Ctrl-C.

    Raises:
        OutputWriteError: if the file system refuses. The old file, if any, is intact.
    """
    target = Path(os.path.realpath(target))  # write the file behind a link
    check_target(target)
    # Random, because two containers may share a folder and have equal process ids. Short, because names are limited.
    part = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part{target.suffix}")
    try:
        yield part
        # A rename may reach the disk before the content. Robots are switched off without a warning.
        _sync(part, os.O_RDONLY)
        os.replace(part, target)
        with suppress(OSError):  # some file systems synchronise no folders
            _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    except SegInferError as error:
        error.args = tuple(_renamed(arg, part, target) for arg in error.args)
        raise
    except OSError as error:
        if error.filename is None or Path(error.filename) in (part, target):
            raise _write_error(target, error) from error
        raise
    finally:
        with suppress(OSError):  # replaced already, or another error is being raised
            part.unlink()


def _sync(path: Path, flags: int) -> None:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _renamed(arg: object, part: Path, target: Path) -> object:
    """Replace the temporary name in a message."""
    return arg.replace(str(part), str(target)).replace(part.name, target.name) if isinstance(arg, str) else arg


def check_target(target: Path) -> None:
    """Raise early if a file cannot be written.

    Raises:
        OutputWriteError: if its folder does not exist, or something else than a file has its name.
    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError as error:
        if not target.parent.is_dir():
            raise OutputWriteError(f"cannot write {target}: no folder {target.parent}; create it first") from error
        return
    except OSError as error:  # for example, the name is too long, or a parent is a file
        raise _write_error(target, error) from error
    if not stat.S_ISREG(mode):
        raise OutputWriteError(f"cannot write {target}: it is not a regular file; choose another name")


def _write_error(target: Path, error: OSError) -> OutputWriteError:
    reason = error.strerror or str(error)
    return OutputWriteError(f"cannot write {target}: {reason}; check the name, the folder and its free space")


def make_folder(path: str | Path, mode: int = 0o777) -> None:
    """Create a folder and its parents if they do not exist.

    Args:
        path: the folder.
        mode: permissions of a new folder. Parents get the default.

    Raises:
        OutputWriteError: if the file system refuses, or a file has that name.
    """
    try:
        Path(path).mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputWriteError(f"cannot create the folder {path}: {reason}; choose another folder") from error
