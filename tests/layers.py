"""The import graph of the device half: every import of every file, lazy ones and those for type checkers too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = "seginfer"
COMMAND_TABLE = "_cli.parser"
"""The one module that may name the workstation half: commands are named there, and imported when they run."""


class Import(NamedTuple):
    """One import of one module by another; names are relative to seginfer, which is "seginfer" itself."""

    source: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(package: Path) -> dict[str, Path]:
    """Return every module of the package folder by its dotted name, without the workstation half."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] != "export":
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or ROOT] = path
    return found


def imports(package: Path) -> list[Import]:
    """Return every import of one module of the package by another."""
    known = modules(package)
    return [found for name in known for found in _imports_of(name, known)]


def violations(package: Path, layers: Sequence[str]) -> list[str]:
    """Return what breaks the written order.

    Args:
        package: folder of the package.
        layers: from the top down, modules of one layer separated by spaces. A module imports from later layers only.
    """
    rank = {name: i for i, line in enumerate(layers) for name in line.split()}
    known = modules(package)
    problems = [f"{name} is in no layer" for name in known if name not in rank]
    problems += [f"{name} is in a layer, and there is no such module" for name in rank if name not in known]
    for one in imports(package):
        if one.target == "export":
            if one.source != COMMAND_TABLE:
                problems.append(f"{one}, the workstation half")
        elif one.source in rank and one.target in rank and rank[one.target] <= rank[one.source]:
            problems.append(f"{one}, which is not below it")
    return problems


def _imports_of(name: str, known: dict[str, Path]) -> Iterator[Import]:
    path = known[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name.removeprefix(ROOT) if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        for target in _targets(node, [ROOT, *filter(None, package.split("."))]):
            module = _module(target, known)
            if module is not None and module != name:
                yield Import(name, getattr(node, "lineno", 0), module)


def _targets(node: ast.AST, package: list[str]) -> list[list[str]]:
    """Return the dotted names that a statement imports, or that a string names as a module of ours."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        base = base + (node.module.split(".") if node.module else [])
        return [[*base, alias.name] for alias in node.names]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # import_module("seginfer.x"), "seginfer.x:main"
        dotted = node.value.partition(":")[0].split(".")
        return [dotted] if len(dotted) > 1 and all(map(str.isidentifier, dotted)) else []
    return []


def _module(target: list[str], known: dict[str, Path]) -> str | None:
    """Return the module that a dotted name belongs to; None outside of the package."""
    if target[0] != ROOT:
        return None
    if target[1:2] == ["export"]:
        return "export"
    for length in range(len(target), 1, -1):
        if (name := ".".join(target[1:length])) in known:
            return name
    return ROOT
