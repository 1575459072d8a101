"""Random batches, outputs and overlays for the CUDA kernels, with what the CPU makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec, postprocess, preprocess
from seginfer._geometry.geometry import Geometry
from seginfer._inputs.formats import PixelFormat, PixelLayout, YuvFormat, YuvLayout, even, image_shape
from seginfer._reference.mask import blend
from seginfer._reference.yuv import YuvMatrix, YuvRange
from seginfer._spec.model_spec import TaskName, UpsampleSpec
from seginfer._tasks.dense.postprocess import confidence, margin

T = TypeVar("T")
LAYOUTS: tuple[PixelLayout, ...] = get_args(PixelLayout)
RESAMPLINGS = ("opencv", "pillow", "torch", "torch-antialias", "nearest")
Array = NDArray[Any]


# ------------------------------------------------------------------------------------------------------- images


@dataclass
class InputCase:
    """A batch to be made, and what the CPU makes of it."""

    spec: ModelSpec
    color: PixelFormat
    images: list[Array]
    expected: Array
    geometries: list[Geometry]

    def inputs(self) -> list[Array]:
        """Return the image of every geometry."""
        corners = [g.tile is None or g.tile.corner_yx == (0, 0) for g in self.geometries]
        return [self.images[i] for i in np.cumsum(corners) - 1]


def input_case(seed: int) -> InputCase:
    """Draw a spec, a format and images; every combination turns up."""
    rng = np.random.default_rng(seed)
    layout = LAYOUTS[seed % len(LAYOUTS)]
    resampling = RESAMPLINGS[seed // len(LAYOUTS) % len(RESAMPLINGS)]
    color: PixelFormat = layout
    if layout in get_args(YuvLayout) and rng.random() < 0.8:
        matrix, values = (str(rng.choice(get_args(names))) for names in (YuvMatrix, YuvRange))
        color = YuvFormat(layout, matrix, values)  # type: ignore[arg-type]
    spec = _input_spec(rng, layout, resampling)
    limits = {"pad": spec.input.size or (40, 40), "tile": (40, 40)}
    limit = limits.get(spec.input.resize, (140, 130))
    images = [_image(rng, layout, limit) for _ in range(rng.integers(1, 4))]
    return InputCase(spec, color, images, *preprocess(images, spec, color=color))


def _input_spec(rng: np.random.Generator, color: str, resampling: str) -> ModelSpec:
    dtypes = ("float32", "float16") if resampling.startswith("torch") else ("float32", "float16", "uint8")
    resize = rng.choice(["stretch", "letterbox", "letterbox", "center-crop", "pad", "tile"])
    options: dict[str, Any] = {"resampling": resampling, "dtype": rng.choice(dtypes), "resize": str(resize)}
    options["dtype"] = str(options["dtype"])
    options["size"] = (int(rng.integers(1, 70)), int(rng.integers(1, 90)))
    if resize == "pad":
        options["size"] = tuple(side + side % 2 for side in options["size"])  # camera formats are even
    if resize == "tile":
        options |= {"size": (12, 14), "tile_margin": 3, "multiple_of": 2}
    options["scale"] = 1
    if options["dtype"] != "uint8":
        options |= {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        if color == "gray":
            options |= {"mean": (0.4,), "std": (0.2,)}
    options["color"] = "gray" if color == "gray" else str(rng.choice(["rgb", "bgr"]))
    options["layout"] = str(rng.choice(["NCHW", "NHWC"]))
    return ModelSpec("semantic", InputSpec(pad_value=(114,), **options), ClassSpec(("a", "b", "c")))


def _image(rng: np.random.Generator, layout: PixelLayout, limit: tuple[int, int]) -> Array:
    """Return an image with random bytes, sometimes one row or column, sometimes with a pitch."""
    height, width = (1 if rng.random() < 0.1 else int(rng.integers(1, n + 1)) for n in limit)
    is_yuv = layout in get_args(YuvLayout)
    shape = image_shape(even((height, width)) if is_yuv else (height, width), layout)
    gap = int(rng.integers(0, 3)) * 2 if layout != "i420" else 0  # its planes follow each other
    pixels = rng.integers(0, 256, (shape[0], shape[1] + gap, *shape[2:]), np.uint8)
    return pixels[:, : shape[1]] if gap else pixels


# -------------------------------------------------------------------------------------------------------- masks


@dataclass
class MaskCase:
    """An output to be decided, and what the CPU decides."""

    spec: ModelSpec
    geometries: list[Geometry]
    output: Array
    remap: tuple[int, ...] | None
    masks: list[Array]
    confidences: list[Array]
    margins: list[Array]

    def hw(self) -> tuple[int, int]:
        """Size of the output."""
        if self.spec.output.kind == "labels":
            return self.output.shape[1:]
        return self.output.shape[2:] if self.spec.output.layout == "NCHW" else self.output.shape[1:3]

    def per_geometry(self, arrays: list[T]) -> list[T]:
        """Return what belongs to the image of every geometry."""
        corners = [g.tile is None or g.tile.corner_yx == (0, 0) for g in self.geometries]
        return [arrays[i] for i in np.cumsum(corners) - 1]


def mask_case(seed: int) -> MaskCase:
    """Draw a spec, geometries and an output; every task, kind and number of taps turns up."""
    rng = np.random.default_rng(10_000 + seed)
    tasks: tuple[TaskName, ...] = ("semantic", "semantic", "binary", "multilabel")
    task = tasks[seed % 4]
    resize: Any = ("stretch", "letterbox", "center-crop", "tile")[seed // 4 % 4]
    classes = 2 if task == "binary" else int(rng.choice([1, 2, 3, 19, 300, 1100], p=[0.1, 0.2, 0.2, 0.38, 0.1, 0.02]))
    if task == "multilabel":
        classes = min(classes, 7)
    names = tuple(f"c{i}" for i in range(classes))
    output = _output_spec(rng, task, is_tile=resize == "tile")
    size: dict[str, Any] = {"size": (int(rng.integers(4, 60)), int(rng.integers(4, 60)))}
    tile: dict[str, Any] = {"size": (24, 24), "tile_margin": 7, "multiple_of": 4}
    source = InputSpec(resize=resize, **(tile if resize == "tile" else size))
    spec = ModelSpec(task, source, ClassSpec(names, ignore_index=2000 if classes > 255 else 255), (output,))
    return _with_output(rng, spec, classes)


def _output_spec(rng: np.random.Generator, task: str, *, is_tile: bool) -> OutputSpec:
    is_labels = task == "semantic" and rng.random() < 0.15
    kind: Any = "labels" if is_labels else str(rng.choice(["logits", "probabilities"]))
    corners, inner = (bool(rng.integers(2)) and not is_tile for _ in range(2))
    factor = 0 if is_labels or rng.random() < 0.7 else 2 if is_tile else int(rng.integers(2, 5))
    layout: Any = str(rng.choice(["NCHW", "NHWC"]))
    return OutputSpec(
        kind=kind,
        layout=layout,
        stride=(2 if factor else 4) if is_tile else None,
        align_corners=corners,
        upsample=UpsampleSpec(factor, align_corners=inner) if factor else None,
        threshold=0.3,
    )


def _with_output(rng: np.random.Generator, spec: ModelSpec, classes: int) -> MaskCase:
    limit = (40, 50) if spec.input.resize == "tile" else (90, 160)
    sizes = [
        [1 if rng.random() < 0.1 else int(rng.integers(1, n + 1)) for n in limit] for _ in range(rng.integers(1, 4))
    ]
    geometries = [tile for h, w in sizes for tile in Geometry.place((h, w), spec.input).tiles(spec.input)]
    if spec.input.resize == "tile":
        assert spec.input.size is not None
        hw = spec.input.size[0] // spec.output.graph_stride, spec.input.size[1] // spec.output.graph_stride
    else:
        hw = int(rng.integers(2, 24)), int(rng.integers(2, 24))
    output = _output(rng, spec, len(geometries), hw)
    table = None
    if spec.task != "multilabel" and rng.random() < 0.3:
        table = tuple(rng.integers(0, 70000 if rng.random() < 0.3 else 256, classes).clip(0, 65535).tolist())
    masks = postprocess(output, geometries, spec, remap=table)
    maps = ([], []) if spec.output.kind == "labels" else [f(output, geometries, spec) for f in (confidence, margin)]
    return MaskCase(spec, geometries, output, table, masks, *maps)


def _output(rng: np.random.Generator, spec: ModelSpec, n: int, hw: tuple[int, int]) -> Array:
    """Return values with regions and exact ties, as networks in low precision have them."""
    if spec.output.kind == "labels":
        dtype = (np.int64, np.int32, np.uint8)[rng.integers(2 if spec.num_classes > 256 else 3)]
        return rng.integers(0, spec.num_classes, (n, *hw)).astype(dtype)
    steps = rng.choice([2, 8, 1000])
    coarse = rng.integers(0, steps, (n, spec.num_channels, -(-hw[0] // 3), -(-hw[1] // 3))) / steps
    values = coarse.repeat(3, 2).repeat(3, 3)[:, :, : hw[0], : hw[1]] + rng.random() * 0.1 * rng.random((n, 1, *hw))
    if spec.output.kind == "logits":
        values = values * 12 - 6
    values = values if spec.output.layout == "NCHW" else np.moveaxis(values, 1, 3)
    return np.ascontiguousarray(values, (np.float32, np.float16)[rng.integers(2)])


# ----------------------------------------------------------------------------------------------------- overlays


@dataclass
class OverlayCase:
    """Images to be painted, and the specification's result."""

    images: list[Array | None]
    masks: list[Array]
    colors: Array
    weight: int
    expected: list[Array]


def overlay_case(seed: int) -> OverlayCase:
    """Draw images, of three channels, one or none, masks with values beyond the classes, and colours with black."""
    rng = np.random.default_rng(20_000 + seed)
    colors = rng.integers(0, 256, (rng.choice([1, 3, 300]), 3), np.uint8) * (rng.random((1, 1)) < 0.9).astype(np.uint8)
    colors[rng.random(len(colors)) < 0.2] = 0
    dtype = (np.uint8, np.uint16)[rng.integers(2)]
    weight, kind = int(rng.integers(0, 257)), rng.integers(3)
    images: list[Array | None] = []
    masks: list[Array] = []
    expected = []
    for _ in range(rng.integers(1, 4)):
        height, width = int(rng.integers(1, 20)), int(rng.integers(1, 300))
        image = None if kind == 0 else rng.integers(0, 256, (height, width, *((3,) if kind == 1 else ())), np.uint8)
        mask = rng.integers(0, min(len(colors) + 3, np.iinfo(dtype).max), (height, width)).astype(dtype)
        pixels = np.zeros((height, width, 1), np.uint8) if image is None else image.reshape(height, width, -1)
        table = np.concatenate((colors, np.zeros((1, 3), np.uint8)))
        painted = table[np.minimum(mask.astype(np.int64), len(colors))]
        images.append(image)
        masks.append(mask)
        expected.append(blend(np.broadcast_to(pixels, painted.shape), painted, weight))
    return OverlayCase(images, masks, colors, weight, expected)
