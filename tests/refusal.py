"""What a refusal must look like: a SegInferError, the matching built-in, one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from seginfer import (
    BackendError,
    ExportError,
    InputError,
    MissingFileError,
    ModelFileError,
    OutputWriteError,
    SegInferError,
    SpecError,
)

BUILTINS = {
    InputError: ValueError,
    SpecError: ValueError,
    MissingFileError: FileNotFoundError,
    ModelFileError: ValueError,
    OutputWriteError: OSError,
    BackendError: RuntimeError,
    ExportError: RuntimeError,
}


@contextmanager
def refuses(kind: type[SegInferError], *words: str) -> Iterator[None]:
    """Expect an error of this kind that is also the built-in, in one line that holds all the words."""
    with pytest.raises(kind) as caught:
        yield
    assert isinstance(caught.value, SegInferError)
    assert isinstance(caught.value, BUILTINS[kind])
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    for word in words:
        assert word in message
