"""Read layers, tensors and memory of an engine. The source is the engine itself or its build log."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from .build import BuildError
from .library import TENSORRT, Library, Message, create, find_reason, message_log
from .report import Evidence, ShapeRange

HOST_KINDS = frozenset({"shape_call"})
"""Kinds of layers that compute shapes on the CPU and launch no kernel."""

KernelKinds = dict[str, int]
"""Number of kernels by kind."""

_Tensors = list[tuple[str, tuple[int, ...]]]  # data types and shapes

_LAYERS = "Layers:\n"
_TENSORS = "\n\nI/O Tensors:\n"
_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\](?:, Constants: \[(?P<weights>.*?)\])?"
    r", Outputs: \[(?P<outputs>.*?)\], TacticName: .*, Metadata: (?P<metadata>.*)$",
    re.DOTALL,
)
_LAYER_KIND = re.compile(r"Name: .*?, LayerType: (\w+), Inputs: ")
_TENSOR = re.compile(r"\{ Name: .*?, Dimensions: \[(?P<shape>[-\d,]*)\], .*?Datatype: (?P<dtype>\w+)", re.DOTALL)
_IO = re.compile(
    r"\s*Name: (?P<name>.*), IOMode: (?P<mode>\w+), DataType: (?P<dtype>\w+), Dimensions: \[(?P<shape>[-\d,]*)\]"
)
_RANGE = re.compile(r"MinShape: \[([-\d,]*)\], OptShape: \[([-\d,]*)\], MaxShape: \[([-\d,]*)\]")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f]?\[ONNX Layer: |\s*$)", re.DOTALL)
_MEMORY = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")

# Names of data types in logs, in JSON, and of members of DataType.
_DTYPE = re.compile(r"\b(bfloat16|bf16|half|fp16|float|fp32|fp8|fp4|uint8|int8|int4|int32|int64|bool)\b", re.IGNORECASE)
_DTYPES = {"bf16": "bfloat16", "half": "float16", "fp16": "float16", "float": "float32", "fp32": "float32"}


class EngineLayer(NamedTuple):
    """Layer of an engine: one kernel or more."""

    name: str
    kind: str
    nodes: frozenset[str]
    """ONNX nodes that the layer computes, in full or in part."""
    weights: tuple[str, ...]
    """Data types of its constants with more than one element, in descending order of size."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class IOTensor(NamedTuple):
    """Input or output of an engine."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]
    profiles: tuple[ShapeRange, ...]
    """Shapes of an input by profile; empty for an output."""


class EngineInfo(NamedTuple):
    """Contents of an engine."""

    layers: tuple[EngineLayer, ...]
    tensors: tuple[IOTensor, ...]
    kernel_kinds: KernelKinds | None
    weights_bytes: int | None
    activation_bytes: int | None
    evidence: Evidence
    load_problem: str = ""
    """Reason why the GPU of this machine cannot load the engine; empty if it can or there is none."""


def inspect_engine(library: Library, engine: bytes, messages: Iterable[Message], *, has_gpu: bool) -> EngineInfo:
    """Read an engine, or its build log if no GPU loads it.

    Raises:
        BuildError: if TensorRT cannot load the engine that it built.
        BackendUnavailableError: if the library does not start.
    """
    from_log = parse_build_log(messages)
    if not has_gpu:
        return from_log
    log = message_log(library)
    runtime = create(library, "Runtime", log)
    with log.collect() as errors:
        loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        reason = find_reason(errors)
        if library.name == TENSORRT:
            raise BuildError(
                f"{library.description} cannot load the engine that it built: {reason}; free memory of the GPU", reason
            )
        # TensorRT for RTX also builds engines that no GPU here can load.
        return from_log._replace(load_problem=reason)
    text = loaded.create_engine_inspector().get_engine_information(library.module.LayerInformationFormat.JSON)
    layers = parse_layers(text)
    if not layers:  # the inspector lists names without details
        return from_log
    return EngineInfo(
        layers,
        _read_tensors(library, loaded),
        count_kernels(text),
        from_log.weights_bytes,
        getattr(loaded, "device_memory_size_v2", from_log.activation_bytes),
        "engine",
    )


def parse_build_log(messages: Iterable[Message]) -> EngineInfo:
    """Parse the log of a detailed build. Missing fields are empty or None."""
    texts = [message.text for message in messages]
    layers: list[EngineLayer] = []
    tensors: list[IOTensor] = []
    for text in texts:
        if text.startswith(_LAYERS):
            rows, _, rest = text.removeprefix(_LAYERS).partition(_TENSORS)
            layers += filter(None, map(_parse_layer_line, re.split(r"\n(?=Name: )", rows)))
            tensors += filter(None, map(_parse_tensor_line, rest.partition("\n\n")[0].split("\n")))
    memory: dict[str, int] = {}
    for match in filter(None, map(_MEMORY.match, texts)):  # activations are listed for every profile
        memory[match[1]] = max(memory.get(match[1], 0), int(match[2]))
    weights, activations = memory.get("Weights"), memory.get("Activation")
    return EngineInfo(tuple(layers), tuple(tensors), count_logged_kernels(texts), weights, activations, "build log")


def parse_layers(text: str) -> tuple[EngineLayer, ...]:
    """Parse the JSON of an engine inspector. Layers without details are left out."""
    try:
        found = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(_parse_layer(layer) for layer in found if isinstance(layer, dict))


def count_logged_kernels(texts: Iterable[str]) -> KernelKinds | None:
    """Count kernels in the log of a detailed build.

    Returns:
        Kernels by kind, or None unless there is exactly one complete list. Builds with less detail list
        "Layer(Myelin)", which is any number of kernels.
    """
    lists = [text for text in texts if text.startswith(_LAYERS)]
    if len(lists) != 1:
        return None
    # splitlines() would also split at the control characters that separate names in metadata.
    lines = lists[0].removeprefix(_LAYERS).partition("\n\n")[0].split("\n")
    found = [_LAYER_KIND.match(line) for line in lines]
    return _count(match[1] if match else None for match in found)


def count_kernels(text: str) -> KernelKinds | None:
    """Count kernels in the JSON of an inspector. None if layers lack details."""
    try:
        layers: list[Any] = json.loads(text)["Layers"]
        return _count(layer["LayerType"] for layer in layers)
    except (ValueError, KeyError, TypeError):  # layers without details are strings
        return None


def parse_nodes(metadata: str) -> tuple[str, ...]:
    """Return the ONNX nodes in a layer's metadata."""
    return tuple(_NODE.findall(metadata))


def parse_dtype(text: str) -> str:
    """Return the data type, or "", in a text such as "Row major linear FP16 format"."""
    match = _DTYPE.search(text)
    word = match[1].lower() if match else ""
    return _DTYPES.get(word, word)


def _parse_layer_line(line: str) -> EngineLayer | None:
    match = _LAYER.match(line)
    if match is None:
        return None
    inputs, weights, outputs = (
        [(tensor["dtype"], _parse_shape(tensor["shape"])) for tensor in _TENSOR.finditer(match[side] or "")]
        for side in ("inputs", "weights", "outputs")
    )
    return _make_layer(match["name"], match["kind"], match["metadata"], inputs, weights, outputs)


def _parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _parse_layer(layer: dict[str, Any]) -> EngineLayer:
    inputs, weights, outputs = (
        [(_json_dtype(tensor), tuple(tensor.get("Dimensions") or ())) for tensor in layer.get(side) or ()]
        for side in ("Inputs", "Constants", "Outputs")
    )
    own = layer.get("Weights")  # of a convolution, in TensorRT 10
    if isinstance(own, dict) and own.get("Count"):
        weights.append((str(own.get("Type", "")), (int(own["Count"]),)))
    name, kind, metadata = (str(layer.get(key, "")) for key in ("Name", "LayerType", "Metadata"))
    return _make_layer(name, kind, metadata, inputs, weights, outputs)


def _json_dtype(tensor: dict[str, Any]) -> str:
    keys = ("Datatype", "DataType", "Format/Datatype", "Format")  # they differ between versions
    return str(next((tensor[key] for key in keys if key in tensor), ""))


def _make_layer(
    name: str, kind: str, metadata: str, inputs: _Tensors, weights: _Tensors, outputs: _Tensors
) -> EngineLayer:
    sizes = [(dtype, math.prod(shape)) for dtype, shape in weights]
    arrays = sorted((item for item in sizes if item[1] > 1), key=lambda item: -item[1])
    types = [tuple(parse_dtype(dtype) for dtype, _ in side) for side in (arrays, inputs, outputs)]
    return EngineLayer(name, kind, frozenset(parse_nodes(metadata)), *types)


def _parse_tensor_line(line: str) -> IOTensor | None:
    match = _IO.match(line)
    if match is None:
        return None
    ranges = tuple(ShapeRange(*map(_parse_shape, found)) for found in _RANGE.findall(line))
    dtype = parse_dtype(match["dtype"])
    return IOTensor(match["name"], match["mode"] == "Input", dtype, _parse_shape(match["shape"]), ranges)


def _read_tensors(library: Library, engine: Any) -> tuple[IOTensor, ...]:
    tensors = []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        is_input = engine.get_tensor_mode(name) == library.module.TensorIOMode.INPUT
        count = engine.num_optimization_profiles if is_input else 0
        ranges = (engine.get_tensor_profile_shape(name, profile) for profile in range(count))
        profiles = tuple(ShapeRange(*map(tuple, shapes)) for shapes in ranges)
        dtype = parse_dtype(engine.get_tensor_dtype(name).name)
        tensors.append(IOTensor(name, is_input, dtype, tuple(engine.get_tensor_shape(name)), profiles))
    return tuple(tensors)


def _count(kinds: Iterable[str | None]) -> KernelKinds | None:
    counts = Counter(kinds)
    if not counts or None in counts:
        return None
    return {str(kind): count for kind, count in sorted(counts.items(), key=str) if kind not in HOST_KINDS}
