"""Every type that a public signature mentions can be imported from a public package."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, get_args, get_type_hints

import pytest

import seginfer
import seginfer.backends
import seginfer.backends.onnxruntime
import seginfer.backends.tensorrt
import seginfer.backends.torch
import seginfer.export

# Public modules. A type in the signatures of one must be importable from it, or from a package that is named before it.
HOMES = {
    "seginfer": [],
    "seginfer.backends": ["seginfer"],
    "seginfer.backends.onnxruntime": ["seginfer", "seginfer.backends"],
    "seginfer.backends.tensorrt": ["seginfer", "seginfer.backends"],
    "seginfer.backends.torch": ["seginfer", "seginfer.backends"],
    "seginfer.export": ["seginfer"],
}
PROVIDED = {"DeviceMemory"}  # seginfer constructs these, so their constructors are private


@pytest.mark.parametrize("name", HOMES)
def test_types_in_public_signatures_are_public(name: str) -> None:
    public = {id(value) for home in [*HOMES[name], name] for value in _public(sys.modules[home]).values()}
    hidden = {
        f"{place}: {mentioned.__qualname__} of {mentioned.__module__}"
        for label, value in _public(sys.modules[name]).items()
        for place, hint in _hints(label, value)
        for mentioned in _classes(hint)
        if mentioned.__module__.startswith("seginfer") and id(mentioned) not in public
    }
    assert not hidden, "\n".join(sorted(hidden))


def test_a_hidden_type_is_found() -> None:
    """Guard the check itself."""
    found = {mentioned.__name__ for _, hint in _hints("", seginfer.build_engine) for mentioned in _classes(hint)}
    assert {"EngineFile", "EngineOptions", "BuildStep"} <= found
    found = {mentioned.__name__ for _, hint in _hints("", seginfer.Segmenter) for mentioned in _classes(hint)}
    assert {"Segmentation", "Backend", "Trace", "EngineOptions"} <= found


def _public(module: ModuleType) -> dict[str, Any]:
    """Return the names in `__all__`, or the classes and functions that the module defines."""
    if names := getattr(module, "__all__", None):
        return {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def _hints(label: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place and the type of every annotation of a function, or of a class and its public members."""
    if isinstance(value, FunctionType):
        for name, hint in get_type_hints(value, localns=_checking_names(value.__module__)).items():
            yield f"{label}({name})", hint
    elif inspect.isclass(value) and value.__module__.startswith("seginfer"):
        for name, hint in get_type_hints(value, localns=_checking_names(value.__module__)).items():
            if not name.startswith("_"):
                yield f"{label}.{name}", hint
        for name, member in vars(value).items():
            function = (
                getattr(member, "fget", None) or getattr(member, "__func__", None) or getattr(member, "func", member)
            )
            public = {"__call__"} if value.__name__ in PROVIDED else {"__call__", "__init__"}
            if isinstance(function, FunctionType) and (not name.startswith("_") or name in public):
                yield from _hints(f"{label}.{name}", function)


def _checking_names(module: str) -> dict[str, Any]:
    """Return what a module imports for type checkers only."""
    names: dict[str, Any] = {"__name__": module, "__package__": sys.modules[module].__package__}
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module, "exec"), names)
    return names


def _classes(hint: Any) -> Iterator[type]:
    """Yield the classes inside of a type."""
    if inspect.isclass(hint) and not get_args(hint):
        yield hint
    for inner in get_args(hint):
        for one in inner if isinstance(inner, list) else [inner]:
            yield from _classes(one)
