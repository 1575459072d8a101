"""Modules from factories and from .pt2 exported programs."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from seginfer._errors import ExportError, MissingFileError
from seginfer._files.foreign import recognise


class Source(NamedTuple):
    """Module to export."""

    module: nn.Module
    batch_size: int | None
    """Batch size that the module is bound to. None if it takes any."""
    name: str


def load_source(source: str, kwargs: dict[str, Any] | None = None, *, trust_code: bool = False) -> Source:
    """Load a module from a factory or an exported program.

    Both run code: a factory is code of yours, and a .pt2 file may hold code of whoever wrote it.

    Args:
        source: "package.module:factory", or a path that ends in .pt2. A factory is imported from the Python path or the
            current folder.
        kwargs: keyword arguments of the factory.
        trust_code: load a .pt2 file.

    Raises:
        MissingFileError: if a .pt2 file does not exist.
        ExportError: if the factory cannot be imported, fails, or returns something else than a module, or a .pt2 file
            is not trusted or cannot be loaded.
    """
    if source.endswith(".pt2"):
        return _from_program(Path(source), trust_code)
    foreign = recognise(source)
    if foreign:
        raise ExportError(f"expected package.module:factory or a .pt2 file, {source} is {foreign}")
    return Source(_from_factory(source, kwargs or {}), None, source)


def _from_factory(source: str, kwargs: dict[str, Any]) -> nn.Module:
    factory = import_object(source, "package.module:factory or a .pt2 file")
    try:
        module = factory(**kwargs)
    except (Exception, SystemExit) as error:  # the user's factory may raise anything
        raise ExportError(
            f"{source} failed with {type(error).__name__}: {error}; pass its arguments with kwargs"
        ) from error
    if not isinstance(module, nn.Module):
        raise ExportError(f"{source} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def import_object(source: str, expected: str) -> Any:
    """Import an object by "package.module:name", from the current folder too.

    Raises:
        ExportError: if the text has another form, or the import fails.
    """
    name, separator, attribute = source.partition(":")
    if not (name and separator and attribute):
        raise ExportError(f"expected {expected}, got {source!r}")
    try:
        return getattr(_import(name), attribute)
    except Exception as error:  # the user's module may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ExportError(f"cannot import {source} ({reason}); run in its folder or install its package") from error


def _import(name: str) -> Any:
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)


def _from_program(path: Path, trust_code: bool) -> Source:
    if not path.is_file():
        raise MissingFileError(f"no exported program at {path}; check the path")
    # torch.export.load unpickles objects, evaluates expressions and opens shared libraries that are in the archive.
    if not trust_code:
        raise ExportError(
            f"{path} was not loaded, because a .pt2 file can run code; if you trust its origin, give --trust-code "
            "(trust_code=True), or export from a factory"
        )
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch.export raises many kinds for foreign and truncated archives
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"torch.export cannot load {path}: {reason}; save it again with this torch") from error
    user_input = program.graph_signature.user_inputs[0]
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == user_input)
    batch_size = shape[0] if isinstance(shape[0], int) else None
    return Source(_Program(program.module()), batch_size, path.name)


class _Program(nn.Module):
    """Exported program as a module."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: torch.Tensor) -> Any:
        """Run the program."""
        return self.program(x)

    def train(self, mode: bool = True) -> _Program:
        """Keep the mode of the export, which torch cannot change."""
        del mode
        return self
