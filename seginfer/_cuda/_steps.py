"""Steps: the launches between images, the network's input, its output, and masks, at addresses that never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import InputError
from .._formats import PixelFormat
from .._geometry.geometry import Geometry, Size
from .._outputs import NOT_FINITE
from .._spec.model_spec import InputSpec, ModelSpec
from . import _mask_plans, _plans, _records
from ._arena import Arena
from ._failures import explained
from ._launch import Gpu
from ._mask_plans import OutputAt, ResultsAt
from ._plans import ImageAt, Launch


class _Placed(NamedTuple):
    """A launch whose records lie on the GPU."""

    kernel: str
    grid: tuple[int, int, int]
    records: int


class _Step:
    """Launches with all that they read, on the GPU from the start: `start` allocates, copies and waits for nothing.

    A stream can therefore be captured around it.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._arena = Arena(gpu)
        self._launches: list[_Placed] = []

    @property
    def nbytes(self) -> int:
        """How much memory of the GPU this takes."""
        return self._arena.nbytes

    def _place(self, launches: Sequence[Launch]) -> None:
        placed: dict[int, int] = {}  # kernels share records
        for launch in launches:
            key = launch.records.ctypes.data
            if key not in placed:
                placed[key] = self._arena.put(launch.records)
            self._launches.append(_Placed(launch.kernel, launch.grid, placed[key]))
        self._arena.upload(self._gpu.stream)

    def start(self, stream: Any) -> None:
        """Start the kernels on a stream."""
        for launch in self._launches:
            self._gpu.launch(launch.kernel, launch.grid, launch.records, stream)

    def repeats(self, stream: Any) -> list[Callable[[], None]]:
        """Return a call for each kernel that starts it alone; for measuring."""
        return [partial(self._gpu.launch, one.kernel, one.grid, one.records, stream) for one in self._launches]

    def close(self) -> None:
        """Free the memory; no work may be in flight."""
        self._arena.close()


class InputStep(_Step):
    """Images on the GPU into the network's input on the GPU.

    Args:
        gpu: where everything lies.
        geometries: one per network input, as `preprocess` returns them.
        spec: the model's input.
        color: format of the images.
        images: where they lie, one per geometry.
        batch: where the contiguous batch lies.

    Raises:
        InputError: if an image of four channels is not aligned to its pixels.
        BackendError: if memory runs out.
    """

    def __init__(
        self,
        gpu: Gpu,
        geometries: Sequence[Geometry],
        spec: InputSpec,
        color: PixelFormat,
        images: Sequence[ImageAt],
        batch: int,
    ) -> None:
        super().__init__(gpu)
        try:
            records = _plans.input_records(geometries, spec, color, self._arena.put)
            _plans.set_images(records, images, geometries)
            _plans.set_batch(records, batch, spec)
            with explained("preparing an input step"):
                self._place([_plans.input_launch(records)])
        except BaseException:
            self.close()
            raise


class MaskStep(_Step):
    """The network's output on the GPU into masks on the GPU.

    Pixels that the network did not see are left as they are: fill masks with `spec.ignore_value` once.

    Args:
        gpu: where everything lies.
        geometries: one per network input.
        output_hw: (height, width) of the output.
        spec: the model's contract.
        output: where the contiguous output lies.
        results: where they go, one per geometry.
        faults: where to write one uint32 per geometry, see `check_faults`; zeros are written first.
        remap: a mask value per label to write instead; empty for labels themselves.
        mask_dtype: of the masks; None is the spec's.

    Raises:
        InputError: if the output's dtype is not one that the kernels read.
        BackendError: if memory runs out.
    """

    def __init__(
        self,
        gpu: Gpu,
        geometries: Sequence[Geometry],
        output_hw: Size,
        spec: ModelSpec,
        output: OutputAt,
        results: Sequence[ResultsAt],
        *,
        faults: int,
        remap: Sequence[int] = (),
        mask_dtype: np.dtype[Any] | None = None,
    ) -> None:
        super().__init__(gpu)
        self._spec = spec
        self._faults = gpu.view(faults, 4 * len(geometries))
        try:
            with explained("preparing a mask step"):
                labels = self._arena.reserve(2 * _mask_plans.label_count(len(geometries), output_hw, spec))
                put, addresses = self._arena.put, (int(labels.handle), faults)
                records = _mask_plans.mask_records(geometries, output_hw, spec, *addresses, put)
                _mask_plans.set_output(records, output, spec)
                table = put(np.array(remap, np.uint16)) if len(remap) else 0
                dtype = mask_dtype or spec.mask_dtype
                _mask_plans.set_results(records, results, geometries, dtype, table=table)
                self._place(_mask_plans.mask_launches(records))
        except BaseException:
            self.close()
            raise

    def start(self, stream: Any) -> None:
        """Start the kernels on a stream; `check_faults` says afterwards whether the masks are worth anything."""
        self._faults.fill(0, stream=stream)
        super().start(stream)

    def check(self, stream: Any) -> None:
        """Wait for the stream, and say whether the last output was what it must be; see `check_faults`."""
        faults = np.zeros(self._faults.size // 4, np.uint32)
        self._gpu.download(self._faults, faults, stream)
        check_faults(faults, self._spec)


def check_faults(faults: NDArray[np.uint32], spec: ModelSpec) -> None:
    """Say whether an output was what it must be, by what the kernels left.

    Raises:
        InputError: if a value was NaN or infinite, or a label was no class; results are then worth nothing.
    """
    if (faults == _records.NOT_FINITE).any():
        raise InputError(NOT_FINITE)
    if faults.any():
        raise InputError(f"expected labels below {spec.num_classes}, got others; check classes.names")


class OverlayStep(_Step):
    """Class colours over images on the GPU.

    Args:
        gpu: where everything lies.
        colors: (classes, 3) in the images' channel order; black leaves an image as it is.
        weight: the colours' share in 256ths.
        records: with images, masks and outputs; the palette is filled in here.
    """

    def __init__(self, gpu: Gpu, colors: NDArray[np.uint8], weight: int, records: _plans.Records) -> None:
        super().__init__(gpu)
        try:
            records["palette"] = self._arena.put(_mask_plans.palette_of(colors, weight))
            records["classes"] = len(colors)
            with explained("preparing an overlay step"):
                self._place([_mask_plans.overlay_launch(records)])
        except BaseException:
            self.close()
            raise
