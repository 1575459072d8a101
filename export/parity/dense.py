"""Dense outputs of PyTorch's pipeline, at the image's own size."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seginfer._errors import ExportError
from seginfer._geometry.geometry import Geometry
from seginfer._geometry.tiles import size_problem
from seginfer._spec.model_spec import ModelSpec, OutputSpec

STRIDE_REMEDY = "set input.multiple_of to the product of the network's strides"


def row_axis(output: NDArray[Any], spec: ModelSpec) -> int:
    """Return the axis of rows. The axis of columns follows it."""
    return 1 if output.ndim == 3 or spec.output.layout == "NHWC" else 2


def upsample_output(output: NDArray[Any], spec: OutputSpec) -> NDArray[Any]:
    """Apply the upsampling that the export split off."""
    if spec.upsample is None:
        return output
    axes = (0, 1, 2, 3) if spec.layout == "NCHW" else (0, 3, 1, 2)
    planes = torch.from_numpy(output).float().permute(axes).contiguous()
    factor, align_corners = spec.upsample.factor, spec.upsample.align_corners
    size = [n * factor for n in planes.shape[2:]]
    planes = F.interpolate(planes, size=size, mode="bilinear", align_corners=align_corners)
    return (planes if spec.layout == "NCHW" else planes.permute(0, 2, 3, 1)).numpy()


def decide(output: NDArray[Any], geometry: Geometry, spec: ModelSpec) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return labels and margins at the size of the image.

    The output is cropped, interpolated, then decided.
    """
    if spec.output.kind == "labels":
        values = torch.from_numpy(output)
        geometry = _place_output(output, geometry, spec)
        seen = _restore_labels(values.reshape(1, 1, *_labels_hw(values, spec)), geometry)
        margin = torch.full(seen.shape, math.inf)
    else:
        seen, margin = decide_values(restore_values(output, geometry, spec), spec)
    shape = (*seen.shape[:-2], *geometry.image_hw)
    region = (..., *geometry.visible.slices)
    labels = torch.full(shape, spec.ignore_value, dtype=torch.int64)
    labels[region] = seen.long()
    margins = torch.full(shape, math.inf)
    margins[region] = margin
    return labels.numpy(), margins.numpy()


def restore_values(output: NDArray[Any], geometry: Geometry, spec: ModelSpec) -> Tensor:
    """Interpolate an output to the visible pixels of the image, (C, H, W)."""
    values = torch.from_numpy(output).float()
    values = values if spec.output.layout == "NCHW" else values.permute(0, 3, 1, 2)
    return _restore(values, _place_output(output, geometry, spec), spec.output.align_corners)[0]


def _place_output(output: NDArray[Any], geometry: Geometry, spec: ModelSpec) -> Geometry:
    return _narrow_to_output(geometry, output, spec) if spec.input.resize == "tile" else geometry


def _narrow_to_output(geometry: Geometry, output: NDArray[Any], spec: ModelSpec) -> Geometry:
    """Place the image in the part of the input that the output covers."""
    # Unpadded convolutions have no output for the borders of their input.
    axis, stride = row_axis(output, spec), spec.output.whole_stride
    height, width = output.shape[axis : axis + 2]
    problem = size_problem(geometry.input_hw, (height, width), stride, spec.input.tile_margin)
    if problem:
        raise ExportError(f"in one pass over the whole image, {problem}, or {STRIDE_REMEDY}")
    crop = [(full - stride * n) // 2 for full, n in zip(geometry.input_hw, (height, width), strict=True)]
    offset_yx = (geometry.offset_yx[0] - crop[0], geometry.offset_yx[1] - crop[1])
    return replace(geometry, input_hw=(stride * height, stride * width), offset_yx=offset_yx)


def decide_values(values: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Return labels and margins of (C, H, W) interpolated values."""
    if spec.task == "semantic":
        if values.shape[0] == 1:
            return torch.zeros(values.shape[1:]), torch.full(values.shape[1:], math.inf)
        best = values.topk(2, 0).values
        return values.argmax(0), best[0] - best[1]
    p = spec.output.threshold
    threshold = math.log(p / (1 - p)) if spec.output.kind == "logits" else p
    labels, margin = values > threshold, 2 * (values - threshold).abs()
    return (labels[0], margin[0]) if spec.task == "binary" else (labels, margin)


def _restore(values: Tensor, geometry: Geometry, align_corners: bool) -> Tensor:
    """Interpolate (1, C, h, w) values at visible image pixels.

    If the content starts and ends on cell borders, this is a crop and torch's interpolate. Otherwise torch's
    grid_sample takes the same continuous positions, for a stride that does not divide the padding, or a center crop.
    """
    spans = [_cell_span(geometry, axis, values.shape[2 + axis], align_corners) for axis in (0, 1)]
    if all(span.is_exact for span in spans):
        (top, bottom), (left, right) = ((span.low, span.high + 1) for span in spans)
        # Contiguous, because torch's channels-last code rounds positions differently.
        crop = values[..., top:bottom, left:right].contiguous()
        return F.interpolate(crop, size=geometry.image_hw, mode="bilinear", align_corners=align_corners)
    axes = [
        span.positions(geometry, axis).clamp(span.low, span.high) / max(values.shape[2 + axis] - 1, 1) * 2 - 1
        for axis, span in enumerate(spans)
    ]
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), -1)[None]
    return F.grid_sample(values.double(), grid, mode="bilinear", padding_mode="border", align_corners=True).float()


class _Span(NamedTuple):
    """Cells along one axis that show the image.

    They are the first, the last, and the map from pixels to cells.
    """

    low: int
    high: int
    is_exact: bool
    scale: float
    start: float
    centre: float

    def positions(self, geometry: Geometry, axis: int) -> Tensor:
        first, count = geometry.visible[axis], geometry.visible[2 + axis]
        pixels = torch.arange(first, first + count, dtype=torch.float64)
        return self.scale * (pixels + self.centre) - self.centre + self.start


def _cell_span(geometry: Geometry, axis: int, cells: int, align_corners: bool) -> _Span:
    image, resized, source = (hw[axis] for hw in (geometry.image_hw, geometry.resized_hw, geometry.input_hw))
    offset = geometry.offset_yx[axis]
    inside = offset >= 0 and offset + resized <= source
    if align_corners:
        ratio = (cells - 1) / max(source - 1, 1)
        scale = (resized - 1) / (image - 1) * ratio if image > 1 else 0.0
        start, end = offset * ratio, (offset + resized - 1) * ratio
        low, high, centre = math.floor(start), math.ceil(end), 0.0
        exact = inside and (cells == source or resized == source)
    else:
        ratio = cells / source
        scale, start, end = resized / image * ratio, offset * ratio, (offset + resized) * ratio
        low, high, centre = math.floor(start), math.ceil(end) - 1, 0.5
        exact = inside and offset * cells % source == 0 and resized * cells % source == 0
    return _Span(max(0, low), min(cells - 1, high), exact, scale, start, centre)


def _restore_labels(labels: Tensor, geometry: Geometry) -> Tensor:
    """Return (H, W) labels under the centres of visible pixels.

    Source: torch's interpolate with mode "nearest-exact", on the crop.
    """
    axes = []
    for axis in (0, 1):
        cells = labels.shape[2 + axis]
        span = _cell_span(geometry, axis, cells, align_corners=False)
        axes.append((span.positions(geometry, axis) + 0.5).floor().clamp(0, cells - 1).long())
    return labels[0, 0][axes[0][:, None], axes[1]]


def _labels_hw(labels: Tensor, spec: ModelSpec) -> tuple[int, ...]:
    if labels.ndim == 3:
        return tuple(labels.shape[1:])
    return tuple(labels.shape[2:] if spec.output.layout == "NCHW" else labels.shape[1:3])
