"""Backend for PyTorch modules.

It is the reference for other backends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from .._cuda.tensors import DeviceTensor
from .._errors import BackendError
from .._geometry.geometry import Size
from ._protocol import CLOSED, Tensor, fill_outputs

if TYPE_CHECKING:
    from .._cuda.tensors import DeviceMemory


class TorchBackend:
    """Runs a PyTorch module on the device of its weights.

    Args:
        module: maps one batch tensor to a tuple of output tensors. It runs in inference mode and must be in eval mode.
        outputs: one name per tensor of the tuple.
        input_dtype: dtype of the batches.
    """

    name = "torch"
    reason = "requested by name"
    batch_size = None

    def __init__(self, module: torch.nn.Module, outputs: Sequence[str], *, input_dtype: str = "float32") -> None:
        self._module: torch.nn.Module | None = module
        self._input_dtype: torch.dtype = getattr(torch, input_dtype)
        self._outputs = tuple(outputs)
        self._device = device_of(module)

    @property
    def device(self) -> str:
        """Device of the module's weights."""
        return str(self._device)

    @property
    def device_index(self) -> int | None:
        """Index of the weights' GPU. None on the CPU."""
        return (self._device.index or 0) if self._device.type == "cuda" else None

    def max_batch_size(self, input_hw: Size) -> None:
        """Return None, because a module takes any number."""
        del input_hw

    def padded_batch_size(self, count: int, input_hw: Size) -> int:
        """Return the size of the batch that carries `count` images."""
        del input_hw
        return count

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> TorchExecution:
        """Make an execution. See `DeviceBackend.execution`."""
        del memory  # the module's tensors need PyTorch's allocator, which serves input and outputs too
        if self._module is None:
            raise BackendError(CLOSED)
        batch = torch.zeros(shape, dtype=self._input_dtype, device=self._device)
        return TorchExecution(self._module, self._outputs, batch)

    @property
    def description(self) -> str:
        """Name, version and device in one line."""
        return f"torch {torch.__version__} on {self.device}"

    def __repr__(self) -> str:
        return f"<{self.description}; {self.reason}>"

    def infer(self, batch: Tensor, out: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Run the module on a batch. See `Backend.infer`.

        `out` is filled by a copy.
        """
        if self._module is None:
            raise BackendError(CLOSED)
        tensors = _call(self._module, torch.from_numpy(batch).to(self._device), self._outputs)
        arrays = {name: tensor.cpu().numpy() for name, tensor in zip(self._outputs, tensors, strict=True)}
        return fill_outputs(arrays, out)

    def close(self) -> None:
        """Release the module. Calls afterwards raise BackendError."""
        self._module = None


class TorchExecution:
    """PyTorch's `Execution`."""

    obstacle = ""

    def __init__(self, module: torch.nn.Module, outputs: Sequence[str], batch: torch.Tensor) -> None:
        self._module: torch.nn.Module | None = module
        self._input = batch
        # An own pool reserves the memory that a CUDA graph has recorded.
        self._pool: Any = torch.cuda.MemPool()
        self._names = tuple(outputs)
        tensors = self._run()
        self._kinds = [_kind(tensor, batch.device) for tensor in tensors]
        self._check(tensors, self._kinds)
        self._results = [tensor.contiguous().clone() for tensor in tensors]
        torch.cuda.current_stream(
            batch.device
        ).synchronize()  # a wait for the whole device would break captures of other threads
        self.input = _device_tensor(batch)
        self.outputs = {name: _device_tensor(tensor) for name, tensor in zip(outputs, self._results, strict=True)}

    def enqueue(self, stream: Any) -> None:
        """Start the module. See `Execution.enqueue`."""
        external = torch.cuda.ExternalStream(int(stream.handle), self._input.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(external):
            tensors = self._run()
            self._check(tensors, self._kinds)
            for result, tensor in zip(self._results, tensors, strict=True):
                result.copy_(tensor)

    def _run(self) -> tuple[torch.Tensor, ...]:
        if self._module is None:
            raise BackendError(CLOSED)
        with _use_pool(self._pool, self._input.device):
            return _call(self._module, self._input, self._names)

    def _check(self, tensors: Sequence[torch.Tensor], kinds: Sequence[str]) -> None:
        """Refuse outputs that a copy would convert."""
        for name, tensor, kind in zip(self._names, tensors, kinds, strict=True):
            if _kind(tensor, tensor.device) != kind:
                raise BackendError(
                    f"output {name!r} of the module must be {kind}, got {_kind(tensor, tensor.device)}; let it return "
                    "the same kind of tensor in every run, on the device of its input"
                )

    def close(self) -> None:
        """Free the memory."""
        if self._module is not None:
            self._module = None
            del self._input, self._results, self._pool


def _call(module: torch.nn.Module, batch: torch.Tensor, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Run a module, and return one tensor per name."""
    try:
        with torch.inference_mode():
            tensors = tuple(module(batch))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BackendError(f"torch failed on a batch {tuple(batch.shape)}: {reason}") from error
    if len(tensors) != len(names):
        raise BackendError(f"the module must return the {len(names)} tensors {', '.join(names)}, got {len(tensors)}")
    return tensors


def _kind(tensor: torch.Tensor, device: torch.device) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)} on {device}"


@contextmanager
def _use_pool(pool: Any, device: torch.device) -> Iterator[None]:
    """Allocate from a pool within the block."""
    # From about torch 2.13, `torch.cuda.use_mem_pool` requires a graph of torch while a stream is captured.
    index = device.index or 0
    torch._C._cuda_beginAllocateCurrentThreadToPool(index, pool.id)
    try:
        yield
    finally:
        torch._C._cuda_endAllocateToPool(index, pool.id)
        torch._C._cuda_releasePool(index, pool.id)


def _device_tensor(tensor: torch.Tensor) -> DeviceTensor:
    return DeviceTensor(tensor.data_ptr(), tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def device_of(module: torch.nn.Module) -> torch.device:
    """Return the device of a module's weights.

    It is the CPU if there are none.
    """
    tensor = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device
