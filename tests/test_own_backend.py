"""Backends that somebody else writes, on the CPU and on a GPU, from public names alone."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import fake_cuda_core
import numpy as np
import pytest
from numpy.typing import NDArray

from seginfer import BackendError, ClassSpec, InputError, InputSpec, ModelSpec, Segmenter
from seginfer.backends import DeviceBackend, DeviceMemory, DeviceTensor, Execution

Array = NDArray[Any]
SPEC = ModelSpec("semantic", InputSpec(size=(24, 32), resize="letterbox"), ClassSpec(("red", "green", "blue")))


class OwnBackend:
    """The strongest colour wins: the network is its input."""

    name, device, reason = "own", "cpu", "made by hand"
    description = "own 1.0 on cpu"
    batch_size = None

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain
        self.is_closed = False

    def infer(self, batch: Array, out: dict[str, Array] | None = None) -> dict[str, Array]:
        if self.is_closed:
            raise BackendError("the backend is closed; open it again")
        if out is None:
            return {"logits": batch * np.float32(self.gain)}
        out["logits"][...] = batch * np.float32(self.gain)
        return out

    def close(self) -> None:
        self.is_closed = True


class OwnExecution:
    """The same network on a GPU; the fake GPU's memory is the host's."""

    obstacle = ""

    def __init__(self, shape: tuple[int, ...], memory: DeviceMemory) -> None:
        self._memory = memory
        self.input = memory.tensor(shape, "float32")
        self.outputs = {"logits": memory.tensor(shape, "float32")}

    def enqueue(self, stream: Any) -> None:
        stream.fake_start(lambda: ctypes.memmove(self.outputs["logits"].address, self.input.address, self._nbytes))

    @property
    def _nbytes(self) -> int:
        return 4 * int(np.prod(self.input.shape))

    def close(self) -> None:
        self._memory.close()


class OwnDeviceBackend(OwnBackend):
    device, device_index = "cuda:0", 0

    def max_batch_size(self, input_hw: tuple[int, int]) -> int | None:
        return 2 if input_hw else None

    def padded_batch_size(self, count: int, input_hw: tuple[int, int]) -> int:
        return 2 if input_hw else count

    def execution(self, shape: tuple[int, ...], memory: DeviceMemory) -> Execution:
        return OwnExecution(shape, memory)


def pictures() -> list[Array]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((24, 32), (61, 50), (20, 90))]


def test_a_backend_on_the_cpu_needs_public_names_only() -> None:
    backend = OwnBackend()
    with Segmenter(SPEC, backend, threads=1) as segmenter:
        image = pictures()[0]
        np.testing.assert_array_equal(segmenter(image).mask, image.argmax(2))
        assert [result.mask.shape for result in segmenter(pictures())] == [(24, 32), (61, 50), (20, 90)]
    assert backend.is_closed


def test_outputs_in_other_arrays_than_before_are_read_anew() -> None:
    """A backend may ignore `out`, or replace arrays inside of it: the masks are those of the arrays it returned."""

    class Replacing(OwnBackend):
        def infer(self, batch: Array, out: dict[str, Array] | None = None) -> dict[str, Array]:
            found = super().infer(batch)
            if out is None:
                return found
            out.update(found)
            return out

    with Segmenter(SPEC, Replacing(), threads=1) as segmenter:
        for seed in range(4):
            image = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
            np.testing.assert_array_equal(segmenter(image).mask, image.argmax(2))


@pytest.mark.parametrize("names", [(), ("scores",)])
def test_a_backend_that_lacks_the_output_is_refused(names: tuple[str, ...]) -> None:
    class Wrong(OwnBackend):
        def infer(self, batch: Array, out: dict[str, Array] | None = None) -> dict[str, Array]:
            del out
            return dict.fromkeys(names, batch)

    with Segmenter(SPEC, Wrong(), threads=1) as segmenter:
        for _ in range(2):
            with pytest.raises(InputError, match="expected the network's output as a NumPy array, got NoneType"):
                segmenter(pictures()[0])


@pytest.mark.usefixtures("world")
def test_a_backend_on_a_gpu_needs_public_names_only() -> None:
    backend: DeviceBackend = OwnDeviceBackend()
    assert isinstance(DeviceTensor(1, (1,), "float32"), tuple)
    with (
        Segmenter(SPEC, backend, pixels="cuda", threads=1) as on_gpu,
        Segmenter(SPEC, OwnBackend(), threads=1) as on_host,
    ):
        for found, expected in zip(on_gpu(pictures()), on_host(pictures()), strict=True):
            np.testing.assert_array_equal(found.mask, expected.mask)


def test_these_backends_import_no_private_module() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert "seginfer" + "._" not in text
    assert fake_cuda_core
