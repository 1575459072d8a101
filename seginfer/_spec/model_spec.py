"""ModelSpec: what a segmentation model expects and yields, as frozen values that travel inside the model file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._errors import MissingFileError, SpecError
from .certificate import Certificate
from .palettes import default_colors
from .schema import coerce_fields, structure, unstructure

SCHEMA_VERSION = 1

MAX_SIDE = 1 << 20
"""No side of an image, an input or an output is longer: products of three sides then fit 64 bits."""

Task = Literal["semantic", "binary", "multilabel"]
Layout = Literal["NCHW", "NHWC"]
Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "letterbox", "pad", "center-crop", "tile"]
Resampling = Literal["opencv", "pillow", "torch", "torch-antialias", "nearest"]
OutputKind = Literal["logits", "probabilities", "labels"]


def _check_most(name: str, *values: int) -> None:
    if values and max(values) > MAX_SIDE:
        raise SpecError(f"{name} must be at most {MAX_SIDE}, got {max(values)}")


@dataclass(frozen=True)
class InputSpec:
    """The image tensor that the network takes: `(pixel * scale - mean) / std` of the resized image."""

    size: tuple[int, int] | None = None
    """(height, width) of the network input; None if the network takes any multiple of `multiple_of`."""
    multiple_of: int = 1
    """Heights and widths that a network with `size=None` accepts are multiples of this. For "tile": the product of the
    network's strides and poolings, 16 for a U-Net; tiles are apart by multiples of it."""
    name: str = "image"
    """Tensor name in the graph."""
    layout: Layout = "NCHW"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    color: Color = "rgb"
    """Channel order that the network was trained with."""
    resize: Resize = "stretch"
    """How an image of another size gets into the input; see `Geometry`. "tile" never resizes: it cuts the image,
    mirrored at its borders, into overlapping tiles of `size`."""
    tile_margin: int = 0
    """For "tile": pixels at each side of a tile that are context for the others, and that it does not answer for. At
    least the radius of the receptive field, or what unpadded convolutions drop: 92 for the U-Net of the paper."""
    anchor: Literal["center", "top-left"] = "center"
    """Where the image sits inside the padding of letterbox and pad."""
    resampling: Resampling = "opencv"
    """The library whose resize the model was trained with: cv2 INTER_LINEAR, Pillow BILINEAR, torch interpolate
    (bilinear, align_corners=False) without or with antialias, or torch's nearest."""
    pad_value: tuple[float, ...] = (0.0,)
    """Pixel value of the padding, 0..255, one for all channels or one per channel."""
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    """Subtracted after `scale`; one for all channels or one per channel, in the order of `color`."""
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        coerce_fields(self, "input")
        self._check_size()
        self._check_values()

    @property
    def channels(self) -> int:
        """Number of image channels: 1 for gray, 3 otherwise."""
        return 1 if self.color == "gray" else 3

    @property
    def tile_step(self) -> tuple[int, int]:
        """For "tile": (height, width) that each tile answers for, the largest multiple of `multiple_of` it can.

        The U-Net of the paper maps 572 pixels to 388, and 388 is no multiple of its 16: tiles that far apart are pooled
        in other groups of pixels than one pass over the whole image is. Its step is 384; 4 rows stay unused.
        """
        height, width = (side - 2 * self.tile_margin for side in self.size or (0, 0))
        return height // self.multiple_of * self.multiple_of, width // self.multiple_of * self.multiple_of

    def per_channel(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Repeat a single value for every channel."""
        return values * self.channels if len(values) == 1 else values

    def _check_size(self) -> None:
        if self.multiple_of < 1:
            raise SpecError(f"input.multiple_of must be at least 1, got {self.multiple_of}")
        _check_most("input.multiple_of", self.multiple_of)
        if self.size is None:
            if self.resize not in ("stretch", "pad"):
                raise SpecError(
                    f"input.resize {self.resize!r} needs a fixed input.size, got None; use 'stretch' or 'pad'"
                )
        elif min(self.size) < 1:
            raise SpecError(f"input.size must be positive (height, width), got {self.size}")
        _check_most("input.size", *self.size or ())
        self._check_tiles()

    def _check_tiles(self) -> None:
        if self.resize != "tile":
            if self.tile_margin:
                raise SpecError(f"input.tile_margin {self.tile_margin} needs resize 'tile', got {self.resize!r}")
        elif self.tile_margin < 0:
            raise SpecError(f"input.tile_margin must be at least 0, got {self.tile_margin}")
        elif min(self.tile_step) < 1:
            raise SpecError(
                f"input.size {self.size} less a tile_margin of {self.tile_margin} at each side must hold multiple_of "
                f"{self.multiple_of}; use a larger size"
            )

    def _check_values(self) -> None:
        for name in ("pad_value", "mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels):
                raise SpecError(f"input.{name} must hold 1 or {self.channels} values for {self.color}, got {values}")
            if not all(map(math.isfinite, values)):
                raise SpecError(f"input.{name} must be finite, got {values}")
        if not all(0 <= value <= 255 for value in self.pad_value):
            raise SpecError(f"input.pad_value must be pixel values in 0..255, got {self.pad_value}")
        if any(value <= 0 for value in self.std):
            raise SpecError(f"input.std must be positive, got {self.std}; use 1 to leave a channel unscaled")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise SpecError(f"input.scale must be positive, got {self.scale}; use 1 to leave pixels at 0..255")
        if self.dtype == "uint8" and (self.scale != 1 or any(self.mean) or set(self.std) != {1.0}):
            raise SpecError("input.dtype uint8 takes raw pixels; set scale to 1, mean to 0 and std to 1")
        if self.dtype == "uint8" and self.resampling in ("torch", "torch-antialias"):
            raise SpecError(f"input.resampling {self.resampling!r} yields floats; use opencv, pillow or nearest")


@dataclass(frozen=True)
class UpsampleSpec:
    """A bilinear upsampling that the network's own code ends with, and that its exported graph leaves out."""

    factor: int
    """Height of the upsampled output over the height of the graph's tensor."""
    align_corners: bool = False
    """As the network's own code has it."""

    def __post_init__(self) -> None:
        coerce_fields(self, "outputs.upsample")
        if self.factor < 2:
            raise SpecError(f"outputs.upsample.factor must be at least 2, got {self.factor}; null leaves it out")
        _check_most("outputs.upsample.factor", self.factor)


@dataclass(frozen=True)
class OutputSpec:
    """One output tensor of the network."""

    name: str = "logits"
    kind: OutputKind = "logits"
    """Values before the activation, after it, or class ids."""
    layout: Layout = "NCHW"
    stride: int = 1
    """Input height over output height; 4 for a network that yields logits at a quarter of its input size. Where
    `upsample` is set, the output is what that yields."""
    align_corners: bool = False
    """How the network's own code would interpolate this output to the image's size."""
    threshold: float = 0.5
    """Probability above which a binary or multilabel pixel is set."""
    upsample: UpsampleSpec | None = None
    """The network's last step where the graph stops before it: the mask step does both interpolations at once, with
    the same result. `seginfer export` fills it in."""

    def __post_init__(self) -> None:
        coerce_fields(self, "outputs")
        if self.stride < 1:
            raise SpecError(f"outputs.stride must be at least 1, got {self.stride}")
        _check_most("outputs.stride", self.stride)
        if not 0 < self.threshold < 1:
            raise SpecError(f"outputs.threshold is a probability between 0 and 1, got {self.threshold}")
        if self.kind == "labels" and self.upsample:
            raise SpecError("outputs.upsample interpolates, which class ids cannot bear; use kind 'logits' or null")

    @property
    def graph_stride(self) -> int:
        """Input height over the height of the tensor that the graph yields."""
        return self.stride * (self.upsample.factor if self.upsample else 1)


@dataclass(frozen=True)
class ClassSpec:
    """Names and colours of the mask's values."""

    names: tuple[str, ...]
    """One name per class id. A binary mask has two: what 0 means and what 1 means."""
    colors: tuple[tuple[int, int, int], ...] = ()
    """RGB, 0..255, one per name; Cityscapes or Pascal VOC colours if empty."""
    ignore_index: int | None = 255
    """Mask value of pixels that the network did not see (outside a center crop)."""

    def __post_init__(self) -> None:
        coerce_fields(self, "classes")
        if not self.names:
            raise SpecError("classes.names is empty; name every class")
        if len(set(self.names)) != len(self.names):
            raise SpecError(f"classes.names must be unique, got {self.names}")
        if not self.colors:
            object.__setattr__(self, "colors", default_colors(self.names))
        if len(self.colors) != len(self.names):
            raise SpecError(f"classes.colors must hold {len(self.names)} colours, got {len(self.colors)}")
        if not all(0 <= value <= 255 for color in self.colors for value in color):
            raise SpecError("classes.colors must be RGB in 0..255")


@dataclass(frozen=True)
class Provenance:
    """Where a model file comes from."""

    source: str = ""
    """The module, file or project that the network was made by."""
    weights_sha256: str = ""
    precision: str = ""
    """Of weights and activations: "fp32", or "fp16" except for `fp32_nodes`."""
    opset: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    fp32_nodes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Nodes that compute in float32 although the precision is lower, by reason."""

    def __post_init__(self) -> None:
        coerce_fields(self, "provenance")


@dataclass(frozen=True)
class ModelSpec:
    """The contract between training, export and the device: everything about a model that its graph does not say.

    Raises:
        SpecError: on construction, if a value is wrong or two values contradict each other; the message names both.
    """

    task: Task
    input: InputSpec
    classes: ClassSpec
    outputs: tuple[OutputSpec, ...] = (OutputSpec(),)
    """The first is the one that masks are made of."""
    provenance: Provenance = field(default_factory=Provenance, hash=False)

    def __post_init__(self) -> None:
        coerce_fields(self, "spec")
        self._check_outputs()
        self._check_tiles()
        self._check_classes()

    @property
    def output(self) -> OutputSpec:
        """The output that masks are made of."""
        return self.outputs[0]

    @property
    def num_classes(self) -> int:
        """Number of class names."""
        return len(self.classes.names)

    @property
    def num_channels(self) -> int:
        """Number of channels of the mask output: one per class, but a single one for a binary mask."""
        return 1 if self.task == "binary" else self.num_classes

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """uint8 while every mask value fits, uint16 for more than 256 values."""
        if self.task == "multilabel":
            return np.dtype(np.uint8)
        largest = max(self.num_classes - 1, self.classes.ignore_index or 0)
        return np.dtype(np.uint8 if largest < 256 else np.uint16)

    @property
    def ignore_value(self) -> int:
        """Mask value of pixels that the network did not see; 0, not set, for multilabel."""
        return 0 if self.task == "multilabel" else self.classes.ignore_index or 0

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read a spec from JSON text; unknown keys are errors that name the key."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"the spec is not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise SpecError(f"the spec must be a JSON object, got {type(data).__name__}")
        version = data.pop("schema", None)
        if version != SCHEMA_VERSION:
            raise SpecError(f'spec.schema must be {SCHEMA_VERSION}, got {version!r}; add "schema": {SCHEMA_VERSION}')
        _rename_old_keys(data)
        return structure(cls, data, "spec")

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the spec as JSON text that `from_json` reads back equal."""
        return json.dumps({"schema": SCHEMA_VERSION, **unstructure(self)}, indent=indent)

    @classmethod
    def load(cls, path: str | Path) -> ModelSpec:
        """Read a spec from a JSON file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise MissingFileError(f"no spec file at {path}; check the path") from error
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"cannot read {path} as JSON text: {error}") from error
        return cls.from_json(text)

    def _check_outputs(self) -> None:
        names = [output.name for output in self.outputs]
        if not names or len(set(names)) != len(names):
            raise SpecError(f"outputs must be one or more tensors with different names, got {names}")
        if self.output.kind == "labels" and self.task != "semantic":
            raise SpecError(f"outputs[0].kind 'labels' needs task 'semantic', got {self.task!r}")

    def _check_tiles(self) -> None:
        if self.input.resize != "tile":
            return
        stride = self.output.graph_stride
        if self.input.multiple_of % stride:
            raise SpecError(
                f"input.multiple_of of tiles must be a multiple of the output's stride {stride}, got "
                f"{self.input.multiple_of}; set it to the product of the network's strides"
            )
        if self.output.upsample and self.output.upsample.align_corners:
            raise SpecError(
                "outputs.upsample.align_corners makes logits depend on the size of the input, which tiles change; "
                "upsample with align_corners=False, or use another input.resize"
            )

    def _check_classes(self) -> None:
        needs_ignore = self.input.resize == "center-crop" and self.task != "multilabel"
        if needs_ignore and self.classes.ignore_index is None:
            raise SpecError("a center crop leaves pixels unseen; set classes.ignore_index to their mask value, as 255")
        if self.task == "binary" and self.num_classes != 2:
            raise SpecError(
                f"classes.names of a binary task must be two, what 0 and what 1 mean, got {self.classes.names}"
            )
        ignore = self.classes.ignore_index
        if ignore is not None and not self.num_classes <= ignore < 65536:
            raise SpecError(
                f"classes.ignore_index must be {self.num_classes}..65535 (below: classes), got {ignore}; null is none"
            )
        if self.num_classes > 65535:
            raise SpecError(f"classes.names must be at most 65535, got {self.num_classes}")


def _rename_old_keys(data: dict[str, Any]) -> None:
    """Replace keys that earlier versions wrote by those of this version, in place."""
    provenance = data.get("provenance")
    # Model files and engines hold the JSON text of the version that wrote them.
    if isinstance(provenance, dict) and "islands" in provenance and "fp32_nodes" not in provenance:
        provenance["fp32_nodes"] = provenance.pop("islands")
