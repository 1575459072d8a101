"""Hold what was built against what was asked: precision of the layers with weights, types and shapes of the tensors.

An engine that computes in float32 what the file has in float16 works, and is half as fast: nobody notices. One that
computes in float16 what the file has in float32 may yield infinity. A strongly typed network should leave the library
no such choice; see `_islands` for one that it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from .._spec.model_spec import ModelSpec
from .build import BuildError, Profile
from .inspect import HOST_KINDS, EngineLayer, IOTensor, Readback, dtype_of, nodes_of
from .parse import WEIGHTED, ParsedNetwork
from .report import EngineTensor

_FLOATS = ("float32", "float16", "bfloat16")
_QUANTIZED = ("int8", "fp8", "int4", "fp4")
# Layers beside the one that multiplies: generated kernels that pad, cast and reorder, and what is copied or only named.
_HELPERS = HOST_KINDS | {"kgen", "Reformat", "NoOp", "Constant"}
# One layer for any number of kernels, of which only inputs and outputs are known.
_OPAQUE = ("Myelin", "ForeignNode", "DLA")
_REMEDY = "build again with another optimization level or version of the library, and report this with the file"


class Asked(NamedTuple):
    """A layer of the network that multiplies by weights, or two tensors with each other."""

    name: str
    """The ONNX node that it came from."""
    names: frozenset[str]
    """What an engine may call it."""
    dtype: str


def asked_layers(parsed: ParsedNetwork) -> list[Asked]:
    """Return the layers whose precision decides the speed of an engine, with the types that the file gives them."""
    layers = (parsed.network.get_layer(i) for i in range(parsed.network.num_layers))
    asked = [_asked(layer) for layer in layers if layer.type.name in WEIGHTED]
    return [layer for layer in asked if layer.dtype in _FLOATS]


def is_quantized(parsed: ParsedNetwork) -> bool:
    """Tell whether layers may compute in integers, or smaller floats, than their tensors in the file have."""
    return any(parsed.network.get_layer(i).type.name == "DEQUANTIZE" for i in range(parsed.network.num_layers))


def check_asked(asked: Sequence[Asked], spec: ModelSpec | None) -> None:
    """Refuse a file that says it is fp16 and is not.

    Raises:
        BuildError: if it holds no layer in float16.
    """
    if spec is None or spec.provenance.precision != "fp16" or not asked:
        return
    if not any(layer.dtype == "float16" for layer in asked):
        found = ", ".join(sorted({layer.dtype for layer in asked}))
        raise BuildError(
            f"the ModelSpec says precision fp16, and all {len(asked)} layers with weights are {found}, so the engine "
            "would be as slow as that; export the model again with --precision fp16"
        )


def check_precisions(
    asked: Sequence[Asked], built: Sequence[EngineLayer], *, quantized: bool = False
) -> dict[str, int]:
    """Compare every layer with what it became, and count the layers of the engine that multiply by data type.

    Args:
        asked: layers of the network.
        built: layers of the engine.
        quantized: layers may also have become smaller types.

    Returns:
        Count by data type; empty if the engine's layers say nothing.

    Raises:
        BuildError: if a layer has another type than was asked.
    """
    counted: dict[EngineLayer, str] = {}
    accepted = _QUANTIZED if quantized else ()
    readable = [layer for layer in built if layer.kind not in (*_OPAQUE, *HOST_KINDS) and _types(layer)]
    for layer in asked:
        for kernel in _kernels_of(layer, readable):
            types = _types(kernel)
            smaller = [dtype for dtype in types if dtype in accepted]
            if smaller or layer.dtype in types:
                counted.setdefault(kernel, smaller[0] if smaller else layer.dtype)
            elif kernel.weights or kernel.kind not in _HELPERS:
                raise _wrong_precision(layer, types)
            # A generated kernel may hold casts around what it multiplies, of which its tensors say nothing.
    if not counted and not any(map(_is_opaque, built)):
        _check_any(asked, readable)
    return dict(sorted(Counter(counted.values()).items()))


def check_tensors(
    found: Sequence[IOTensor],
    inputs: Sequence[EngineTensor],
    outputs: Sequence[EngineTensor],
    profiles: Sequence[Profile],
) -> None:
    """Compare inputs, outputs and profiles of the engine with those of the network and the options.

    Raises:
        BuildError: if one differs.
    """
    for is_input, asked in ((True, inputs), (False, outputs)):
        have = {tensor.name: tensor for tensor in found if tensor.is_input == is_input}
        side = "inputs" if is_input else "outputs"
        if sorted(have) != sorted(tensor.name for tensor in asked):
            raise _differs(side, [tensor.name for tensor in asked], sorted(have))
        for tensor in asked:
            got = have[tensor.name]
            if got.dtype != tensor.dtype or not _is_shape(tensor.shape, got.shape):
                raise _differs(tensor.name, f"{tensor.dtype} {tensor.shape}", f"{got.dtype} {got.shape}")
            wanted = tuple(profile[tensor.name] for profile in profiles if tensor.name in profile)
            if is_input and wanted and got.profiles != wanted:
                raise _differs(f"profiles of {tensor.name}", wanted, got.profiles)


def verify(
    parsed: ParsedNetwork, asked: Sequence[Asked], built: Readback, profiles: Sequence[Profile]
) -> dict[str, int]:
    """Refuse an engine that is not what was asked, and return its precisions; see `check_precisions`.

    Raises:
        BuildError: if it is not.
    """
    if built.tensors:
        check_tensors(built.tensors, parsed.inputs, parsed.outputs, profiles)
    return check_precisions(asked, built.layers, quantized=is_quantized(parsed))


def _is_shape(asked: tuple[int, ...], got: tuple[int, ...]) -> bool:
    """Tell whether a shape is the one asked for; the engine may fix what the file leaves open and the profile fixes."""
    return len(asked) == len(got) and all(size in (-1, there) for size, there in zip(asked, got, strict=True))


def _asked(layer: Any) -> Asked:
    nodes = nodes_of(str(layer.metadata)) or (layer.name,)
    return Asked(nodes[0], frozenset({layer.name, *nodes}), dtype_of(layer.get_input(0).dtype.name))


def _kernels_of(layer: Asked, built: Sequence[EngineLayer]) -> list[EngineLayer]:
    """Return the kernels that name the layer: those that multiply, if they can be told from those around them."""
    naming = [kernel for kernel in built if layer.names & kernel.nodes]
    multiplying = [kernel for kernel in naming if kernel.kind not in _HELPERS]
    return [kernel for kernel in multiplying if kernel.weights] or multiplying or naming


def _types(kernel: EngineLayer) -> tuple[str, ...]:
    """Return the types that a kernel may compute in: of its weights, which are more than its biases, and its inputs."""
    if kernel.kind in _HELPERS or not kernel.weights:  # it may begin with a cast
        return _known(kernel.weights + kernel.inputs + kernel.outputs)
    return _known(kernel.weights[:1] + kernel.inputs)


def _is_opaque(kernel: EngineLayer) -> bool:
    """Tell whether nothing is known of what a layer computes in, so that it may be anything."""
    if kernel.kind in HOST_KINDS:
        return False
    return kernel.kind in _OPAQUE or not any((*kernel.weights, *kernel.inputs, *kernel.outputs))


def _known(dtypes: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dtype for dtype in dtypes if dtype in (*_FLOATS, *_QUANTIZED)))


def _check_any(asked: Sequence[Asked], built: Sequence[EngineLayer]) -> None:
    """Compare as wholes, where the engine's layers name no nodes."""
    have = {dtype for layer in built for dtype in _types(layer)}
    for layer in asked:
        if layer.dtype == "float16" and layer.dtype not in have:
            raise _wrong_precision(layer, sorted(have))


def _wrong_precision(layer: Asked, got: Sequence[str]) -> BuildError:
    reason = f"{layer.name} was asked to compute in {layer.dtype} and was built in {' and '.join(got)}"
    return BuildError(f"the engine is not what was asked: {reason}; {_REMEDY}", reason)


def _differs(what: str, asked: object, got: object) -> BuildError:
    reason = f"{what} should be {asked}, and the engine has {got}"
    return BuildError(f"the engine is not what was asked: {reason}; {_REMEDY}", reason)
