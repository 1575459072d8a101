"""Keep float32 islands of a float16 network in float32, which the builder alone does not.

TensorRT for RTX 1.7 builds a float32 convolution or matrix product between two casts from and to float16 in float16,
weights included, although the network is strongly typed; weights beyond 65504, the very reason for an island, become
infinite. No flag and no optimization level keeps it from that. An operator between product and cast does.
"""

from __future__ import annotations

from typing import Any

from .library import Library

WEIGHTED = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"})
"""Layers that multiply by weights, or two tensors with each other."""

# What the builder moves or merges into the product before it: an addition may be a bias.
_TRANSPARENT = frozenset({"ELEMENTWISE", "SHUFFLE", "IDENTITY", "SCALE", "SQUEEZE", "UNSQUEEZE"})
_SMALL_FLOATS = ("HALF", "BF16")
_NAME = "seginfer: keep float32"


def protect_islands(library: Library, network: Any) -> None:
    """Put an operator that changes nothing between every float32 product and the cast of it to a smaller float.

    A leaky ReLU with slope 1 returns every number, infinity and NaN as it is, and costs no kernel: it is computed
    where the cast is.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    casts = [layer for layer in layers if layer.type.name == "CAST" and _is_narrowing(layer)]
    for cast in casts:
        if _is_of_product(cast, producers):
            same = network.add_activation(cast.get_input(0), library.module.ActivationType.LEAKY_RELU)
            same.alpha = 1.0
            same.name = f"{_NAME} before {cast.name}"
            cast.set_input(0, same.get_output(0))


def _is_narrowing(cast: Any) -> bool:
    return cast.get_input(0).dtype.name == "FLOAT" and cast.get_output(0).dtype.name in _SMALL_FLOATS


def _is_of_product(cast: Any, producers: dict[str, Any]) -> bool:
    """Tell whether what is cast is a product, perhaps with something added or in another shape."""
    waiting, seen = [cast], set()
    while waiting:
        layer = waiting.pop()
        for i in range(layer.num_inputs):
            tensor = layer.get_input(i)
            source = producers.get(tensor.name) if tensor is not None else None
            if source is None or source.name in seen:
                continue
            seen.add(source.name)
            if source.type.name in WEIGHTED:
                return True
            if source.type.name in _TRANSPARENT:
                waiting.append(source)
    return False
