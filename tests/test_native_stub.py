"""The committed stub of the compiled core says what nanobind reads from it: names, signatures, documentation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from native import needs_core

from seginfer import _native

STUB = Path(_native.__file__).parent / "_ext.pyi"


class Normalised(ast.NodeTransformer):
    """Writes `NDArray[Any]` as `NDArray` and `dict(a=1)` as `{"a": 1}`, in the order of keys."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        return node.value if ast.unparse(node) == "NDArray[Any]" else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) != "dict":
            return node
        return self.visit_Dict(ast.Dict([ast.Constant(k.arg) for k in node.keywords], [k.value for k in node.keywords]))

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:
        pairs = sorted(zip(node.keys, node.values, strict=True), key=lambda pair: ast.unparse(pair[0] or pair[1]))
        return ast.Dict([key for key, _ in pairs], [value for _, value in pairs])


def signatures(tree: ast.AST, within: str = "") -> Iterator[str]:
    """Yield each class and function of a stub as one line: decorators, name, arguments, result and documentation."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield f"class {within}{node.name}: {ast.get_docstring(node)}"
            yield from signatures(node, f"{within}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            decorators = [ast.unparse(one) for one in node.decorator_list]
            result = ast.unparse(node.returns) if node.returns else ""
            text = ast.get_docstring(node)
            yield f"{decorators} {within}{node.name}({ast.unparse(node.args)}) -> {result}: {text}"
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            yield f"{within}{ast.unparse(node)}"


@needs_core
def test_the_stub_says_what_the_module_holds() -> None:
    stubgen = pytest.importorskip("nanobind.stubgen", reason="nanobind writes the stub")
    generator = stubgen.StubGen(_native.core)
    generator.put(_native.core)
    committed, generated = (
        Normalised().visit(ast.parse(text)) for text in (STUB.read_text(encoding="utf-8"), generator.get())
    )
    assert list(signatures(committed)) == list(signatures(generated))
    assert ast.get_docstring(committed) == ast.get_docstring(generated)
