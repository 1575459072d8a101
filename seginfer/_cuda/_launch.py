"""Runs the kernels with cuda-core: memory of one GPU, and a step each for batches, masks and overlays."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import BackendUnavailableError, InputError
from .._formats import PixelFormat
from .._geometry import Geometry, Size
from .._outputs import NOT_FINITE
from .._spec import InputSpec, ModelSpec
from . import _mask_plans, _plans, _records
from ._compile import compile_cubin, require_cuda
from ._mask_plans import OutputAt, ResultsAt
from ._plans import ImageAt, Launch


class Gpu:
    """One GPU with the kernels on it. Addresses are of its memory; `stream` is of cuda-core, as every stream here.

    Args:
        device_id: which GPU.

    Raises:
        BackendUnavailableError: if there is no such GPU, or cuda-core or NVRTC is missing.
    """

    def __init__(self, device_id: int = 0) -> None:
        self._core = require_cuda()
        try:
            self.device = self._core.Device(device_id)
            self.device.set_current()
        except Exception as error:  # cuda-core raises types of its own, of several parents
            raise BackendUnavailableError(
                f"CUDA device {device_id} cannot be used: {error}; check nvidia-smi, or run on the CPU"
            ) from error
        code = self._core.ObjectCode.from_cubin(compile_cubin(f"sm_{self.device.arch}"))
        names = ("preprocess", "preprocess_filtered", "label", "mask", "maps", "overlay")
        self._kernels = {f"seginfer_{name}": code.get_kernel(f"seginfer_{name}") for name in names}
        self.stream = self.device.create_stream()
        self._pinned = self._core.LegacyPinnedMemoryResource()

    def allocate(self, nbytes: int) -> Any:
        """Return a buffer of the GPU; its address is `int(buffer.handle)`."""
        buffer = self.device.allocate(max(1, nbytes), stream=self.stream)
        self.stream.sync()
        return buffer

    def fill(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a contiguous array into a buffer of its size, and wait for it."""
        staged = self._pinned.allocate(array.nbytes)
        ctypes.memmove(int(staged.handle), array.ctypes.data, array.nbytes)
        buffer.copy_from(staged, stream=stream)
        stream.sync()

    def upload(self, array: NDArray[Any]) -> Any:
        """Return a buffer that holds an array."""
        array = np.ascontiguousarray(array)
        buffer = self.allocate(array.nbytes)
        if array.nbytes:
            self.fill(buffer, array, self.stream)
        return buffer

    def download(self, buffer: Any, array: NDArray[Any], stream: Any) -> None:
        """Copy a buffer into a contiguous array of its size, and wait for it."""
        staged = self._pinned.allocate(array.nbytes)
        buffer.copy_to(staged, stream=stream)
        stream.sync()
        ctypes.memmove(array.ctypes.data, int(staged.handle), array.nbytes)

    def launch(self, kernel: str, grid: tuple[int, int, int], records: Any, stream: Any) -> None:
        """Start a kernel on records that lie in a buffer."""
        config = self._core.LaunchConfig(grid=grid, block=_records.BLOCK)
        self._core.launch(stream, config, self._kernels[kernel], records)


class _Step:
    """Launches whose records stay on the GPU until an address in them changes.

    Arrays that records point to live as long as the step. A step is for one stream at a time.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._kept: list[Any] = []
        self._on_gpu: dict[str, tuple[bytes, Any]] = {}
        self._last: list[Launch] = []

    def _upload(self, array: NDArray[Any]) -> int:
        self._kept.append(self._gpu.upload(array))
        return int(self._kept[-1].handle)

    def _run_all(self, launches: list[Launch], stream: Any) -> None:
        self._last = launches
        for launch in launches:
            self._run(launch, stream)

    def repeats(self, stream: Any) -> list[Callable[[], None]]:
        """Return a call for each kernel of the last call, which starts it again alone; for measuring."""
        return [partial(self._run, launch, stream) for launch in self._last]

    def _run(self, launch: Launch, stream: Any) -> None:
        content = launch.records.tobytes()
        known, buffer = self._on_gpu.get(launch.kernel, (b"", None))
        if buffer is None:
            buffer = self._gpu.allocate(len(content))
        if known != content:
            self._gpu.fill(buffer, np.frombuffer(content, np.uint8), stream)
            self._on_gpu[launch.kernel] = content, buffer
        self._gpu.launch(launch.kernel, launch.grid, buffer, stream)


class InputStep(_Step):
    """Images on the GPU into the network's input on the GPU.

    Args:
        gpu: where everything lies.
        geometries: one per network input, as `preprocess` returns them.
        spec: the model's input.
        color: format of the images.
    """

    def __init__(self, gpu: Gpu, geometries: Sequence[Geometry], spec: InputSpec, color: PixelFormat) -> None:
        super().__init__(gpu)
        self._geometries, self._spec = geometries, spec
        self._records = _plans.input_records(geometries, spec, color, self._upload)

    def __call__(self, images: Sequence[ImageAt], batch: int, stream: Any) -> None:
        """Start filling the contiguous batch at an address from one image per geometry.

        Raises:
            InputError: if an image of four channels is not aligned to its pixels.
        """
        _plans.set_images(self._records, images, self._geometries)
        _plans.set_batch(self._records, batch, self._spec)
        self._run_all([_plans.input_launch(self._records)], stream)


class MaskStep(_Step):
    """The network's output on the GPU into masks on the GPU.

    Pixels that the network did not see are left as they are: fill masks with `spec.ignore_value` once.

    Args:
        gpu: where everything lies.
        geometries: one per network input.
        output_hw: (height, width) of the output.
        spec: the model's contract.
        remap: a mask value per label to write instead; empty for labels themselves.
    """

    def __init__(
        self, gpu: Gpu, geometries: Sequence[Geometry], output_hw: Size, spec: ModelSpec, remap: Sequence[int] = ()
    ) -> None:
        super().__init__(gpu)
        self._geometries, self._spec = geometries, spec
        labels = gpu.allocate(2 * _mask_plans.label_count(len(geometries), output_hw, spec))
        self._faults = gpu.upload(np.zeros(len(geometries), np.uint32))
        self._kept.append(labels)
        addresses = int(labels.handle), int(self._faults.handle)
        self._records = _mask_plans.mask_records(geometries, output_hw, spec, *addresses, self._upload)
        self._table = self._upload(np.array(remap, np.uint16)) if len(remap) else 0

    def __call__(self, output: OutputAt, results: Sequence[ResultsAt], mask_dtype: np.dtype[Any], stream: Any) -> None:
        """Start writing results, one per geometry, from the contiguous output.

        Raises:
            InputError: if the output's dtype is not one that the kernels read.
        """
        _mask_plans.set_output(self._records, output, self._spec)
        _mask_plans.set_results(self._records, results, self._geometries, mask_dtype, table=self._table)
        self._faults.fill(0, stream=stream)
        self._run_all(_mask_plans.mask_launches(self._records), stream)

    def check(self, stream: Any) -> None:
        """Wait for the stream, and say whether the last output was what it must be.

        Raises:
            InputError: if a value was NaN or infinite, or a label was no class; results are then worth nothing.
        """
        faults = np.zeros(len(self._geometries), np.uint32)
        self._gpu.download(self._faults, faults, stream)
        if (faults == _records.NOT_FINITE).any():
            raise InputError(NOT_FINITE)
        if faults.any():
            raise InputError(f"expected labels below {self._spec.num_classes}, got others; check classes.names")


class OverlayStep(_Step):
    """Class colours over images on the GPU.

    Args:
        gpu: where everything lies.
        colors: (classes, 3) in the images' channel order; black leaves an image as it is.
        weight: the colours' share in 256ths.
    """

    def __init__(self, gpu: Gpu, colors: NDArray[np.uint8], weight: int) -> None:
        super().__init__(gpu)
        self._classes = len(colors)
        self._palette = self._upload(_mask_plans.palette_of(colors, weight))

    def __call__(self, records: _plans.Records, stream: Any) -> None:
        """Start painting: records with images, masks and outputs, whose palette is filled in here."""
        records["palette"], records["classes"] = self._palette, self._classes
        self._run_all([_mask_plans.overlay_launch(records)], stream)
