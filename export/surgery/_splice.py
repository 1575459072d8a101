"""Insertion of Python functions into exported programs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import statically_known_true


def splice(node: Node, function: Callable[..., Any], *args: Any) -> Any:
    """Insert the operators of a function before a node.

    The function is traced on the shapes of its arguments in the program.

    Args:
        node: the node to replace. The new nodes inherit its module path.
        function: takes tensors, and returns a tensor or a tuple of tensors. Sizes may be symbolic.
        args: constants, and nodes. The function gets the tensors and sizes that the nodes yield.

    Returns:
        The nodes that hold the function's results, in its structure.
    """
    flat, structure = torch.utils._pytree.tree_flatten(args)
    inputs = [arg for arg in flat if isinstance(arg, Node)]

    def positional(*values: Any) -> Any:
        given = iter(values)
        leaves = [next(given) if isinstance(arg, Node) else arg for arg in flat]
        return function(*torch.utils._pytree.tree_unflatten(leaves, structure))

    values = [arg.meta["val"] for arg in inputs]
    fake_mode = detect_fake_mode(values) or contextlib.nullcontext()
    with fake_mode, enable_python_dispatcher():  # shapes alone, symbolic ones included
        traced = make_fx(positional, pre_dispatch=True)(*values)
    traced.graph.eliminate_dead_code()
    placeholders = [part for part in traced.graph.nodes if part.op == "placeholder"]
    for part in traced.graph.nodes:
        part.meta = {"val": part.meta.get("val"), "nn_module_stack": node.meta.get("nn_module_stack", {})}
    with node.graph.inserting_before(node):
        return node.graph.graph_copy(traced.graph, dict(zip(placeholders, inputs, strict=True)))


def replace(node: Node, function: Callable[..., Any], *args: Any) -> None:
    """Replace a node by a function that returns one tensor."""
    node.replace_all_uses_with(splice(node, function, *args))


def arguments(node: Node) -> dict[str, Any]:
    """Return the arguments of an ATen call by name, with defaults."""
    formals = node.target._schema.arguments  # type: ignore[union-attr]
    given = {formal.name: value for formal, value in zip(formals, node.args, strict=False)}
    return {formal.name: formal.default_value for formal in formals} | given | node.kwargs


def pair(value: Any) -> Any:
    """Return one or two numbers as a pair, () for none."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return numbers * 2 if len(numbers) == 1 else numbers


def result(node: Node, index: int) -> Node | None:
    """Return the node that takes one of several results.

    It is None if nothing reads that result.
    """
    return next((user for user in node.users if user.args[1] == index and user.users), None)


def sizes(node: Node) -> tuple[int, int]:
    """Return height and width of a node's (N, C, H, W) result.

    Both may be symbolic.
    """
    height, width = node.meta["val"].shape[-2:]
    return height, width


def is_known(condition: Any) -> bool:
    """Return whether a condition holds at all sizes of the program."""
    return bool(statically_known_true(condition))
