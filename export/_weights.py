"""Checkpoints: read safely, fitted strictly, identified by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seginfer._errors import MissingFileError, WeightsError
from seginfer._files.foreign import recognise

_DEEPEST = 3  # nesting of state dicts in a checkpoint, such as "ema" in "train" in "state"
# Prefixes that DataParallel, torch.compile and Lightning put before every name.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(module: nn.Module, path: str | Path, key: str | None = None) -> None:
    """Load a checkpoint into a module. Every tensor must fit.

    A checkpoint may hold several state dicts, as of the raw weights and of their moving average. Then one must be
    chosen by its key.

    Args:
        module: changed in place, or left as it was if the checkpoint does not fit.
        path: `.safetensors`, or a file that `torch.load(weights_only=True)` reads. Nothing is unpickled blindly.
        key: key of the state dict in the checkpoint, such as "ema", or "ema.module" if it is nested.

    Raises:
        MissingFileError: if there is no such file.
        WeightsError: if it cannot be read safely, names or shapes do not fit the module, or there are several state
            dicts and no key.
    """
    wanted = module.state_dict().keys()
    state = _unwrap(_choose(_read_states(Path(path)), wanted, key, path), wanted)
    problem = _misfit(module.state_dict(), state)
    if problem:
        raise WeightsError(
            f"{path} does not fit {type(module).__name__}: {problem}; check the module and its arguments"
        )
    module.load_state_dict(state)


def weights_sha256(module: nn.Module) -> str:
    """Hash names, types, shapes and values of a module's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _read_states(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts of a file by their keys. The key of the file itself is ""."""
    if not path.is_file():
        raise MissingFileError(f"no weights at {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            checkpoint: Any = load_file(path)
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for foreign, truncated and unsafe files
        foreign = recognise(path)
        if foreign and not foreign.startswith(("a PyTorch checkpoint", "a safetensors")):
            raise WeightsError(f"expected weights, {path} is {foreign}") from error
        if isinstance(error, SafetensorError):
            reason = " ".join(str(error).split())  # it quotes names of the file
            raise WeightsError(
                f"{path} is not a complete safetensors file ({reason}); copy or save it again"
            ) from error
        raise WeightsError(
            f"{path} is not a checkpoint of plain tensors: it is broken, or loading it would run code; "
            "save the state_dict alone, best with safetensors.torch.save_file"
        ) from error
    states = dict(_find_states(checkpoint))
    if not states:
        raise WeightsError(f"{path} holds no state dict (got {type(checkpoint).__name__}); save module.state_dict()")
    return states


def _find_states(checkpoint: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the mappings of names to tensors in a checkpoint."""
    if not isinstance(checkpoint, Mapping) or not checkpoint or depth > _DEEPEST:
        return
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in checkpoint.items()):
        yield key, dict(checkpoint)
        return
    for name, value in checkpoint.items():
        yield from _find_states(value, f"{key}.{name}" if key else str(name), depth + 1)


def _choose(
    states: dict[str, dict[str, Tensor]], wanted: Collection[str], key: str | None, path: str | Path
) -> dict[str, Tensor]:
    """Return the state dict of a key, or the only one for the module."""
    names = ", ".join(repr(name) for name in states if name) or "none"
    if key is not None:
        if key not in states:
            raise WeightsError(f"{path} has no state dict under the key {key!r}; its keys are {names}")
        return states[key]
    # State dicts of other networks, and of optimisers, share no name with the module.
    related = {name: state for name, state in states.items() if set(_unwrap(state, wanted)) & set(wanted)}
    if len(related) > 1:
        keys = " and ".join(map(repr, related))
        raise WeightsError(f"{path} holds several state dicts, {keys}; choose one with key=, or --weights-key")
    return next(iter(related.values()), next(iter(states.values())))


def _unwrap(state: dict[str, Tensor], wanted: Any) -> dict[str, Tensor]:
    """Drop a wrapper's prefix from all names.

    It is dropped if every name has it and no name of the module does.
    """
    for prefix in _WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in wanted):
            return _unwrap({name[len(prefix) :]: tensor for name, tensor in state.items()}, wanted)
    return state


def _misfit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    parts = []
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    for label, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes)):
        if names:
            parts.append(f"{len(names)} {label} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    return ", ".join(parts)
