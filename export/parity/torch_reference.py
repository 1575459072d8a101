"""PyTorch's own pipeline, from images to labels.

It uses the libraries that models are trained with, and none of seginfer's arithmetic: cv2, Pillow and torch resize,
torch normalises and interpolates. Only the placement of the image (`Geometry`) is shared. No library defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor, nn
from torch.nn import functional as F

from seginfer._errors import ExportError, SegInferError
from seginfer._geometry.geometry import Geometry
from seginfer._spec.model_spec import InputSpec, ModelSpec
from seginfer.backends import Backend
from seginfer.backends.torch import TorchBackend

from .._network import Network
from .dense import STRIDE_REMEDY, decide, row_axis, upsample_output

Image = NDArray[np.uint8]


class ReferenceOutput(NamedTuple):
    """Result of PyTorch's pipeline on one image."""

    batch: NDArray[Any]
    """(1, C, h, w) or (1, h, w, C), by the layout of the spec. For policy "tile", (T, ...) with all tiles."""
    output: NDArray[Any]
    """The network's mask output for that batch. For tiles, the cells that `crop_tile_outputs` leaves."""
    labels: NDArray[np.int64]
    """(H, W) labels, or (C, H, W) of 0 and 1 for multilabel."""
    margin: NDArray[np.float32]
    """Distance of each decision from flipping, in the shape of `labels`. For one channel, twice the distance to the
    threshold."""


class TorchReference:
    """Runs a module on images as PyTorch users do.

    Policy "tile" runs on the whole mirrored image at once.

    Args:
        network: any segmentation module, in eval mode. Or a backend, whose outputs are taken for PyTorch's.
        spec: the model's contract.
        batch_size: number of times to repeat an image, for a network that is bound to this batch size.
    """

    def __init__(self, network: nn.Module | Backend, spec: ModelSpec, *, batch_size: int = 1) -> None:
        self.spec = spec
        self.batch_size = batch_size
        self._is_graph = not isinstance(network, nn.Module)
        self.backend: Backend = torch_backend(network, spec) if isinstance(network, nn.Module) else network

    def __call__(self, image: Image) -> ReferenceOutput:
        """Run the pipeline on one RGB or gray image."""
        geometry = Geometry.place((image.shape[0], image.shape[1]), self.spec.input)
        batch = prepare(image, geometry, self.spec.input)
        output = self._output(batch)
        labels, margin = decide(output, geometry, self.spec)
        if self.spec.input.resize == "tile":
            batch, output = _cut_into_tiles(batch, output, geometry, self.spec)
        return ReferenceOutput(batch, output, labels, margin)

    def _output(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            output = self.backend.infer(batch.repeat(self.batch_size, 0))[self.spec.output.name][:1]
            return upsample_output(output, self.spec.output) if self._is_graph else output
        except SegInferError:
            raise
        except Exception as error:  # the user's module may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            failure = f"the module failed on a batch {batch.shape}: {reason}"
            if self.spec.input.resize != "tile":
                raise ExportError(f"{failure}; check input.size and input.color of the spec") from error
            raise ExportError(
                f"tiles are compared with one pass over the whole image, and {failure}; {STRIDE_REMEDY}, and let it "
                "take input.size plus any multiple of that"
            ) from error


def torch_backend(module: nn.Module, spec: ModelSpec) -> TorchBackend:
    """Return the backend of a module with the outputs of a spec."""
    outputs = [output.name for output in spec.outputs]
    return TorchBackend(Network(module, spec), outputs, input_dtype=spec.input.dtype)


def prepare(image: Image, geometry: Geometry, spec: InputSpec) -> NDArray[Any]:
    """Resize, pad and normalise one RGB or gray image.

    The spec's resampling library resizes, torch does the rest.
    """
    pixels = image.reshape(*geometry.image_hw, spec.channels)
    pixels = np.ascontiguousarray(pixels[:, :, ::-1] if spec.color == "bgr" else pixels)
    resized = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    if geometry.resized_hw != geometry.image_hw:
        resized = _RESIZE[spec.resampling](pixels, geometry.resized_hw)
    x = _mirror(pixels, geometry) if spec.resize == "tile" else _pad(resized, geometry, spec)
    x = (x * spec.scale - _per_channel(spec.per_channel(spec.mean))) / _per_channel(spec.per_channel(spec.std))
    x = x.to(getattr(torch, spec.dtype))
    return (x if spec.layout == "NCHW" else x.permute(0, 2, 3, 1)).contiguous().numpy()


def _pad(resized: Tensor, geometry: Geometry, spec: InputSpec) -> Tensor:
    x = torch.empty(1, spec.channels, *geometry.input_hw)
    x[:] = _per_channel(spec.per_channel(spec.pad_value))
    content, (offset_y, offset_x) = geometry.content, geometry.offset_yx
    top, left = content.top - offset_y, content.left - offset_x
    rows, cols = content.slices
    x[..., rows, cols] = resized[..., top : top + content.height, left : left + content.width]
    return x


def _mirror(pixels: Image, geometry: Geometry) -> Tensor:
    """Mirror the borders of an image. Return (1, C, h, w)."""
    width = [
        (before, frame - before - image)
        for before, frame, image in zip(geometry.offset_yx, geometry.input_hw, geometry.image_hw, strict=True)
    ]
    return torch.from_numpy(np.pad(pixels, (*width, (0, 0)), mode="reflect")).permute(2, 0, 1)[None].float()


def _cut_into_tiles(
    batch: NDArray[Any], output: NDArray[Any], geometry: Geometry, spec: ModelSpec
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut batch and output of one pass into tiles."""
    stride, input_axis, output_axis = (
        spec.output.whole_stride,
        2 if spec.input.layout == "NCHW" else 1,
        row_axis(output, spec),
    )
    inputs, outputs = [], []
    for part in geometry.tiles(spec.input):
        corner = [whole - own for whole, own in zip(geometry.offset_yx, part.offset_yx, strict=True)]
        inputs.append(_crop(batch, input_axis, corner, part.input_hw))
        beyond = [(frame - side) // stride for frame, side in zip(geometry.input_hw, part.input_hw, strict=True)]
        cells = [n - k for n, k in zip(output.shape[output_axis:], beyond, strict=False)]
        outputs.append(_crop(output, output_axis, [n // stride for n in corner], cells))
    return np.concatenate(inputs), crop_tile_outputs(np.concatenate(outputs), spec)


def crop_tile_outputs(output: NDArray[Any], spec: ModelSpec) -> NDArray[Any]:
    """Crop outputs of tiles to the cells that masks use.

    Outputs of other policies stay as they are.
    """
    if spec.input.resize != "tile":
        return output
    axis, reach = row_axis(output, spec), spec.output.whole_stride - 1
    bounds = []
    for side, step, cells in zip(spec.input.size or (), spec.input.tile_step, output.shape[axis:], strict=False):
        first = spec.input.tile_margin - (side - spec.output.whole_stride * cells) // 2
        low, high = (first - reach) // spec.output.whole_stride, -(-(first + step + reach) // spec.output.whole_stride)
        bounds.append((low, high - low))
    (top, height), (left, width) = bounds
    return _crop(output, axis, (top, left), (height, width))


def _crop(array: NDArray[Any], axis: int, corner: Sequence[int], size: Sequence[int]) -> NDArray[Any]:
    rows, cols = (slice(first, first + count) for first, count in zip(corner, size, strict=True))
    return array[(slice(None),) * axis + (rows, cols)]


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


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
