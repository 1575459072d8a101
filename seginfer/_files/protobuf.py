"""Reader and writer of protobuf fields, without a schema."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .._errors import MissingFileError, ModelFileError

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
    """Bytes that are not the expected protobuf message. Callers translate it."""


class map_file:  # noqa: N801  # reads as a function in `with map_file(path) as data`
    """Map a model file into memory, as a context manager.

    Raises:
        MissingFileError: if there is no such file.
        ModelFileError: if it is empty or cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __enter__(self) -> mmap.mmap:
        if not self._path.is_file():
            raise MissingFileError(f"no model file at {self._path}; check the path")
        if self._path.stat().st_size == 0:
            raise ModelFileError(f"{self._path} is empty; copy or export it again")
        try:
            with open(self._path, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            reason = error.strerror or error
            raise ModelFileError(f"cannot read {self._path}: {reason}; check its permissions") from error
        return self._data

    def __exit__(self, *_: object) -> None:
        self._data.close()


def walk_fields(data: mmap.mmap, start: int, end: int) -> Iterator[Field]:
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


def walk_model(data: mmap.mmap) -> Iterator[Field]:
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


def read_varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise MalformedError(f"bad number at byte {position}")


def walk_nested(data: mmap.mmap, field: Field, number: int) -> Iterator[Field]:
    """Yield the fields `number` inside a message field."""
    if field.wire != BYTES:
        raise MalformedError(f"bad field at byte {field.start}")
    return (f for f in walk_fields(data, field.value, field.end) if f.number == number)


def read_text(data: mmap.mmap, field: Field, number: int) -> str:
    found = [f for f in walk_nested(data, field, number) if f.wire == BYTES]
    return data[found[-1].value : found[-1].end].decode() if found else ""


def read_string_pair(data: mmap.mmap, field: Field) -> tuple[str, str]:
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


def copy_bytes(data: mmap.mmap, start: int, end: int, out: BinaryIO) -> None:
    step = 1 << 24
    for position in range(start, end, step):
        out.write(data[position : min(position + step, end)])
