"""Kernel arguments of the mask step: one record per mask plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._cuda import kernel_args
from ..._cuda.kernel_args import Confidence, DType
from ..._cuda.kernels import OVERLAY, output_kernel
from ..._cuda.steps import Launch, Records, Upload
from ..._errors import InputError
from ..._geometry.geometry import Geometry, Size
from ..._spec.model_spec import ModelSpec
from .decode import logit_threshold
from .taps import label_cells, taps_of

_KINDS = {"float32": DType.FLOAT32, "float16": DType.FLOAT16}
_IDS = {"uint8": DType.UINT8, "int32": DType.INT32, "int64": DType.INT64}
_CONFIDENCES = {
    ("semantic", "logits"): Confidence.SOFTMAX,
    ("binary", "logits"): Confidence.SIGMOID_OF_LABEL,
    ("multilabel", "logits"): Confidence.SIGMOID,
    ("binary", "probabilities"): Confidence.VALUE_OF_LABEL,
}


class PlaneAt(NamedTuple):
    """Address of a mask or a map, with strides in values. A multilabel result has a plane per class."""

    address: int
    row_stride: int
    plane_stride: int = 0


class ResultsAt(NamedTuple):
    """Addresses of one image's results. Tiles of an image share them."""

    mask: PlaneAt
    confidence: PlaneAt | None = None
    margin: PlaneAt | None = None


class OutputAt(NamedTuple):
    """Address of a contiguous output in the spec's layout. Labels are (N, h, w)."""

    address: int
    dtype: str


def mask_records(
    geometries: Sequence[Geometry], output_hw: Size, spec: ModelSpec, faults: int, upload: Upload
) -> Records:
    """Return the records of a batch, (N, planes), without output and results.

    Args:
        geometries: the N records that `preprocess` returned.
        output_hw: (height, width) of the network's output.
        spec: the model's contract.
        faults: address of one uint32 per image, which a kernel sets where an output is not what it must be.
        upload: puts taps where kernels read them.
    """
    records = np.zeros((len(geometries), _planes(spec)), kernel_args.MASK)
    records["height"], records["width"] = output_hw
    records["faults"] = faults + 4 * np.arange(len(geometries), dtype=np.uint64)[:, None]
    records["is_threshold"], records["threshold"] = spec.task != "semantic", logit_threshold(spec)
    if spec.output.kind == "labels":
        records["classes"] = spec.num_classes
    else:
        records["classes"] = spec.num_channels if spec.task == "semantic" else 1
    records["confidence_kind"] = _CONFIDENCES.get((spec.task, spec.output.kind), Confidence.VALUE)
    for planes, geometry in zip(records, geometries, strict=True):
        _set_taps(planes, geometry, output_hw, spec, upload)
    return records


def _planes(spec: ModelSpec) -> int:
    return spec.num_classes if spec.task == "multilabel" else 1


def _set_taps(records: Records, geometry: Geometry, output_hw: Size, spec: ModelSpec, upload: Upload) -> None:
    """Set the taps of one image, which all its planes share."""
    records["rows"], records["cols"] = geometry.visible.height, geometry.visible.width
    if spec.output.kind == "labels":
        indices = [cells[None] for cells in label_cells(geometry, output_hw, spec)]
    else:
        taps = taps_of(geometry, output_hw, spec)
        indices = [one.indices for one in taps]
        for name, one in zip(("row_weight", "col_weight"), taps, strict=True):
            records[name] = upload(np.ascontiguousarray(one.weights))
    records["taps"] = len(indices[0])
    for axis, index in zip(("row", "col"), indices, strict=True):
        runs = np.append(0, (np.diff(index) != 0).any(0).cumsum())
        records[f"{axis}_index"] = upload(np.ascontiguousarray(index, np.int32))
        records[f"{axis}_run"] = upload(runs.astype(np.int32))


def set_output(records: Records, output: OutputAt, spec: ModelSpec) -> None:
    """Set the address and the strides of the network's output.

    Raises:
        InputError: if the kernels do not read its dtype, or an image has too many values.
    """
    kinds = _IDS if spec.output.kind == "labels" else _KINDS
    if output.dtype not in kinds:
        raise InputError(
            f"expected an output on the GPU of {' or '.join(kinds)}, got {output.dtype}; cast it in the graph, or open "
            "the model with pixels='cpu'"
        )
    height, width = int(records["height"].flat[0]), int(records["width"].flat[0])
    channels = 1 if spec.output.kind == "labels" else spec.num_channels
    if (count := channels * height * width) >= 1 << 31:
        raise InputError(f"the GPU takes fewer than 2^31 values per image, got {count}; open with pixels='cpu'")
    is_planar = spec.output.layout == "NCHW" or channels == 1
    strides = (height * width, width, 1) if is_planar else (1, width * channels, channels)
    records["kind"] = kinds[output.dtype]
    records["plane_stride"], records["row_stride"], records["column_stride"] = strides
    images, planes = np.indices(records.shape, np.uint64)
    values = images * np.uint64(count) + planes * np.uint64(strides[0])
    records["logits"] = output.address + np.uint64(np.dtype(output.dtype).itemsize) * values


def set_results(
    records: Records,
    results: Sequence[ResultsAt],
    geometries: Sequence[Geometry],
    mask_dtype: np.dtype[Any],
    *,
    table: int = 0,
) -> None:
    """Set the addresses of the results, one per geometry.

    `table` is the address of a uint16 mask value per label, or 0.
    """
    records["mask_bytes"], records["table"] = mask_dtype.itemsize, table
    for planes, result, geometry in zip(records, results, geometries, strict=True):
        for name, where in zip(ResultsAt._fields, result, strict=True):
            if where is not None:
                itemsize = mask_dtype.itemsize if name == "mask" else 4
                planes[name] = _first_visible(where, geometry, len(planes), itemsize)
                planes[f"{name}_row_stride"] = where.row_stride


def _first_visible(where: PlaneAt, geometry: Geometry, planes: int, itemsize: int) -> NDArray[np.uint64]:
    first = geometry.visible.top * where.row_stride + geometry.visible.left
    return np.array([where.address + itemsize * (first + p * where.plane_stride) for p in range(planes)], np.uint64)


def mask_launches(records: Records) -> list[Launch]:
    """Return the launch that makes masks, then that of requested maps."""
    records = records.ravel()
    sizes, first = (records["rows"], records["cols"]), records[0]
    kind = int(first["kind"]), int(first["taps"])
    launches = [Launch(output_kernel("mask", *kind), records, kernel_args.grid(kernel_args.MASK_TILE, *sizes))]
    if (records["confidence"] != 0).any() or (records["margin"] != 0).any():
        launches.append(Launch(output_kernel("maps", *kind), records, kernel_args.grid(kernel_args.MAP_TILE, *sizes)))
    return launches


# ------------------------------------------------------------------------------------------------ overlays


def palette_of(colors: NDArray[np.uint8], weight: int) -> NDArray[Any]:
    """Return the palette of (classes, 3) colours, with a weight in 256ths.

    Black leaves the image as it is, and so does every mask value that is no class, the last entry.
    """
    palette = np.zeros(len(colors) + 1, kernel_args.PALETTE_ENTRY)
    palette["factor"] = 256
    is_painted = colors.any(-1)
    palette["factor"][:-1][is_painted] = 256 - weight
    palette["color"][:-1] = colors.astype(np.uint16) * np.uint16(weight)
    return palette


def overlay_launch(records: Records) -> Launch:
    """Return the launch that paints every image of the records."""
    return Launch(OVERLAY, records, kernel_args.grid(kernel_args.OVERLAY_TILE, records["height"], records["width"]))
