"""TorchBackend: a PyTorch module as the backend, the oracle that other backends are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from .._errors import BackendError
from . import Tensor


class TorchBackend:
    """Runs a module that maps one batch tensor to a tuple of output tensors, where the module's weights are.

    Args:
        module: called under inference mode; put it into eval mode first.
        outputs: one name per tensor of the tuple.
    """

    name = "torch"
    reason = "asked for by name"
    batch_size = None

    def __init__(self, module: torch.nn.Module, outputs: Sequence[str]) -> None:
        self._module: torch.nn.Module | None = module
        self._outputs = tuple(outputs)
        self._device = device_of(module)

    @property
    def device(self) -> str:
        """Where the module's weights are."""
        return str(self._device)

    @property
    def description(self) -> str:
        """Name, version and device in one line."""
        return f"torch {torch.__version__} on {self.device}"

    def __repr__(self) -> str:
        return f"<{self.description}; {self.reason}>"

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the module on a batch; see `Backend.infer`. `out` is filled by a copy."""
        if self._module is None:
            raise BackendError("the model is closed; open it again")
        with torch.inference_mode():
            tensors = self._module(torch.from_numpy(batch).to(self._device))
        arrays = {name: tensor.cpu().numpy() for name, tensor in zip(self._outputs, tensors, strict=True)}
        if out is None:
            return arrays
        for name, array in arrays.items():
            out[name][...] = array
        return out

    def close(self) -> None:
        """Let go of the module; it cannot run afterwards."""
        self._module = None


def device_of(module: torch.nn.Module) -> torch.device:
    """Return the device of a module's weights; the CPU if it has none."""
    tensor = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
