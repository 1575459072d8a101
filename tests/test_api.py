"""The public surface, the import rules, and what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seginfer
import seginfer._errors
import seginfer.export

ROOT = Path(__file__).parent.parent


def imports_of(path: Path, *, anywhere: bool) -> set[str]:
    """Return the absolute names that a file imports, at its top level or anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if anywhere else iter(tree.body)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return names


def test_all_lists_every_public_name_in_order() -> None:
    assert seginfer.__all__ == sorted(seginfer.__all__)
    public = {name for name, value in vars(seginfer).items() if not name.startswith("_") and _is_ours(value)}
    assert public <= set(seginfer.__all__)
    assert all(hasattr(seginfer, name) for name in seginfer.__all__)
    assert all(hasattr(seginfer.export, name) for name in seginfer.export.__all__)


def _is_ours(value: object) -> bool:
    return getattr(value, "__module__", "").startswith("seginfer")


@pytest.mark.parametrize("name", [n for n in seginfer.__all__ if n != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    assert len(getattr(seginfer, name).__doc__ or "") > 20


def test_every_public_error_is_ours_and_a_builtin() -> None:
    public = [getattr(seginfer, name) for name in seginfer.__all__ if name.endswith("Error")]
    assert len(public) == 14
    for error in public:
        assert issubclass(error, seginfer.SegInferError)
        if error is not seginfer.SegInferError:
            assert any(base.__module__ == "builtins" and base is not Exception for base in error.__mro__[1:-3])


def test_the_tree_of_errors_is_complete() -> None:
    """Compare the drawn tree with the classes in the code, by name and parent."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for folder in ("seginfer", "export")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    ours = {"SegInferError"}
    while more := {name for name, parents in bases.items() if ours & set(parents)} - ours:
        ours |= more
    found = {name: next((base for base in bases[name] if base in ours), "") for name in ours}
    assert _drawn_errors() == found


def _drawn_errors() -> dict[str, str]:
    """Return the parent of every error in the tree that the module `_errors` draws."""
    parents, above = {}, {-1: ""}
    for line in (seginfer._errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([ │├└─]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4
            parents[found[2]] = above[depth - 1]
            above[depth] = found[2]
    return parents


def test_the_device_half_imports_nothing_but_numpy_and_itself() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "seginfer", "__future__"}
    for path in (ROOT / "seginfer").rglob("*.py"):
        found = {name.partition(".")[0] for name in imports_of(path, anywhere=path.parent.name != "backends")}
        own = {path.stem} if path.parent.name == "backends" else set()
        assert found <= allowed | own, path


def test_the_device_half_never_imports_the_workstation_half() -> None:
    for path in (ROOT / "seginfer").rglob("*.py"):
        assert not any("export" in name for name in imports_of(path, anywhere=True)), path
        assert "from .export" not in path.read_text(encoding="utf-8"), path


def test_rooms_of_the_device_half_form_no_cycle() -> None:
    """Follow the relative imports of the private modules; a cycle would show as an import of an ancestor."""
    graph = {path.stem: _relative(path) for path in (ROOT / "seginfer").glob("_*.py") if path.stem != "__init__"}
    graph["backends"] = _relative(ROOT / "seginfer" / "backends" / "__init__.py")

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        for other in graph.get(name, set()):
            visit(other, (*above, name))

    for name in graph:
        visit(name, ())


def _relative(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {(node.module or "").partition(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def test_importing_seginfer_pulls_in_nothing_but_numpy_and_few_modules() -> None:
    """Every module costs about a millisecond. Counting them holds the time of an import on a busy machine too."""
    code = "import sys, numpy; before = set(sys.modules); import seginfer; print(*sorted(set(sys.modules) - before))"
    new = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in new} <= {*sys.stdlib_module_names, "numpy", "seginfer"}
    assert not [name for name in new if name.startswith("seginfer.export")]
    assert len(new) < 170  # 136 on 2026-11-28, 80 of them ours


def test_every_file_says_what_it_holds() -> None:
    for folder in ("seginfer", "export", "tests", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
            assert len(first) > 15, path
            assert first.endswith((".", ":")), path


CODE = (".py", ".h", ".cpp", ".cu", ".cuh")


@pytest.mark.parametrize(
    ("folder", "limit"),
    [(name, 250) for name in ("seginfer", "export", "cpp_bindings", "benchmarks", "examples")] + [("tests", 400)],
)
def test_no_file_outgrows_its_room(folder: str, limit: int) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in CODE]
    assert files
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert not {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > limit}
