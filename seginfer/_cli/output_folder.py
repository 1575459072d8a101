"""Output folder that keeps the files of others."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .._errors import OutputWriteError
from .._system.atomic import PART_NAME, atomic_path, make_folder

LIST_NAME = ".seginfer-outputs.jsonl"
"""List of the files that seginfer wrote into a folder, with their hashes."""

_LEFT_S = 3600  # a file that is being written changes more often


class OutputFolder:
    """Folder to write into, with a list of the files that were written there.

    A file is replaced or deleted only if the list holds it with its present content. Links are not followed.

    Args:
        path: created if it does not exist.
        overwrite: replace other files too.
        keep: real paths that are never replaced.

    Raises:
        OutputWriteError: if the file system refuses.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, keep: Collection[str] = ()) -> None:
        make_folder(path)
        self.path = path
        self._overwrite = overwrite
        self._keep = keep
        self._hashes = _read_list(path)
        self._folders: dict[str, OutputFolder] = {}
        self._written: set[str] = set()
        _delete_leftovers(path)

    def folder(self, *names: str) -> OutputFolder:
        """Return a folder below this one, which is created if it does not exist.

        Raises:
            OutputWriteError: if it is a link, or the file system refuses.
        """
        if not names:
            return self
        if names[0] not in self._folders:
            path = self.path / names[0]
            _refuse_link(path)
            self._folders[names[0]] = OutputFolder(path, overwrite=self._overwrite, keep=self._keep)
        return self._folders[names[0]].folder(*names[1:])

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield a temporary path that becomes the file `name` on success.

        Raises:
            OutputWriteError: if somebody else's file has that name, or the file system refuses.
        """
        target = self.path / name
        _refuse_link(target)
        if os.path.lexists(target):
            if os.path.realpath(target) in self._keep:
                raise OutputWriteError(f"{target} is an input and would be overwritten; choose another -o folder")
            if not self._overwrite and not self._is_own(name) and not self._is_own(name, read_again=True):
                raise OutputWriteError(
                    f"{target} exists and is not as seginfer wrote it; move it, choose another -o folder, or insist "
                    "with --overwrite"
                )
        with atomic_path(target) as part:
            yield part
            self._written.add(name)
            self._add(name, _sha256(part))  # before the file appears: one that is not listed would stay for ever

    def write(self, name: str, content: bytes) -> str:
        """Write a file, and return its path.

        Raises:
            OutputWriteError: as of `file`.
        """
        with self.file(name) as part:
            part.write_bytes(content)
        return str(self.path / name)

    def retain(self, names: Collection[str]) -> None:
        """Delete the files that earlier calls of seginfer wrote, except these."""
        for name in self._hashes.keys() - set(names) - self._written:
            if self._is_own(name):
                (self.path / name).unlink()

    def _is_own(self, name: str, *, read_again: bool = False) -> bool:
        if read_again:  # another process may write into the folder too
            self._hashes.update(_read_list(self.path))
        return _is_as_listed(self.path / name, self._hashes)

    def _add(self, name: str, sha256: str) -> None:
        known = self._hashes.setdefault(name, set())
        if sha256 not in known:
            known.add(sha256)
            line = json.dumps({"path": name, "sha256": sha256}).encode() + b"\n"
            try:
                with _open_list(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
                    os.write(file, line)
            except OSError as error:
                raise OutputWriteError(f"cannot write {self.path / LIST_NAME}: {error.strerror}; delete it") from error


def files_written_into(folder: str | Path) -> set[str]:
    """Return the names of the files in a folder that are as seginfer wrote them."""
    hashes = _read_list(Path(folder))
    return {name for name in hashes if _is_as_listed(Path(folder, name), hashes)}


def _is_as_listed(path: Path, hashes: Mapping[str, Collection[str]]) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode) and _sha256(path) in hashes.get(path.name, ())
    except OSError:
        return False


def _read_list(folder: Path) -> dict[str, set[str]]:
    """Return the hashes of each file on the list. Lines that are no entries are skipped."""
    hashes: dict[str, set[str]] = {}
    with suppress(OSError), _open_list(folder, os.O_RDONLY) as file, open(file, "rb", closefd=False) as lines:
        for line in lines:
            with suppress(ValueError, TypeError, KeyError, RecursionError):
                entry = json.loads(line)
                if os.path.basename(entry["path"]) == entry["path"]:  # in this folder, whoever wrote the list
                    hashes.setdefault(entry["path"], set()).add(entry["sha256"])
    return hashes


@contextmanager
def _open_list(folder: Path, flags: int) -> Iterator[int]:
    file = os.open(folder / LIST_NAME, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _refuse_link(path: Path) -> None:
    if os.path.islink(path):
        raise OutputWriteError(f"{path} is a link, and links are not followed; delete it, or choose another -o folder")


def _delete_leftovers(folder: Path) -> None:
    """Delete temporary files of processes that were killed."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if PART_NAME.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFT_S:
                os.unlink(entry)
