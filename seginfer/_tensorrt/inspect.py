"""Read back what was built: layers, tensors and memory, from the engine on a GPU, or from the build log without one."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from .build import BuildError
from .library import TENSORRT, Library, Message, first_error, gpu_error, message_log, start
from .report import Evidence, ShapeRange

HOST_KINDS = frozenset({"shape_call"})
"""Layers that compute shapes on the CPU, and launch nothing."""

Kinds = dict[str, int]

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

# The libraries' words for data types, in logs, in JSON, and in the name of a DataType.
_DTYPE = re.compile(r"\b(bfloat16|bf16|half|fp16|float|fp32|fp8|fp4|uint8|int8|int4|int32|int64|bool)\b", re.IGNORECASE)
_DTYPES = {"bf16": "bfloat16", "half": "float16", "fp16": "float16", "float": "float32", "fp32": "float32"}


class EngineLayer(NamedTuple):
    """One layer of an engine, which is one kernel or more."""

    name: str
    kind: str
    nodes: frozenset[str]
    """The ONNX nodes that it computes, or a part of them."""
    weights: tuple[str, ...]
    """Data types of its constants that are more than one number, the largest first."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class IOTensor(NamedTuple):
    """An input or output of an engine."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]
    profiles: tuple[ShapeRange, ...]
    """Of an input: what every profile of the engine takes."""


class Readback(NamedTuple):
    """What was built."""

    layers: tuple[EngineLayer, ...]
    tensors: tuple[IOTensor, ...]
    kinds: Kinds | None
    weights_bytes: int | None
    activation_bytes: int | None
    evidence: Evidence
    load_problem: str = ""
    """Why this machine's GPU does not load the engine; empty if it does, or there is none."""


def read_back(library: Library, engine: bytes, messages: Iterable[Message], *, has_gpu: bool) -> Readback:
    """Read the engine itself where a GPU loads it, and the build log otherwise.

    TensorRT for RTX also builds where no GPU, or one that it does not support, can load the engine.

    Raises:
        BuildError: if TensorRT cannot load what it built.
        BackendUnavailableError: if the library does not start.
    """
    from_log = readback_of_log(messages)
    if not has_gpu:
        return from_log
    log = message_log(library)
    runtime = start(library, "Runtime", log)
    with log.collect() as said:
        loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        reason = first_error(said, parser=True) or gpu_error(said) or "no reason given"
        if library.name == TENSORRT:
            raise BuildError(
                f"{library.description} cannot load the engine that it built: {reason}; free memory of the GPU", reason
            )
        return from_log._replace(load_problem=reason)
    text = loaded.create_engine_inspector().get_engine_information(library.module.LayerInformationFormat.JSON)
    layers = layers_of_json(text)
    if not layers:  # an inspector that lists bare names
        return from_log
    memory = getattr(loaded, "device_memory_size_v2", from_log.activation_bytes)
    return Readback(
        layers, _tensors_of_engine(library, loaded), kinds_of_json(text), from_log.weights_bytes, memory, "engine"
    )


def readback_of_log(messages: Iterable[Message]) -> Readback:
    """Read a detailed build log; what it does not say is empty or None."""
    texts = [message.text for message in messages]
    lists = [text.removeprefix(_LAYERS) for text in texts if text.startswith(_LAYERS)]
    layers: list[EngineLayer] = []
    tensors: list[IOTensor] = []
    for text in lists:
        rows, _, rest = text.partition(_TENSORS)
        layers += filter(None, map(_layer_of_line, re.split(r"\n(?=Name: )", rows)))
        tensors += filter(None, map(_tensor_of_line, rest.partition("\n\n")[0].split("\n")))
    memory: dict[str, int] = {}
    for match in filter(None, map(_MEMORY.match, texts)):  # activations are listed for every profile
        memory[match[1]] = max(memory.get(match[1], 0), int(match[2]))
    return Readback(
        tuple(layers),
        tuple(tensors),
        kinds_of_log(texts),
        memory.get("Weights"),
        memory.get("Activation"),
        "build log",
    )


def layers_of_json(text: str) -> tuple[EngineLayer, ...]:
    """Read an engine inspector's JSON, whose keys differ between versions; layers without details are left out."""
    try:
        found = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(_layer_of_json(layer) for layer in found if isinstance(layer, dict))


def kinds_of_log(texts: Iterable[str]) -> Kinds | None:
    """Read the list of layers that a detailed build logs at its end; None if there is not exactly one, in full.

    Builds with less detail list "Layer(Myelin)" instead, which stands for any number of kernels.
    """
    lists = [text for text in texts if text.startswith(_LAYERS)]
    if len(lists) != 1:
        return None
    # splitlines() would also split metadata, whose names control characters separate.
    lines = lists[0].removeprefix(_LAYERS).partition("\n\n")[0].split("\n")
    found = [_LAYER_KIND.match(line) for line in lines]
    return _counted(match[1] if match else None for match in found)


def kinds_of_json(text: str) -> Kinds | None:
    """Count what an engine's inspector lists; None if that is bare names."""
    try:
        layers: list[Any] = json.loads(text)["Layers"]
        return _counted(layer["LayerType"] for layer in layers)
    except (ValueError, KeyError, TypeError):  # without details, layers are bare names
        return None


def nodes_of(metadata: str) -> tuple[str, ...]:
    """Return the names of ONNX nodes that a layer's metadata lists."""
    return tuple(_NODE.findall(metadata))


def dtype_of(text: str) -> str:
    """Return the data type that a text of the library names, such as "Row major linear FP16 format"."""
    match = _DTYPE.search(text)
    word = match[1].lower() if match else ""
    return _DTYPES.get(word, word)


def _layer_of_line(line: str) -> EngineLayer | None:
    match = _LAYER.match(line)
    if match is None:
        return None
    inputs, weights, outputs = (_tensors(match[side] or "") for side in ("inputs", "weights", "outputs"))
    return _layer(match["name"], match["kind"], match["metadata"], inputs, weights, outputs)


def _tensors(text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(match["dtype"], _shape(match["shape"])) for match in _TENSOR.finditer(text)]


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _layer_of_json(layer: dict[str, Any]) -> EngineLayer:
    inputs, weights, outputs = (
        [(_json_dtype(tensor), tuple(tensor.get("Dimensions") or ())) for tensor in layer.get(side) or ()]
        for side in ("Inputs", "Constants", "Outputs")
    )
    own = layer.get("Weights")  # a convolution's, as TensorRT 10 lists them
    if isinstance(own, dict) and own.get("Count"):
        weights.append((str(own.get("Type", "")), (int(own["Count"]),)))
    name, kind, metadata = (str(layer.get(key, "")) for key in ("Name", "LayerType", "Metadata"))
    return _layer(name, kind, metadata, inputs, weights, outputs)


def _json_dtype(tensor: dict[str, Any]) -> str:
    keys = ("Datatype", "DataType", "Format/Datatype", "Format")
    return str(next((tensor[key] for key in keys if key in tensor), ""))


def _layer(
    name: str,
    kind: str,
    metadata: str,
    inputs: Iterable[tuple[str, tuple[int, ...]]],
    weights: Iterable[tuple[str, tuple[int, ...]]],
    outputs: Iterable[tuple[str, tuple[int, ...]]],
) -> EngineLayer:
    sizes = [(dtype, math.prod(shape)) for dtype, shape in weights]
    arrays = sorted((item for item in sizes if item[1] > 1), key=lambda item: -item[1])
    types = [tuple(dtype_of(dtype) for dtype, _ in side) for side in (arrays, inputs, outputs)]
    return EngineLayer(name, kind, frozenset(nodes_of(metadata)), *types)


def _tensor_of_line(line: str) -> IOTensor | None:
    match = _IO.match(line)
    if match is None:
        return None
    ranges = tuple(ShapeRange(*map(_shape, found)) for found in _RANGE.findall(line))
    return IOTensor(match["name"], match["mode"] == "Input", dtype_of(match["dtype"]), _shape(match["shape"]), ranges)


def _tensors_of_engine(library: Library, engine: Any) -> tuple[IOTensor, ...]:
    tensors = []
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        is_input = engine.get_tensor_mode(name) == library.module.TensorIOMode.INPUT
        count = engine.num_optimization_profiles if is_input else 0
        ranges = (engine.get_tensor_profile_shape(name, profile) for profile in range(count))
        profiles = tuple(ShapeRange(*map(tuple, shapes)) for shapes in ranges)
        dtype = dtype_of(engine.get_tensor_dtype(name).name)
        tensors.append(IOTensor(name, is_input, dtype, tuple(engine.get_tensor_shape(name)), profiles))
    return tuple(tensors)


def _counted(kinds: Iterable[str | None]) -> Kinds | None:
    counts = Counter(kinds)
    if not counts or None in counts:
        return None
    return {str(kind): count for kind, count in sorted(counts.items(), key=str) if kind not in HOST_KINDS}
