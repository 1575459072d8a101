"""Engines of tiny models, really built by TensorRT for RTX on a machine without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seginfer import MissingDependencyError
from seginfer._system.driver import has_gpu
from seginfer._tensorrt.engine_file import hash_content, sidecar_path
from seginfer._tensorrt.library import find_library


def _missing() -> str:
    try:
        library = find_library()
    except MissingDependencyError as error:
        return str(error)
    return f"{library.description} builds for the GPU that is here" if has_gpu() else ""


_PRELUDE = """
import logging, os, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
from seginfer._tensorrt.engines import build_engine
"""

needs_rtx = pytest.mark.skipif(bool(_missing()), reason=_missing() or "TensorRT for RTX is there")


def flip_byte(path: Path, at: int) -> None:
    """Change one bit of a file, and nothing else that a look at the folder would show."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit_sidecar(engine: Path, edit: Callable[[dict[str, Any]], object], *, seal: bool) -> None:
    """Change the sidecar of an engine; with `seal`, as seginfer itself would have written it."""
    document = json.loads(sidecar_path(engine).read_text())
    edit(document)
    if seal:
        document["content_sha256"] = hash_content(document["content"])
    sidecar_path(engine).write_text(json.dumps(document))


def names(folder: Path) -> set[str]:
    """Return the names of all files in a folder."""
    return {path.name for path in folder.iterdir()}


def run_python(code: str) -> subprocess.Popen[str]:
    """Run code that may call `build_engine` in a process of its own, with the log on its standard output."""
    return subprocess.Popen([sys.executable, "-c", _PRELUDE + code], stdout=subprocess.PIPE, text=True)
