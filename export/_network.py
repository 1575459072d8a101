"""Wrapper that gives segmentation modules one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seginfer._errors import ExportError
from seginfer._geometry.tiles import size_problem
from seginfer._spec.model_spec import ModelSpec, OutputSpec

_LOGIT_KEYS = ("logits", "out")


class Network(nn.Module):
    """Module with the input and the outputs of its spec.

    The wrapped module takes (N, C, h, w) float32 and returns a tensor, a dict, an object with `.logits`, or a tuple.
    The wrapper converts layout and dtype, so these conversions are part of the exported graph.

    Args:
        module: any segmentation module.
        spec: names and layouts of input and outputs.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.module = module
        self._spec = spec

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the spec's outputs, in its order."""
        result = self.module(self.module_input(image))
        tensors = (_select(result, output, i) for i, output in enumerate(self._spec.outputs))
        return tuple(
            tensor.permute(0, 2, 3, 1) if output.layout == "NHWC" and tensor.ndim == 4 else tensor
            for tensor, output in zip(tensors, self._spec.outputs, strict=True)
        )

    def module_input(self, image: Tensor) -> Tensor:
        """Return a batch in the form of the wrapped module, (N, C, h, w) float32."""
        # The cast comes first: TensorRT takes uint8 as the input of a Cast only.
        x = image if self._spec.input.dtype == "float32" else image.float()
        return x if self._spec.input.layout == "NCHW" else x.permute(0, 3, 1, 2)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into eval mode, and restore its mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def check_outputs(network: Network, spec: ModelSpec, batch: Tensor) -> None:
    """Run the network once, and check its mask output.

    Raises:
        ExportError: if the network fails on the batch, or its output contradicts the spec.
    """
    try:
        with torch.inference_mode():
            outputs = network(batch)
    except ExportError:
        raise
    except Exception as error:  # the user's module may raise anything
        raise ExportError(
            f"the module failed on a batch {tuple(batch.shape)} {batch.dtype}: {error}; "
            "check input.size and input.color of the spec"
        ) from error
    expected, got = spec.output, outputs[0]
    if expected.kind == "labels":
        if got.is_floating_point() and got.ndim == 4 and got.shape[1 if expected.layout == "NCHW" else 3] != 1:
            raise ExportError(
                f"expected labels from the module, got {got.dtype} {tuple(got.shape)}; use kind 'logits' for its values"
            )
        return
    if got.ndim != 4:
        raise ExportError(
            f"expected logits (N, C, h, w) from the module, got {tuple(got.shape)}; wrap it to return them"
        )
    _, channels, height, width = got.shape if expected.layout == "NCHW" else got.permute(0, 3, 1, 2).shape
    if channels != spec.num_channels:
        raise ExportError(
            f"the module yields {channels} channels; {spec.num_classes} class names of a {spec.task} task "
            f"need {spec.num_channels}; correct classes.names or the task"
        )
    input_hw = (batch.shape[2], batch.shape[3]) if spec.input.layout == "NCHW" else (batch.shape[1], batch.shape[2])
    if spec.input.resize == "tile":
        problem = size_problem(input_hw, (height, width), expected.whole_stride, spec.input.tile_margin)
    else:
        problem = expected.stride_problem(input_hw, (height, width), of_module=True)
    if problem:
        raise ExportError(problem)


def _select(result: Any, output: OutputSpec, index: int) -> Tensor:
    """Find one output in the result of a module."""
    found: Any = None
    if isinstance(result, Tensor):
        found = result if index == 0 else None
    elif isinstance(result, Mapping):
        found = _from_mapping(result, output.name, index)
    elif isinstance(result, (tuple, list)) and not hasattr(result, "logits"):
        found = result[index] if index < len(result) else None
    else:
        found = getattr(result, output.name, getattr(result, "logits", None) if index == 0 else None)
    if not isinstance(found, Tensor):
        raise ExportError(
            f"no tensor for output {output.name!r} in the module's result ({_describe(result)}); expected a tensor, "
            "a dict with 'out' or 'logits', an object with .logits, or a tuple: wrap the module to return one of these"
        )
    return found


def _from_mapping(result: Mapping[str, Any], name: str, index: int) -> Any:
    keys = (name, *_LOGIT_KEYS) if index == 0 else (name,)
    return next((result[key] for key in keys if key in result), None)


def _describe(result: Any) -> str:
    if isinstance(result, Mapping):
        return f"dict with keys {list(result)}"
    if isinstance(result, (tuple, list)):
        return f"{type(result).__name__} of {[type(item).__name__ for item in result]}"
    return type(result).__name__
