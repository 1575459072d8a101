"""ModelSpec: description of a model, stored in its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._errors import MissingFileError, SpecError
from .certificate import Certificate
from .input_spec import MAX_SIDE, InputSpec, Layout, Resampling, Resize
from .output_spec import OutputSpec, UpsampleSpec
from .palettes import default_colors
from .schema import OLD_NAME, coerce_fields, parse_json, structure, unstructure

__all__ = [
    "MAX_SIDE",
    "ClassSpec",
    "InputSpec",
    "Layout",
    "ModelSpec",
    "OutputSpec",
    "Provenance",
    "Resampling",
    "Resize",
    "TaskName",
    "UpsampleSpec",
]

SCHEMA_VERSION = 1
_MOST_NAMES = 65535
_MAX_BYTES = 64 << 20  # of a file
DEFAULT_IGNORE = -1

TaskName = Literal["semantic", "binary", "multilabel"]


@dataclass(frozen=True)
class ClassSpec:
    """Names and colours of the mask's values."""

    names: tuple[str, ...]
    """One name per class id. A binary mask has two, for 0 and for 1."""
    colors: tuple[tuple[int, int, int], ...] = ()
    """RGB, 0..255, one per name. Cityscapes or Pascal VOC colours if empty."""
    ignore_index: int | None = DEFAULT_IGNORE
    """Mask value of pixels outside a center crop, which the network does not see.

    -1 becomes 255, or 65535 for more than 255 classes. A network that yields labels may yield this one too.
    """

    def __post_init__(self) -> None:
        coerce_fields(self, "classes")
        if len(self.names) > _MOST_NAMES:
            raise SpecError(f"classes.names must be at most {_MOST_NAMES}, got {len(self.names)}")
        if not self.names:
            raise SpecError("classes.names is empty; name every class")
        if len(set(self.names)) != len(self.names):
            raise SpecError(f"classes.names must be unique, got {self.names}")
        if not self.colors:
            object.__setattr__(self, "colors", default_colors(self.names))
        if len(self.colors) != len(self.names):
            raise SpecError(f"classes.colors must hold {len(self.names)} colours, got {len(self.colors)}")
        if self.ignore_index == DEFAULT_IGNORE:
            object.__setattr__(self, "ignore_index", 255 if len(self.names) <= 255 else 65535)
        if not all(0 <= value <= 255 for color in self.colors for value in color):
            raise SpecError("classes.colors must be RGB in 0..255")


@dataclass(frozen=True)
class Provenance:
    """Origin of a model file."""

    source: str = ""
    """Module, file or project that made the network."""
    weights_sha256: str = ""
    precision: str = ""
    """Of weights and activations: "fp32", or "fp16" except in `fp32_nodes`."""
    opset: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    fp32_nodes: dict[str, tuple[str, ...]] = field(default_factory=dict, metadata={OLD_NAME: "islands"})
    """Nodes that compute in float32 although the precision is lower, by reason."""

    def __post_init__(self) -> None:
        coerce_fields(self, "provenance")


@dataclass(frozen=True)
class ModelSpec:
    """Contract between training, export and the device.

    It holds everything about a model that is not in the graph.

    Raises:
        SpecError: on construction, if a value is wrong or two values contradict each other. The message names both.
    """

    task: TaskName
    input: InputSpec
    classes: ClassSpec
    outputs: tuple[OutputSpec, ...] = (OutputSpec(),)
    """Output tensors. Masks are made from the first."""
    provenance: Provenance = field(default_factory=Provenance, hash=False)

    def __post_init__(self) -> None:
        coerce_fields(self, "spec")
        self._check_outputs()
        self._check_tiles()
        self._check_classes()

    @property
    def output(self) -> OutputSpec:
        """Output that masks are made from."""
        return self.outputs[0]

    @property
    def num_classes(self) -> int:
        """Number of class names."""
        return len(self.classes.names)

    @property
    def num_channels(self) -> int:
        """Channels of the mask output: 1 if binary, else one per class."""
        return 1 if self.task == "binary" else self.num_classes

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """Element type of masks: uint8, or uint16 above 256 values."""
        if self.task == "multilabel":
            return np.dtype(np.uint8)
        largest = max(self.num_classes - 1, self.classes.ignore_index or 0)
        return np.dtype(np.uint8 if largest < 256 else np.uint16)

    @property
    def ignore_value(self) -> int:
        """Mask value of unseen pixels. It is 0 for multilabel."""
        return 0 if self.task == "multilabel" else self.classes.ignore_index or 0

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read a spec from JSON text.

        Raises:
            SpecError: if a key is unknown, missing or double, or a value is wrong. The message names the key.
        """
        data = parse_json(text, "the spec")
        if not isinstance(data, dict):
            raise SpecError(f"the spec must be a JSON object, got {type(data).__name__}")
        version = data.pop("schema", None)
        if type(version) is not int or version != SCHEMA_VERSION:  # True and 1.0 equal 1
            raise SpecError(f'spec.schema must be {SCHEMA_VERSION}, got {version!r}; add "schema": {SCHEMA_VERSION}')
        return structure(cls, data, "spec")

    def to_json(self, *, indent: int | None = None) -> str:
        """Return JSON text that `from_json` reads back equal."""
        return json.dumps({"schema": SCHEMA_VERSION, **unstructure(self)}, indent=indent)

    @classmethod
    def load(cls, path: str | Path) -> ModelSpec:
        """Read a spec from a JSON file.

        Raises:
            MissingFileError: if there is no such file.
            SpecError: if it is no text, or `from_json` refuses it.
        """
        try:
            if (size := Path(path).stat().st_size) > _MAX_BYTES:
                raise SpecError(f"{path} has {size} bytes, more than a spec can have ({_MAX_BYTES}); check the path")
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
        if self.output.stride is None:
            raise SpecError("outputs[0].stride must be a number for tiles, got null; set input over output height")
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
            raise SpecError(
                "a center crop leaves pixels unseen; set classes.ignore_index to their mask value, such as 255"
            )
        if self.task == "binary" and self.num_classes != 2:
            raise SpecError(
                f"classes.names of a binary task must be two names, for 0 and for 1, got {self.classes.names}"
            )
        ignore = self.classes.ignore_index
        if ignore is not None and not self.num_classes <= ignore < 65536:
            raise SpecError(
                f"classes.ignore_index must be {self.num_classes}..65535 (below: classes), got {ignore}; null is none"
            )
