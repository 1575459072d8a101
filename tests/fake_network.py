"""A network in the memory of the fake GPU: ONNX Runtime on the CPU, started by the fake's streams."""

from __future__ import annotations

import ctypes
from functools import partial
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np

from seginfer import BackendError
from seginfer._cuda.tensors import DeviceMemory, DeviceTensor
from seginfer.backends._protocol import Tensor
from seginfer.backends.onnxruntime import OnnxRuntimeBackend


def array_at(tensor: DeviceTensor) -> Tensor:
    """Return a tensor of the fake GPU as an array."""
    nbytes = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
    memory = (ctypes.c_uint8 * nbytes).from_address(tensor.address)
    return np.ctypeslib.as_array(memory).view(tensor.dtype).reshape(tensor.shape)


class FakeDeviceBackend(OnnxRuntimeBackend):
    """What TensorRT is in earnest: it may have a most number of images, and fixed numbers of places.

    Attributes:
        trouble: "" or what an execution does wrong: while it is captured "waits", "allocates" or "raises"; or "fails"
            in any case.
        scratch_bytes: what an execution has of the GPU's memory beside its tensors.
        spoils: what is written into the first value of every output.
        opened: executions that are not closed.
    """

    def __init__(
        self, path: Path, outputs: tuple[str, ...], most: int | None = None, places: int | None = None
    ) -> None:
        super().__init__(path, outputs, device="cpu", threads=1)
        self.device_index = 0
        self._most, self._places = most, places
        self.trouble = self.obstacle = ""
        self.scratch_bytes = 0
        self.spoils: float | None = None
        self.opened: list[FakeExecution] = []

    def max_batch_size(self, input_hw: tuple[int, int]) -> int | None:
        return self._most or super().max_batch_size(input_hw)

    def padded_batch_size(self, count: int, input_hw: tuple[int, int]) -> int:
        return self._places or super().padded_batch_size(count, input_hw)

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> Any:
        return FakeExecution(self, shape, memory)


class FakeExecution:
    """See `Execution`."""

    def __init__(self, backend: FakeDeviceBackend, shape: tuple[int, ...], memory: DeviceMemory) -> None:
        self._backend, self._gpu = backend, memory._gpu
        fake_cuda_core._world.wait_for_device("make a network")
        node = backend._open_session().get_inputs()[0]
        dtype = {"tensor(float16)": "float16", "tensor(uint8)": "uint8"}.get(node.type, "float32")
        found = backend.infer(np.zeros(shape, dtype))
        self._buffers: list[Any] = []
        try:
            self.input = self._tensor(shape, dtype)
            self.outputs = {name: self._tensor(one.shape, one.dtype.name) for name, one in found.items()}
            self._buffers.append(self._gpu.allocate(backend.scratch_bytes))
        except BaseException:
            self.close()
            raise
        self._bound: tuple[int, object] = (0, None)
        backend.opened.append(self)

    @property
    def obstacle(self) -> str:
        return self._backend.obstacle

    def _tensor(self, shape: tuple[int, ...], dtype: str) -> DeviceTensor:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._buffers.append(self._gpu.allocate(nbytes))
        self._gpu.clear(self._buffers[-1])
        return DeviceTensor(int(self._buffers[-1].handle), shape, dtype)

    def enqueue(self, stream: Any) -> None:
        if self._backend.trouble == "fails":
            raise BackendError("the network cannot be started; restart")
        if self._bound[0] != stream.handle:  # the first call on a stream may wait, and bring memory of its own
            stream.sync()
            self._bound = stream.handle, object()
        if stream.fake_record is not None:
            self._break(stream)
        stream.fake_start(partial(self._run, self._bound[1]))

    def _break(self, stream: Any) -> None:
        if self._backend.trouble == "waits":
            stream.sync()
        if self._backend.trouble == "allocates":
            self._gpu.allocate(64)
        if self._backend.trouble == "raises":
            raise BackendError("the network cannot be started now; restart")

    def _run(self, memory: object) -> None:
        if memory is not self._bound[1]:
            fake_cuda_core._world.violations.append("a graph used what the network had for another stream")
        found = self._backend.infer(array_at(self.input))
        for name, tensor in self.outputs.items():
            array_at(tensor)[...] = found[name]
            if self._backend.spoils is not None:
                array_at(tensor).flat[0] = self._backend.spoils

    def close(self) -> None:
        fake_cuda_core._world.wait_for_device("destroy a network")
        while self._buffers:
            self._gpu.free(self._buffers.pop())
        if self in self._backend.opened:
            self._backend.opened.remove(self)
