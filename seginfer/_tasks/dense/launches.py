"""Kernel arguments of the mask step: one record per mask plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._cuda import kernel_args
from ..._cuda.kernel_args import Confidence, DType
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


class MaskRecords(NamedTuple):
    """Records of both passes: labels per image, then masks per plane."""

    labels: Records
    masks: Records


def label_count(count: int, output_hw: Size, spec: ModelSpec) -> int:
    """Return the number of uint16 labels that the first pass writes."""
    return count * _planes(spec) * output_hw[0] * output_hw[1]


def mask_records(
    geometries: Sequence[Geometry], output_hw: Size, spec: ModelSpec, labels: int, faults: int, upload: Upload
) -> MaskRecords:
    """Return the records of a batch, without output and results.

    Args:
        geometries: the N records that `preprocess` returned.
        output_hw: (height, width) of the network's output.
        spec: the model's contract.
        labels: address of `label_count` uint16.
        faults: address of one uint32 per image, which a kernel sets where an output is not what it must be.
        upload: puts taps where kernels read them.
    """
    n, planes, cells = len(geometries), _planes(spec), output_hw[0] * output_hw[1]
    first, second = np.zeros(n, kernel_args.LABEL), np.zeros((n, planes), kernel_args.MASK)
    first["height"], first["width"] = output_hw
    first["classes"] = spec.num_classes if spec.output.kind == "labels" else spec.num_channels
    first["labels"] = labels + 2 * planes * cells * np.arange(n, dtype=np.uint64)
    first["faults"] = faults + 4 * np.arange(n, dtype=np.uint64)
    for records in (first, second):
        records["is_threshold"] = spec.task != "semantic"
        records["threshold"] = logit_threshold(spec)
    second["labels"] = labels + 2 * cells * np.arange(n * planes, dtype=np.uint64).reshape(n, planes)
    second["classes"] = spec.num_channels if spec.task == "semantic" else 1
    second["width"] = output_hw[1]
    second["confidence_kind"] = _CONFIDENCES.get((spec.task, spec.output.kind), Confidence.VALUE)
    for records, geometry in zip(second, geometries, strict=True):
        _set_taps(records, geometry, output_hw, spec, upload)
    return MaskRecords(first, second)


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
    for name, index in zip(("row_index", "col_index"), indices, strict=True):
        records[name] = upload(np.ascontiguousarray(index, np.int32))


def set_output(records: MaskRecords, output: OutputAt, spec: ModelSpec) -> None:
    """Set the address and the strides of the network's output.

    Raises:
        InputError: if the kernels do not read its dtype.
    """
    kinds = _IDS if spec.output.kind == "labels" else _KINDS
    if output.dtype not in kinds:
        raise InputError(
            f"expected an output on the GPU of {' or '.join(kinds)}, got {output.dtype}; cast it in the graph, or open "
            "the model with pixels='cpu'"
        )
    labels, masks = records
    height, width = int(labels["height"][0]), int(labels["width"][0])
    channels = 1 if spec.output.kind == "labels" else spec.num_channels
    is_planar = spec.output.layout == "NCHW" or channels == 1
    strides = (height * width, width, 1) if is_planar else (1, width * channels, channels)
    labels["kind"] = masks["kind"] = kinds[output.dtype]
    labels["channel_stride"], labels["row_stride"], labels["column_stride"] = strides
    masks["plane_stride"], masks["row_stride"], masks["column_stride"] = strides
    bytes_per_value = np.dtype(output.dtype).itemsize
    step = channels * height * width * bytes_per_value
    labels["values"] = output.address + step * np.arange(len(labels), dtype=np.uint64)
    planes = np.arange(masks.shape[1], dtype=np.uint64)
    masks["logits"] = labels["values"][:, None] + np.uint64(strides[0] * bytes_per_value) * planes


def set_results(
    records: MaskRecords,
    results: Sequence[ResultsAt],
    geometries: Sequence[Geometry],
    mask_dtype: np.dtype[Any],
    *,
    table: int = 0,
) -> None:
    """Set the addresses of the results, one per geometry.

    `table` is the address of a uint16 mask value per label, or 0.
    """
    records.masks["mask_bytes"], records.masks["table"] = mask_dtype.itemsize, table
    for planes, result, geometry in zip(records.masks, results, geometries, strict=True):
        for name, where in zip(ResultsAt._fields, result, strict=True):
            if where is not None:
                itemsize = mask_dtype.itemsize if name == "mask" else 4
                planes[name] = _first_visible(where, geometry, len(planes), itemsize)
                planes[f"{name}_row_stride"] = where.row_stride


def _first_visible(where: PlaneAt, geometry: Geometry, planes: int, itemsize: int) -> NDArray[np.uint64]:
    first = geometry.visible.top * where.row_stride + geometry.visible.left
    return np.array([where.address + itemsize * (first + p * where.plane_stride) for p in range(planes)], np.uint64)


def mask_launches(records: MaskRecords) -> list[Launch]:
    """Return the launches that make masks, then those of requested maps."""
    labels, masks = records.labels, records.masks.ravel()
    sizes = masks["rows"], masks["cols"]
    launches = [
        Launch("seginfer_label", labels, kernel_args.grid(kernel_args.PIXEL_TILE, labels["height"], labels["width"])),
        Launch("seginfer_mask", masks, kernel_args.grid(kernel_args.MASK_TILE, *sizes)),
    ]
    if (masks["confidence"] != 0).any() or (masks["margin"] != 0).any():
        launches.append(Launch("seginfer_maps", masks, kernel_args.grid(kernel_args.PIXEL_TILE, *sizes)))
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
    return Launch(
        "seginfer_overlay", records, kernel_args.grid(kernel_args.OVERLAY_TILE, records["height"], records["width"])
    )
