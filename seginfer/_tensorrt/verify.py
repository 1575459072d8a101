"""Compare an engine with its network: precisions, tensors, profiles."""

# An engine that computes in float32 what the file has in float16 works, at half the speed, without any error. One that
# computes in float16 what the file has in float32 may return infinity. A strongly typed network should leave the
# library no such choice, but see `protect_fp32_nodes`.

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .._spec.model_spec import ModelSpec
from .build import BuildError, Profile
from .inspect import HOST_KINDS, EngineInfo, EngineLayer, IOTensor, parse_dtype, parse_nodes
from .parse import WEIGHTED, ParsedNetwork
from .report import EngineTensor

_FLOATS = ("float32", "float16", "bfloat16")
_QUANTIZED = ("int8", "fp8", "int4", "fp4")
# Layers beside the one that multiplies: generated kernels that pad, cast and reorder, and what is copied or only named.
_HELPERS = HOST_KINDS | {"kgen", "Reformat", "NoOp", "Constant"}
# One layer for any number of kernels, of which only inputs and outputs are known.
_OPAQUE = ("Myelin", "ForeignNode", "DLA")


class ExpectedLayer(NamedTuple):
    """Layer that multiplies by weights, or two tensors."""

    name: str
    """ONNX node of the layer."""
    names: frozenset[str]
    """Names that it may have in an engine."""
    dtype: str


def list_expected_layers(parsed: ParsedNetwork) -> list[ExpectedLayer]:
    """List the layers that decide the speed of an engine.

    Data types are those of the file.
    """
    expected = []
    for layer in (parsed.network.get_layer(i) for i in range(parsed.network.num_layers)):
        if layer.type.name in WEIGHTED and (dtype := parse_dtype(layer.get_input(0).dtype.name)) in _FLOATS:
            nodes = parse_nodes(str(layer.metadata)) or (layer.name,)
            expected.append(ExpectedLayer(nodes[0], frozenset({layer.name, *nodes}), dtype))
    return expected


def check_spec_precision(expected: Sequence[ExpectedLayer], spec: ModelSpec | None) -> None:
    """Refuse an fp16 spec without float16 layers.

    Raises:
        BuildError: if the spec says fp16 and no layer with weights computes in float16.
    """
    if spec is None or spec.provenance.precision != "fp16" or not expected:
        return
    if not any(layer.dtype == "float16" for layer in expected):
        found = ", ".join(sorted({layer.dtype for layer in expected}))
        raise BuildError(
            f"the ModelSpec says precision fp16, and all {len(expected)} layers with weights are {found}, so the "
            "engine would be as slow as that; export the model again with --precision fp16"
        )


def check_precisions(
    expected: Sequence[ExpectedLayer], found: Sequence[EngineLayer], *, is_quantized: bool = False
) -> dict[str, int]:
    """Compare precisions of layers with their kernels.

    Args:
        expected: layers of the network.
        found: layers of the engine.
        is_quantized: accept smaller data types too.

    Returns:
        Number of multiplying layers of the engine by data type. Empty if the engine has no details.

    Raises:
        BuildError: if a layer has another data type.
    """
    counted: dict[EngineLayer, str] = {}
    accepted = _QUANTIZED if is_quantized else ()
    readable = [layer for layer in found if layer.kind not in (*_OPAQUE, *HOST_KINDS) and _dtypes(layer)]
    for layer in expected:
        for kernel in _find_kernels(layer, readable):
            dtypes = _dtypes(kernel)
            smaller = [dtype for dtype in dtypes if dtype in accepted]
            if smaller or layer.dtype in dtypes:
                counted.setdefault(kernel, smaller[0] if smaller else layer.dtype)
            elif kernel.weights or kernel.kind not in _HELPERS:
                raise _mismatch(layer.name, layer.dtype, " and ".join(dtypes))
            # A generated kernel may hold casts around its products, which its tensors do not show.
    if not counted and not any(map(_is_opaque, found)):  # layers of the engine name no nodes
        dtypes_found = sorted({dtype for layer in readable for dtype in _dtypes(layer)})
        for layer in expected:
            if layer.dtype == "float16" and layer.dtype not in dtypes_found:
                raise _mismatch(layer.name, layer.dtype, " and ".join(dtypes_found) or "no known data type")
    return dict(sorted(Counter(counted.values()).items()))


def check_tensors(
    found: Sequence[IOTensor],
    inputs: Sequence[EngineTensor],
    outputs: Sequence[EngineTensor],
    profiles: Sequence[Profile],
) -> None:
    """Compare inputs, outputs and profiles of an engine.

    Raises:
        BuildError: if one differs from network or options.
    """
    for is_input, expected in ((True, inputs), (False, outputs)):
        by_name = {tensor.name: tensor for tensor in found if tensor.is_input == is_input}
        if sorted(by_name) != sorted(tensor.name for tensor in expected):
            side = "inputs" if is_input else "outputs"
            raise _mismatch(side, [tensor.name for tensor in expected], sorted(by_name))
        for tensor in expected:
            got = by_name[tensor.name]
            if got.dtype != tensor.dtype or not _is_shape(got.shape, tensor.shape):
                raise _mismatch(tensor.name, f"{tensor.dtype} {tensor.shape}", f"{got.dtype} {got.shape}")
            ranges = tuple(profile[tensor.name] for profile in profiles if tensor.name in profile)
            if is_input and ranges and got.profiles != ranges:
                raise _mismatch(f"profiles of {tensor.name}", ranges, got.profiles)


def verify(
    parsed: ParsedNetwork, expected: Sequence[ExpectedLayer], info: EngineInfo, profiles: Sequence[Profile]
) -> dict[str, int]:
    """Verify an engine. Returns its precisions, see `check_precisions`.

    Raises:
        BuildError: if the engine differs from the network or the profiles.
    """
    if info.tensors:
        check_tensors(info.tensors, parsed.inputs, parsed.outputs, profiles)
    layers = (parsed.network.get_layer(i) for i in range(parsed.network.num_layers))
    # Quantized layers may compute in integers, or smaller floats, than their tensors in the file have.
    return check_precisions(
        expected, info.layers, is_quantized=any(layer.type.name == "DEQUANTIZE" for layer in layers)
    )


def _is_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    # An engine may fix a dimension that the file leaves open, where the profile fixes it.
    return len(expected) == len(got) and all(e in (-1, g) for e, g in zip(expected, got, strict=True))


def _find_kernels(layer: ExpectedLayer, found: Sequence[EngineLayer]) -> list[EngineLayer]:
    """Find the kernels of a layer, without helpers if possible."""
    naming = [kernel for kernel in found if layer.names & kernel.nodes]
    multiplying = [kernel for kernel in naming if kernel.kind not in _HELPERS]
    return [kernel for kernel in multiplying if kernel.weights] or multiplying or naming


def _dtypes(kernel: EngineLayer) -> tuple[str, ...]:
    """Return possible data types of a kernel's arithmetic."""
    if kernel.kind in _HELPERS or not kernel.weights:  # it may begin with a cast
        dtypes = kernel.weights + kernel.inputs + kernel.outputs
    else:  # the first weights are the largest, not a bias
        dtypes = kernel.weights[:1] + kernel.inputs
    return tuple(dict.fromkeys(dtype for dtype in dtypes if dtype in (*_FLOATS, *_QUANTIZED)))


def _is_opaque(kernel: EngineLayer) -> bool:
    """Tell whether a layer hides its data types."""
    if kernel.kind in HOST_KINDS:
        return False
    return kernel.kind in _OPAQUE or not any((*kernel.weights, *kernel.inputs, *kernel.outputs))


def _mismatch(subject: str, expected: object, got: object) -> BuildError:
    reason = f"{subject}: expected {expected}, got {got}"
    return BuildError(
        f"the engine does not match the network: {reason}; build again with another optimization level or version of "
        "the library, and report this with the file",
        reason,
    )
