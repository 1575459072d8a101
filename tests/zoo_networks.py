"""The reference networks as users meet them: a factory, a spec, and what their papers say of their size."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec

_ZOO = "seginfer.export.zoo."
_TORCHVISION = "torchvision.models.segmentation:"


class Entry(NamedTuple):
    """One network of the table."""

    source: str
    """What `seginfer export` is told."""
    size: tuple[int, int]
    """Height and width that it is tested on; papers use more, which only takes longer."""
    quick_size: tuple[int, int]
    parameters: int
    """Of the network at its published width."""
    published: str
    """What the paper says of that, and where the rest is explained."""
    divisor: int | None = 16
    """Of the channels, for the quick tests; None where the network has no thinner form."""
    num_classes: int = 21
    gray: bool = False
    fields: dict[str, Any] = {}  # noqa: RUF012, a NamedTuple's default is never written to
    """Further fields of InputSpec."""
    outputs: tuple[OutputSpec, ...] = (OutputSpec(),)
    noise: bool = False
    """Test on noise: on smooth pictures, networks that remember where maxima were meet many equal ones."""

    def keywords(self, *, thin: bool) -> dict[str, Any]:
        """Return the arguments of the factory."""
        kwargs: dict[str, Any] = {"num_classes": self.num_classes}
        if self.divisor is None:
            return {**kwargs, "weights": None, "weights_backbone": None}
        return {**kwargs, "divisor": self.divisor} if thin else kwargs

    def spec(self, size: tuple[int, int]) -> ModelSpec:
        """Return the spec for inputs of this size."""
        color: Literal["gray", "rgb"] = "gray" if self.gray else "rgb"
        image = InputSpec(size=size, color=color, mean=(0.45,), std=(0.22,), **self.fields)
        return ModelSpec(
            "semantic", image, ClassSpec(tuple(f"class {i}" for i in range(self.num_classes))), self.outputs
        )


STRIDE_8 = (OutputSpec(stride=8),)
EDGES = (OutputSpec(), OutputSpec(name="edges", kind="probabilities"))
TILED = {"resize": "tile", "tile_margin": 92, "multiple_of": 16}

NETWORKS = {
    "FCN-32s": Entry(f"{_ZOO}fcn:fcn32s", (188, 250), (75, 100), 136_152_917, "134 M without the fixed upsampling"),
    "FCN-16s": Entry(f"{_ZOO}fcn:fcn16s", (188, 250), (75, 100), 134_815_994, "none"),
    "FCN-8s": Entry(f"{_ZOO}fcn:fcn8s", (188, 250), (75, 100), 134_489_759, "none; 134.5 M is usual"),
    "DeconvNet": Entry(f"{_ZOO}deconvnet:deconvnet", (224, 224), (224, 224), 251_805_653, "about 252 M", noise=True),
    "SegNet": Entry(
        f"{_ZOO}segnet:segnet", (180, 240), (64, 96), 29_449_355, "encoder 14.7 M", num_classes=11, noise=True
    ),
    "U-Net": Entry(
        f"{_ZOO}unet_paper:unet_valid",
        (572, 572),
        (204, 220),
        31_030_658,
        "none; 31.0 M is usual",
        divisor=8,
        num_classes=2,
        gray=True,
        fields=TILED,
    ),
    "U-Net, same padding": Entry(
        f"{_ZOO}unet_paper:unet_same", (256, 256), (64, 96), 31_030_658, "-", divisor=8, num_classes=2, gray=True
    ),
    "dilated front end": Entry(
        f"{_ZOO}dilated:dilated_front_end",
        (256, 256),
        (64, 96),
        134_346_581,
        "VGG16's 138 M, other classes",
        outputs=STRIDE_8,
    ),
    "dilated context": Entry(
        f"{_ZOO}dilated:dilated_context",
        (256, 256),
        (64, 96),
        134_374_973,
        "front end + 64 C² + 8 C",
        outputs=STRIDE_8,
    ),
    "FastFCN": Entry(f"{_ZOO}fastfcn:fastfcn", (240, 240), (64, 96), 59_384_187, "none", num_classes=59),
    "Gated-SCNN": Entry(
        f"{_ZOO}gated_scnn:gated_scnn",
        (256, 256),
        (64, 96),
        137_278_125,
        "none",
        divisor=8,
        num_classes=19,
        outputs=EDGES,
    ),
    "torchvision fcn_resnet50": Entry(
        f"{_TORCHVISION}fcn_resnet50", (256, 256), (128, 160), 32_957_013, "-", divisor=None
    ),
    "torchvision deeplabv3_resnet50": Entry(
        f"{_TORCHVISION}deeplabv3_resnet50", (256, 256), (128, 160), 39_638_869, "-", divisor=None
    ),
    "torchvision lraspp_mobilenet_v3_large": Entry(
        f"{_TORCHVISION}lraspp_mobilenet_v3_large", (256, 256), (128, 160), 3_221_538, "-", divisor=None
    ),
}
