"""Checks for modules that are random, or mix the images of a batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree

from seginfer._errors import ExportError

_SAME = 1e-4  # of the largest value; in float64, rounding is far below


class _Call(NamedTuple):
    """A finished call of a module, inner ones first."""

    module: str
    inputs: list[Tensor]
    outputs: list[Tensor]


def check_repeatable(module: nn.Module, batch: Tensor) -> None:
    """Run a module twice on one batch, (N, C, h, w).

    Raises:
        ExportError: if the results are not equal in every bit. The message names the module that differs first.
    """
    first, second = (_record(module, batch, outermost_alone=True)[0].outputs for _ in range(2))
    if _bits(first) == _bits(second):
        return
    place = _origin(
        _record(module, batch), _record(module, batch), lambda a, b: _bits(a) != _bits(b), _name(module, "")
    )
    raise ExportError(
        f"the module is random: two runs on one batch differ, first in {place}; turn off its dropout, noise or "
        "sampling, because no certificate can be measured on it"
    )


def find_batch_dependence(module: nn.Module, batch: Tensor) -> str:
    """Name the innermost module that makes an image's result depend on the images beside it.

    Args:
        module: in eval mode.
        batch: (1, C, h, w) float32.

    Returns:
        Name and class of the module. "" if the result does not depend on them.
    """
    try:  # rounding, which also depends on the size of a batch, must not count
        alone, beside = _run_with_others(copy.deepcopy(module).double(), batch.double())
    except Exception:  # a module may be written for float32 alone
        try:
            alone, beside = _run_with_others(module, batch)
        except Exception:  # or for one image alone
            return ""
    return _origin(alone, beside, _differ, "") if _differ(alone[-1].outputs, beside[-1].outputs) else ""


def modules_in_train_mode(module: nn.Module) -> list[str]:
    """Name the parts that behave as in training in eval mode."""
    return [
        _name(part, name)
        for name, part in module.named_modules()
        if (isinstance(part, (_BatchNorm, _DropoutNd)) and part.training)
        or (isinstance(part, _BatchNorm) and part.running_mean is None)
    ]


def is_trained(module: nn.Module) -> bool | None:
    """Return whether a batch norm has other than its initial statistics. None if there is no batch norm."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    states = [(part.running_mean, part.running_var) for part in norms]
    known = [(mean, var) for mean, var in states if mean is not None and var is not None]
    return any(bool(mean.any() or (var != 1).any()) for mean, var in known) if known else None


def _run_with_others(module: nn.Module, batch: Tensor) -> tuple[list[_Call], list[_Call]]:
    return _record(module, batch), _record(module, torch.cat((batch, batch.flip(2), 1 - batch)))


def _origin(
    calls: list[_Call], others: list[_Call], differ: Callable[[list[Tensor], list[Tensor]], bool], default: str
) -> str:
    """Name the first module that makes different outputs of equal inputs."""
    pairs = zip(calls, others, strict=False)
    return next(
        (a.module for a, b in pairs if differ(a.outputs, b.outputs) and not differ(a.inputs, b.inputs)), default
    )


def _differ(alone: list[Tensor], beside: list[Tensor]) -> bool:
    return any(
        bool((a - b[: len(a)]).abs().max() > _SAME * a.abs().max())
        for a, b in zip(alone, beside, strict=False)
        if a.is_floating_point() and a.numel() and a.ndim and a.shape[1:] == b.shape[1:] and len(b) >= len(a)
    )


def _record(module: nn.Module, batch: Tensor, *, outermost_alone: bool = False) -> list[_Call]:
    """Run a module and return its calls."""
    calls: list[_Call] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: Any, keywords: Any, result: Any) -> None:
            found = ([leaf.detach().cpu().clone() for leaf in _leaves(one)] for one in ([inputs, keywords], result))
            calls.append(_Call(_name(part, name), *found))

        return hook

    parts = [("", module)] if outermost_alone else list(module.named_modules())
    handles = [part.register_forward_hook(keep(name), with_kwargs=True) for name, part in parts]
    with _hooks(handles), torch.inference_mode():
        module(batch)
    return calls


@contextmanager
def _hooks(handles: list[Any]) -> Iterator[None]:
    """Remove hooks at the end."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leaves(result: Any) -> list[Tensor]:
    """Return the tensors in a module's result, also those in the fields of a plain object."""
    leaves = _pytree.tree_leaves(result)
    inner = [leaf for one in leaves for leaf in (vars(one).values() if hasattr(one, "__dict__") else [one])]
    return [leaf for leaf in (*leaves, *inner) if isinstance(leaf, Tensor)]


def _bits(tensors: list[Tensor]) -> list[bytes]:
    return [tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


def _name(part: nn.Module, name: str) -> str:
    return f"{name or 'the outermost module'} ({type(part).__name__})"
