"""Small PyTorch modules that return their logits in every form the exporter takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seginfer import ClassSpec, InputSpec, ModelSpec, OutputSpec

NAMES = ("sky", "road", "car")
SIZE = (48, 64)


class Tiny(nn.Module):
    """Two convolutions with batch norm and dropout between; logits at the input's size divided by `stride`."""

    def __init__(self, channels: int = 3, stride: int = 1, in_channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(in_channels, 8, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(8, channels, 3, padding=1)
        with torch.no_grad():
            self.last.weight *= 20  # decided masks: random weights alone give margins of a hundredth

    def forward(self, x: Tensor) -> Any:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


class Returning(nn.Module):
    """Wraps Tiny's logits in a tuple, a dict or an object."""

    def __init__(self, form: str, channels: int = 3) -> None:
        super().__init__()
        self.net = Tiny(channels)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x)
        made = {
            "tensor": lambda: logits,
            "tuple": lambda: (logits, x),
            "dict out": lambda: {"aux": x, "out": logits},
            "dict logits": lambda: {"logits": logits},
            "object": lambda: SimpleNamespace(logits=logits, hidden=x),
            "nothing": lambda: {"boxes": x},
        }[self.form]
        return made()  # type: ignore[no-untyped-call]


def make_spec(task: Any = "semantic", *, output: dict[str, Any] | None = None, **input_fields: Any) -> ModelSpec:
    """Return a spec for Tiny; `input_fields` are those of InputSpec, `output` those of OutputSpec."""
    fields = {"size": SIZE, "mean": (0.45,), "std": (0.22,), **input_fields}
    names = NAMES[:2] if task == "binary" else NAMES
    return ModelSpec(task, InputSpec(**fields), ClassSpec(names), (OutputSpec(**output or {}),))


def pictures(*sizes: tuple[int, int], channels: int = 3) -> list[NDArray[np.uint8]]:
    """Return smooth colour gradients with a few hard edges, so that masks have areas and borders."""
    result = []
    for i, (height, width) in enumerate(sizes):
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        waves = [np.sin(9 * ((c + 1) * x + (i + 2) * y + c)) for c in range(channels)]
        edges = (x + y > 0.7)[..., None] * 70
        result.append((110 + 70 * np.stack(waves, -1) + edges).clip(0, 255).astype(np.uint8))
    return result
