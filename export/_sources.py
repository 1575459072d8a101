"""Modules from factories and from .pt2 exported programs."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from seginfer._errors import ExportError, MissingFileError, WeightsError


class Source(NamedTuple):
    """Module to export."""

    module: nn.Module
    batch_size: int | None
    """Batch size that the module is bound to. None if it takes any."""
    name: str


def load_source(source: str, kwargs: dict[str, Any] | None = None) -> Source:
    """Load a module from a factory or an exported program.

    Args:
        source: "package.module:factory", or a path that ends in .pt2. A factory is imported from the Python path or the
            current folder.
        kwargs: keyword arguments of the factory.

    Raises:
        MissingFileError: if a .pt2 file does not exist.
        ExportError: if the factory cannot be imported, fails, or returns something else than a module.
        WeightsError: if a .pt2 file holds pickled objects that only unsafe loading would read.
    """
    if source.endswith(".pt2"):
        return _from_program(Path(source))
    return Source(_from_factory(source, kwargs or {}), None, source)


def _from_factory(source: str, kwargs: dict[str, Any]) -> nn.Module:
    name, separator, attribute = source.partition(":")
    if not (name and separator and attribute):
        raise ExportError(f"expected package.module:factory or a .pt2 file, got {source!r}")
    try:
        factory = getattr(_import(name), attribute)
    except Exception as error:  # the user's module may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ExportError(f"cannot import {source} ({reason}); run in its folder or install its package") from error
    try:
        module = factory(**kwargs)
    except (Exception, SystemExit) as error:  # the user's factory may raise anything
        raise ExportError(
            f"{source} failed with {type(error).__name__}: {error}; pass its arguments with kwargs"
        ) from error
    if not isinstance(module, nn.Module):
        raise ExportError(f"{source} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def _import(name: str) -> Any:
    """Import a module, from the current folder too."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        if added:
            sys.path.remove(here)


def _from_program(path: Path) -> Source:
    if not path.is_file():
        raise MissingFileError(f"no exported program at {path}; check the path")
    _refuse_unsafe_objects(path)
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch.export raises many kinds for foreign and truncated archives
        raise ExportError(f"torch.export cannot load {path}: {error}; save it again with this torch") from error
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


def _refuse_unsafe_objects(path: Path) -> None:
    """Refuse archives with pickled objects other than tensors."""
    # torch.export.load unpickles them without a check.
    try:
        with zipfile.ZipFile(path) as archive:
            for name in _pickled_members(archive):
                torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ExportError(
            f"{path} is not a complete .pt2 archive ({error}); save it again with torch.export"
        ) from error
    except Exception as error:  # torch.load raises many kinds for objects that are not plain tensors
        raise WeightsError(
            f"{path} holds objects that are not plain tensors, and loading them would run code; "
            "save the program without custom constants, or export from a factory"
        ) from error


def _pickled_members(archive: zipfile.ZipFile) -> list[str]:
    members = archive.namelist()
    if not any(name.endswith("archive_format") for name in members):
        raise ValueError("written by a torch older than 2.9")
    pickled = [name for name in members if "/data/sample_inputs/" in name]
    for config in (name for name in members if name.endswith(("weights_config.json", "constants_config.json"))):
        folder = config.rpartition("/")[0]
        for entry in json.loads(archive.read(config))["config"].values():
            if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
                pickled.append(f"{folder}/{entry['path_name']}")
    return pickled
