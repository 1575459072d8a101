"""PyTorch's own pipeline, image to labels, through the libraries that models are trained with.

Nothing of seginfer's arithmetic is used here: cv2, Pillow and torch resize, torch normalises and interpolates. Only
the placement of the image (`Geometry`) is shared, for which there is no library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer._errors import ExportError
from seginfer._geometry.geometry import Geometry
from seginfer._geometry.tiles import size_problem
from seginfer._spec.model_spec import InputSpec, ModelSpec, OutputSpec
from seginfer.backends.torch import TorchBackend

from ._network import Network

Image = NDArray[np.uint8]

_STRIDE_REMEDY = "set input.multiple_of to the product of the network's strides"


class Opinion(NamedTuple):
    """What PyTorch's pipeline says about one image."""

    batch: NDArray[Any]
    """(1, C, h, w) or (1, h, w, C), as the spec says; policy "tile": (T, ...), the tiles of the whole."""
    output: NDArray[Any]
    """The network's mask output for that batch; of a tile, the cells that `answered` leaves."""
    labels: NDArray[np.int64]
    """(H, W) labels, or (C, H, W) of 0 and 1 for multilabel."""
    margin: NDArray[np.float32]
    """Same shape: how far the decision is from flipping; twice the distance to the threshold for one channel."""


class Oracle:
    """Runs a module on images the way PyTorch users do; for policy "tile", on the whole mirrored image at once.

    Args:
        module: any segmentation module, in eval mode.
        spec: the model's contract.
        batch_size: how often to repeat an image, for a module that is bound to batches of this size.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec, *, batch_size: int = 1) -> None:
        self.spec = spec
        self.batch_size = batch_size
        outputs = [output.name for output in spec.outputs]
        self.backend = TorchBackend(Network(module, spec), outputs, input_dtype=spec.input.dtype)

    def __call__(self, image: Image) -> Opinion:
        """Run the whole pipeline on one RGB (or gray) image."""
        geometry = Geometry.place((image.shape[0], image.shape[1]), self.spec.input)
        batch = prepare(image, geometry, self.spec.input)
        output = self._output(batch)
        labels, margin = decide(output, geometry, self.spec)
        if self.spec.input.resize == "tile":
            batch, output = _cut_into_tiles(batch, output, geometry, self.spec)
        return Opinion(batch, output, labels, margin)

    def _output(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            return self.backend.infer(batch.repeat(self.batch_size, 0))[self.spec.output.name][:1]
        except Exception as error:  # whatever the user's module raises
            if self.spec.input.resize != "tile":
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"tiles are compared with one pass over the whole image, and the module failed on a batch "
                f"{batch.shape}: {reason}; {_STRIDE_REMEDY}, and let it take input.size plus any multiple of that"
            ) from error


def prepare(image: Image, geometry: Geometry, spec: InputSpec) -> NDArray[Any]:
    """Resize, pad and normalise one RGB (or gray) image as torch and the spec's resampling library do."""
    pixels = image.reshape(*geometry.image_hw, spec.channels)
    pixels = np.ascontiguousarray(pixels[:, :, ::-1] if spec.color == "bgr" else pixels)
    resized = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    if geometry.resized_hw != geometry.image_hw:
        resized = _RESIZE[spec.resampling](pixels, geometry.resized_hw)
    x = _mirrored(pixels, geometry) if spec.resize == "tile" else _padded(resized, geometry, spec)
    x = (x * spec.scale - _per_channel(spec.per_channel(spec.mean))) / _per_channel(spec.per_channel(spec.std))
    x = x.to(getattr(torch, spec.dtype))
    return (x if spec.layout == "NCHW" else x.permute(0, 2, 3, 1)).contiguous().numpy()


def _padded(resized: Tensor, geometry: Geometry, spec: InputSpec) -> Tensor:
    x = torch.empty(1, spec.channels, *geometry.input_hw)
    x[:] = _per_channel(spec.per_channel(spec.pad_value))
    content, (offset_y, offset_x) = geometry.content, geometry.offset_yx
    top, left = content.top - offset_y, content.left - offset_x
    rows, cols = content.slices
    x[..., rows, cols] = resized[..., top : top + content.height, left : left + content.width]
    return x


def _mirrored(pixels: Image, geometry: Geometry) -> Tensor:
    """Return (1, C, h, w) of the whole frame."""
    width = [
        (before, frame - before - image)
        for before, frame, image in zip(geometry.offset_yx, geometry.input_hw, geometry.image_hw, strict=True)
    ]
    return torch.from_numpy(np.pad(pixels, (*width, (0, 0)), mode="reflect")).permute(2, 0, 1)[None].float()


def _cut_into_tiles(
    batch: NDArray[Any], output: NDArray[Any], geometry: Geometry, spec: ModelSpec
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut a pass over the frame into what each tile takes and yields."""
    stride, input_axis, output_axis = spec.output.stride, 2 if spec.input.layout == "NCHW" else 1, _axis(output, spec)
    inputs, outputs = [], []
    for part in geometry.tiles(spec.input):
        corner = [whole - own for whole, own in zip(geometry.offset_yx, part.offset_yx, strict=True)]
        inputs.append(_crop(batch, input_axis, corner, part.input_hw))
        beyond = [(frame - side) // stride for frame, side in zip(geometry.input_hw, part.input_hw, strict=True)]
        cells = [n - k for n, k in zip(output.shape[output_axis:], beyond, strict=False)]
        outputs.append(_crop(output, output_axis, [n // stride for n in corner], cells))
    return np.concatenate(inputs), answered(np.concatenate(outputs), spec)


def answered(output: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """Return the part of tiles' outputs that masks are made of; other policies answer for all of it."""
    if spec.input.resize != "tile":
        return output
    axis, reach = _axis(output, spec), spec.output.stride - 1
    bounds = []
    for side, step, cells in zip(spec.input.size or (), spec.input.tile_step, output.shape[axis:], strict=False):
        first = spec.input.tile_margin - (side - spec.output.stride * cells) // 2
        low, high = (first - reach) // spec.output.stride, -(-(first + step + reach) // spec.output.stride)
        bounds.append((low, high - low))
    (top, height), (left, width) = bounds
    return _crop(output, axis, (top, left), (height, width))


def _crop(array: NDArray[Any], axis: int, corner: Sequence[int], size: Sequence[int]) -> NDArray[Any]:
    rows, cols = (slice(first, first + count) for first, count in zip(corner, size, strict=True))
    return array[(slice(None),) * axis + (rows, cols)]


def _axis(output: NDArray[Any], spec: ModelSpec) -> int:
    """Return the axis of rows; that of columns follows."""
    return 1 if output.ndim == 3 or spec.output.layout == "NHWC" else 2


def upsampled(output: NDArray[Any], spec: OutputSpec) -> NDArray[Any]:
    """Return a graph's output as the module itself yields it: with the upsampling that export split off."""
    if spec.upsample is None:
        return output
    axes = (0, 1, 2, 3) if spec.layout == "NCHW" else (0, 3, 1, 2)
    planes = torch.from_numpy(output).float().permute(axes).contiguous()
    factor, align_corners = spec.upsample.factor, spec.upsample.align_corners
    size = [n * factor for n in planes.shape[2:]]
    planes = F.interpolate(planes, size=size, mode="bilinear", align_corners=align_corners)
    return (planes if spec.layout == "NCHW" else planes.permute(0, 2, 3, 1)).numpy()


def decide(output: NDArray[Any], geometry: Geometry, spec: ModelSpec) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return labels and margins at the image's size: crop, interpolate, then decide."""
    values = torch.from_numpy(output)
    if spec.input.resize == "tile":
        geometry = _covered(geometry, output, spec)
    if spec.output.kind == "labels":
        seen = _restore_labels(values.reshape(1, 1, *_labels_hw(values, spec)), geometry)
        margin = torch.full(seen.shape, math.inf)
    else:
        values = values.float() if spec.output.layout == "NCHW" else values.float().permute(0, 3, 1, 2)
        seen, margin = _decided(_restore(values, geometry, spec.output.align_corners)[0], spec)
    shape = (*seen.shape[:-2], *geometry.image_hw)
    region = (..., *geometry.visible.slices)
    labels = torch.full(shape, spec.ignore_value, dtype=torch.int64)
    labels[region] = seen.long()
    margins = torch.full(shape, math.inf)
    margins[region] = margin
    return labels.numpy(), margins.numpy()


def _covered(geometry: Geometry, output: NDArray[Any], spec: ModelSpec) -> Geometry:
    """Return where the image lies in the centre of the input, which is all that unpadded convolutions answer for."""
    axis, stride = _axis(output, spec), spec.output.stride
    height, width = output.shape[axis : axis + 2]
    problem = size_problem(geometry.input_hw, (height, width), stride, spec.input.tile_margin)
    if problem:
        raise ExportError(f"in one pass over the whole image, {problem}, or {_STRIDE_REMEDY}")
    crop = [(full - stride * n) // 2 for full, n in zip(geometry.input_hw, (height, width), strict=True)]
    offset_yx = (geometry.offset_yx[0] - crop[0], geometry.offset_yx[1] - crop[1])
    return replace(geometry, input_hw=(stride * height, stride * width), offset_yx=offset_yx)


def _decided(values: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
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


def _resize_opencv(pixels: Image, size: tuple[int, int]) -> Tensor:
    resized = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized.reshape(*size, -1)).permute(2, 0, 1)[None].float()


def _resize_pillow(pixels: Image, size: tuple[int, int]) -> Tensor:
    picture = PillowImage.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized = np.array(picture.resize(size[::-1], PillowImage.Resampling.BILINEAR))
    return torch.from_numpy(resized.reshape(*size, -1)).permute(2, 0, 1)[None].float()


def _torch_resizer(mode: str, **options: Any) -> Callable[[Image, tuple[int, int]], Tensor]:
    def resize(pixels: Image, size: tuple[int, int]) -> Tensor:
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().contiguous()
        return F.interpolate(planes, size=size, mode=mode, **options)

    return resize


_RESIZE: dict[str, Callable[[Image, tuple[int, int]], Tensor]] = {
    "opencv": _resize_opencv,
    "pillow": _resize_pillow,
    "torch": _torch_resizer("bilinear", align_corners=False),
    "torch-antialias": _torch_resizer("bilinear", align_corners=False, antialias=True),
    "nearest": _torch_resizer("nearest"),
}


def _restore(values: Tensor, geometry: Geometry, align_corners: bool) -> Tensor:
    """Interpolate (1, C, h, w) values at the visible image pixels.

    Where the content starts and ends on cell borders this is a crop and torch's interpolate. Elsewhere (a stride
    that does not divide the padding, a center crop) torch's grid_sample takes the same continuous positions.
    """
    spans = [_cell_span(geometry, axis, values.shape[2 + axis], align_corners) for axis in (0, 1)]
    if all(span.is_exact for span in spans):
        (top, bottom), (left, right) = ((span.low, span.high + 1) for span in spans)
        crop = values[..., top:bottom, left:right].contiguous()  # torch's channels-last code rounds positions otherwise
        return F.interpolate(crop, size=geometry.image_hw, mode="bilinear", align_corners=align_corners)
    axes = [
        span.positions(geometry, axis).clamp(span.low, span.high) / max(values.shape[2 + axis] - 1, 1) * 2 - 1
        for axis, span in enumerate(spans)
    ]
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), -1)[None]
    return F.grid_sample(values.double(), grid, mode="bilinear", padding_mode="border", align_corners=True).float()


class _Span(NamedTuple):
    """The cells along one axis that show the image: first, last, and the map from pixels to cells."""

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
    """Return the (H, W) labels under the centres of the visible pixels, as torch's nearest-exact does on the crop."""
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


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
