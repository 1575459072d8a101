"""TorchBackend: a PyTorch module as the backend, the oracle that other backends are compared with."""

from __future__ import annotations

from typing import Any

import torch

from .._errors import BackendError
from .._onnx_file import TensorInfo
from . import Tensor


class TorchBackend:
    """Runs a module that maps one batch tensor to a tuple of output tensors, in the order of `output_names`.

    Args:
        module: called under inference mode; put it into eval mode first.
        output_names: one name per output.
        device: a torch device, such as "cpu" or "cuda:0".
    """

    name = "torch"
    reason = "asked for by name"
    batch_size = None

    def __init__(self, module: torch.nn.Module, output_names: tuple[str, ...], *, device: str = "cpu") -> None:
        self._module: torch.nn.Module | None = module.to(device)
        self.device = device
        self.outputs = tuple(TensorInfo(name, (), "float32") for name in output_names)

    @property
    def description(self) -> str:
        """Name, version and device in one line."""
        return f"torch {torch.__version__} on {self.device}"

    def __repr__(self) -> str:
        return f"<{self.description}; {self.reason}>"

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the module on a batch; see `Backend.infer`. `out` is filled by a copy."""
        if self._module is None:
            raise BackendError("the backend is closed; open the model again")
        with torch.inference_mode():
            tensors: Any = self._module(torch.from_numpy(batch).to(self.device))
        arrays = [tensor.cpu().numpy() for tensor in tensors]
        if out is None:
            return {info.name: array for info, array in zip(self.outputs, arrays, strict=True)}
        for info, array in zip(self.outputs, arrays, strict=True):
            out[info.name][...] = array
        return out

    def close(self) -> None:
        """Let go of the module; it cannot run afterwards."""
        self._module = None
