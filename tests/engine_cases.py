"""Engines of tiny models, really built by TensorRT for RTX on a machine without a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seginfer import MissingDependencyError
from seginfer._tensorrt.engine_file import sidecar_path
from seginfer._tensorrt.library import find_library, has_gpu


def _missing() -> str:
    try:
        library = find_library()
    except MissingDependencyError as error:
        return str(error)
    return f"{library.description} builds for the GPU that is here" if has_gpu() else ""


needs_rtx = pytest.mark.skipif(bool(_missing()), reason=_missing() or "TensorRT for RTX is there")


def flip_byte(path: Path, at: int) -> None:
    """Change one bit of a file, and nothing else that a look at the folder would show."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit_sidecar(engine: Path, edit: Callable[[dict[str, Any]], object], *, seal: bool) -> None:
    """Change the sidecar of an engine; with `seal`, as seginfer itself would have written it."""
    from seginfer._tensorrt.engine_file import _seal

    document = json.loads(sidecar_path(engine).read_text())
    edit(document)
    if seal:
        document["content_sha256"] = _seal(document["content"])
    sidecar_path(engine).write_text(json.dumps(document))
