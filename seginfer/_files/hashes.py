"""Hashes and stamps of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from .._errors import MissingFileError, ModelFileError, SegInferError

_CHUNK = 1 << 22


def with_weights_sha256(sha256: str, path: str | Path, files: Sequence[Path]) -> str:
    """Return a hash of `sha256` and of the external weights of a model.

    It is `sha256` itself where there are none. It does not depend on the folder.

    Args:
        sha256: hash of whatever counts of the .onnx file itself.
        path: the .onnx file.
        files: its external weights, as `external_files` returns them.

    Raises:
        MissingFileError: if one of the files does not exist.
        ModelFileError: if one of the files cannot be read.
    """
    if not files:
        return sha256
    folder = Path(path).parent
    lines = [sha256, *(f"{file.relative_to(folder).as_posix()} {file_sha256(file)}" for file in files)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def file_stamp(path: str | Path) -> tuple[int, ...]:
    """Return device, inode, size and mtime of a file.

    They change when the file is written or replaced. For errors see `file_sha256`.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise _file_error(path, error) from error
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def file_sha256(path: str | Path) -> str:
    """Return the hash of a file of any size.

    Raises:
        MissingFileError: if there is no such file, or no longer.
        ModelFileError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _file_error(path, error) from error
    return digest.hexdigest()


def _file_error(path: str | Path, error: OSError) -> SegInferError:
    if isinstance(error, FileNotFoundError):
        return MissingFileError(f"no file at {path}; check the path, or whether something has just deleted it")
    return ModelFileError(f"cannot read {path}: {error.strerror or error}; check its permissions")
