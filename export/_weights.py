"""Checkpoints: read safely, fitted strictly, identified by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seginfer._errors import MissingFileError, WeightsError

# Keys under which training frameworks keep the state dict inside a checkpoint.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "ema_state_dict", "net")
# Prefixes that DataParallel, torch.compile and Lightning put before every name.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load a checkpoint into a module. Every tensor must fit.

    Args:
        module: changed in place, or left as it was if the checkpoint does not fit.
        path: `.safetensors`, or a file that `torch.load(weights_only=True)` reads. Nothing is unpickled blindly.

    Raises:
        MissingFileError: if there is no such file.
        WeightsError: if it cannot be read safely, or names or shapes do not fit the module.
    """
    state = _unwrap(_read_state(Path(path)), module.state_dict().keys())
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


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"no weights at {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error}); copy or save it again") from error
    except Exception as error:  # torch.load raises many kinds for foreign, truncated and unsafe files
        raise WeightsError(
            f"{path} is not a checkpoint of plain tensors: it is broken, or loading it would run code; "
            "save the state_dict alone, best with safetensors.torch.save_file"
        ) from error
    return _state_dict_of(checkpoint, path)


def _state_dict_of(checkpoint: Any, path: Path) -> dict[str, Tensor]:
    for candidate in (checkpoint, *_find_nested(checkpoint)):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return dict(candidate)
    raise WeightsError(f"{path} holds no state dict (got {type(checkpoint).__name__}); save module.state_dict()")


def _find_nested(checkpoint: Any) -> list[Any]:
    return [checkpoint[key] for key in _STATE_DICT_KEYS if key in checkpoint] if isinstance(checkpoint, Mapping) else []


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
