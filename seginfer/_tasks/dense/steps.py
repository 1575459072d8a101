"""Kernel launches from network outputs to masks and overlays on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._cuda import kernel_args
from ..._cuda.errors import translate_errors
from ..._cuda.gpu import Clear, Gpu
from ..._cuda.steps import Records, Step
from ..._errors import InputError
from ..._geometry.geometry import Geometry, Size
from ..._spec.model_spec import ModelSpec
from . import launches
from .launches import OutputAt, ResultsAt
from .outputs import NOT_FINITE


class MaskStep(Step):
    """Decodes the network's output on the GPU into masks on the GPU.

    Pixels that the network did not see are left as they are: fill masks with `spec.ignore_value` once.

    Args:
        gpu: where everything lies.
        geometries: one per network input.
        output_hw: (height, width) of the output.
        spec: the model's contract.
        output: where the contiguous output lies.
        results: where they go, one per geometry.
        faults: where to write one uint32 per geometry, see `check_faults`. Zeros are written first.
        remap: a mask value per label to write instead. Empty for labels themselves.
        mask_dtype: of the masks. None is the spec's.

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
        self.work.append(Clear(faults, 4 * len(geometries)))  # then `check_faults`
        try:
            with translate_errors("preparing a mask step"):
                put = self._arena.put
                records = launches.mask_records(geometries, output_hw, spec, faults, put)
                launches.set_output(records, output, spec)
                table = put(np.array(remap, np.uint16)) if len(remap) else 0
                dtype = mask_dtype or spec.mask_dtype
                launches.set_results(records, results, geometries, dtype, table=table)
                self.place(launches.mask_launches(records))
        except BaseException:
            self.close()
            raise

    def check(self, stream: Any) -> None:
        """Wait for the stream and check the last output. See `check_faults`."""
        faults = np.zeros(self._faults.size // 4, np.uint32)
        self._gpu.download(self._faults, faults, stream)
        check_faults(faults, self._spec)


def check_faults(faults: NDArray[np.uint32], spec: ModelSpec) -> None:
    """Check the faults that the kernels recorded.

    Raises:
        InputError: if a value was NaN or infinite, or a label was no class. Results are then worth nothing.
    """
    if (faults == kernel_args.NOT_FINITE).any():
        raise InputError(NOT_FINITE)
    if faults.any():
        raise InputError(f"expected labels below {spec.num_classes}, got others; check classes.names")


class OverlayStep(Step):
    """Blends class colours over images on the GPU.

    Args:
        gpu: where everything lies.
        colors: (classes, 3) in the images' channel order. Black leaves an image as it is.
        weight: the colours' share in 256ths.
        records: with images, masks and outputs. The palette is filled in here.
    """

    def __init__(self, gpu: Gpu, colors: NDArray[np.uint8], weight: int, records: Records) -> None:
        super().__init__(gpu)
        try:
            records["palette"] = self._arena.put(launches.palette_of(colors, weight))
            records["classes"] = len(colors)
            with translate_errors("preparing an overlay step"):
                self.place([launches.overlay_launch(records)])
        except BaseException:
            self.close()
            raise
