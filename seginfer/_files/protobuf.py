"""Reader and writer of protobuf fields, without a schema."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .._errors import MissingFileError, ModelFileError
from .foreign import recognise

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types

MOST_FIELDS = 10_000  # metadata entries, inputs, outputs


class Field(NamedTuple):
    """Position of a field in a message."""

    number: int
    wire: int
    start: int  # of the header
    value: int  # the number, or the position of the bytes
    end: int


class MalformedError(Exception):
    """Bytes that are not the expected protobuf message."""


class FileBytes:
    """Bytes of a model file, as a context manager.

    A MalformedError inside its block becomes a ModelFileError.

    Args:
        path: a regular file, which may be of any size.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is empty, is not a regular file, cannot be read, or is malformed.
    """

    # Not a memory map: the system ends a process that reads a map of a file which was cut meanwhile.

    _BLOCK = 1 << 16

    def __init__(self, path: str | Path) -> None:
        try:
            # A named pipe would wait for a writer.
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingFileError(f"no model file at {path}; check the path") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ModelFileError(f"cannot read {path}: {reason}; check its name and permissions") from error
        self._path = path
        info = os.fstat(self._file)
        self._size = info.st_size
        self._start, self._block = 0, b""
        if not stat.S_ISREG(info.st_mode) or not self._size:
            os.close(self._file)
            problem = "is empty" if stat.S_ISREG(info.st_mode) else "is not a regular file"
            raise ModelFileError(f"{path} {problem}; copy or export it again")

    def __enter__(self) -> FileBytes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        os.close(self._file)
        if isinstance(error, (MalformedError, UnicodeDecodeError)):
            if foreign := recognise(self._path):
                raise ModelFileError(f"expected an ONNX model, {self._path} is {foreign}") from error
            message = f"{self._path} is not a complete ONNX model ({error}); copy or export it again"
            raise ModelFileError(message) from error

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, position: int) -> int:
        offset = position - self._start
        if not 0 <= offset < len(self._block):
            self._block = self.read(position, min(position + self._BLOCK, self._size))
            self._start, offset = position, 0
        return self._block[offset]

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`.

        Raises:
            MalformedError: if the file was cut after it was opened.
        """
        found = os.pread(self._file, end - start, start)
        if len(found) < end - start:
            raise MalformedError(f"it was cut at byte {start + len(found)} while it was read")
        return found

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to `end` in pieces."""
        for position in range(start, end, 1 << 22):
            yield self.read(position, min(position + (1 << 22), end))


def walk_fields(data: FileBytes, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of a message.

    Raises:
        MalformedError: if a field is malformed or incomplete.
    """
    position = start
    while position < end:
        key, value_at = read_varint(data, position, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise MalformedError(f"bad field at byte {position}")
        if wire == VARINT:
            value, after = read_varint(data, value_at, end)
        elif wire == BYTES:
            length, value = read_varint(data, value_at, end)
            after = value + length
        elif wire in (FIXED32, FIXED64):
            value, after = value_at, value_at + (4 if wire == FIXED32 else 8)
        else:
            raise MalformedError(f"bad wire type {wire} at byte {position}")
        if after > end:
            raise MalformedError(f"it ends at byte {end}, {after - end} bytes too early")
        yield Field(number, wire, position, value, after)
        position = after


def walk_model(data: FileBytes) -> Iterator[Field]:
    """Yield the top-level fields of a file."""
    return at_most(MOST_FIELDS, walk_fields(data, 0, len(data)))


def at_most(limit: int, fields: Iterable[Field]) -> Iterator[Field]:
    """Yield fields up to a limit.

    Raises:
        MalformedError: if there are more.
    """
    # The limits are far beyond real models. They bound time and memory for hostile files.
    for i, field in enumerate(fields):
        if i >= limit:
            raise MalformedError(f"it repeats a field more than {limit} times")
        yield field


def read_varint(data: FileBytes, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise MalformedError(f"bad number at byte {position}")


def walk_nested(data: FileBytes, field: Field, number: int) -> Iterator[Field]:
    """Yield the fields `number` inside a message field."""
    if field.wire != BYTES:
        raise MalformedError(f"bad field at byte {field.start}")
    return (f for f in walk_fields(data, field.value, field.end) if f.number == number)


def read_text(data: FileBytes, field: Field, number: int) -> str:
    found = [f for f in walk_nested(data, field, number) if f.wire == BYTES]
    return data.read(found[-1].value, found[-1].end).decode() if found else ""


def read_string_pair(data: FileBytes, field: Field) -> tuple[str, str]:
    return read_text(data, field, 1), read_text(data, field, 2)


def encode_field(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | BYTES) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
