"""What was built is read back and held against what was asked: real build logs, and the same logs doctored.

The precision of a layer decides the speed of an engine, and nothing else would show that it is not the one asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import half_networks
import networks
import numpy as np
import nvidia_models
import onnx
import pytest
from models import make_spec
from nvidia_models import F16, F32, node
from refusal import refuses
from rtx import needs_rtx
from torch import nn

from seginfer import BackendError
from seginfer._assets import SOCCER
from seginfer._tensorrt import EngineOptions, EngineProfile
from seginfer._tensorrt.build import Profile, build_engine
from seginfer._tensorrt.inspect import EngineLayer, dtype_of, layers_of_json, nodes_of, readback_of_log
from seginfer._tensorrt.isolated import build
from seginfer._tensorrt.kernels import kinds_of_json, kinds_of_log
from seginfer._tensorrt.library import Message, find_library
from seginfer._tensorrt.parse import ParsedNetwork, parse
from seginfer._tensorrt.report import ShapeRange
from seginfer._tensorrt.shapes import profiles_of
from seginfer._tensorrt.verify import Asked, asked_layers, check_asked, check_precisions, check_tensors, verify
from seginfer.export import export_onnx

ASKED = [
    Asked("head/Conv", frozenset({"head/Conv"}), "float16"),
    Asked("stem/Conv", frozenset({"stem/Conv"}), "float32"),
]


class Case(NamedTuple):
    """A network, what it was built for, and what the library said."""

    parsed: ParsedNetwork
    profiles: list[Profile]
    messages: list[Message]

    def verify(self, messages: list[Message] | None = None) -> dict[str, int]:
        found = readback_of_log(self.messages if messages is None else messages)
        return verify(self.parsed, asked_layers(self.parsed), found, self.profiles)

    def doctored(self, old: str, new: str) -> list[Message]:
        """Return the log with the lists at its end changed."""
        changed = [
            m._replace(text=m.text.replace(old, new)) if m.text.startswith("Layers:") else m for m in self.messages
        ]
        assert changed != self.messages
        return changed


def built(path: Path, *profiles: EngineProfile) -> Case:
    parsed = parse(find_library(), path)
    ranges = profiles_of(parsed.inputs, None, EngineOptions(profiles=profiles or (EngineProfile(),)))
    free: list[Mapping[str, ShapeRange]] = (
        [] if min(parsed.inputs[0].shape) >= 0 else [{parsed.inputs[0].name: shapes} for shapes in ranges]
    )
    return Case(parsed, free, build_engine(parsed, free).messages)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(middle: type[nn.Module], precision: str) -> Path:
        path = folder / f"{middle.__name__}-{precision}.onnx"
        module = half_networks.Body(middle()).eval()
        export_onnx(module, networks.make_spec(), path, images=networks.pictures((48, 64)), precision=precision)
        return path

    return export


@needs_rtx
@pytest.mark.parametrize(("precision", "expected"), [("fp32", {"float32": 6}), ("fp16", {"float16": 5, "float32": 1})])
def test_an_export_is_built_in_its_own_precision(
    precision: str, expected: dict[str, int], exported: Callable[..., Path]
) -> None:
    case = built(exported(half_networks.Attention, precision))
    assert case.verify() == expected
    both = built(exported(half_networks.Attention, precision), EngineProfile(), EngineProfile((1, 2, 4)))
    assert both.verify() == {dtype: 2 * count for dtype, count in expected.items()}


@needs_rtx
def test_float32_built_where_float16_was_asked_is_refused(exported: Callable[..., Path]) -> None:
    case = built(exported(half_networks.Attention, "fp16"))
    with refuses(BackendError, "not what was asked", "first/Conv", "float16", "built in float32", "report this"):
        case.verify(case.doctored("Datatype: Half", "Datatype: Float"))
    nameless = [m._replace(text=m.text.replace("ONNX Layer", "Layer")) for m in case.doctored("Half", "Float")]
    with refuses(BackendError, "float16", "built in float32"):
        case.verify(nameless)


@needs_rtx
def test_float16_built_where_float32_was_asked_is_refused(exported: Callable[..., Path]) -> None:
    case = built(exported(half_networks.Attention, "fp32"))
    with refuses(BackendError, "not what was asked", "float32", "built in float16"):
        case.verify(case.doctored("Datatype: Float", "Datatype: Half"))


@needs_rtx
def test_one_layer_of_another_type_is_found_and_named(exported: Callable[..., Path]) -> None:
    case = built(exported(half_networks.Attention, "fp16"))
    text = next(m.text for m in case.messages if m.text.startswith("Layers:"))
    (line,) = (line for line in text.split("\n") if line.startswith("Name: second/Conv_"))
    with refuses(BackendError, "second/Conv was asked to compute in float16 and was built in float32"):
        case.verify(case.doctored(line, line.replace("Half", "Float")))


@needs_rtx
def test_float32_islands_stay_float32(exported: Callable[..., Path], tmp_path: Path) -> None:
    """Left alone, the library builds a float32 convolution between casts in float16: a weight of 1e6 is infinite."""
    path = exported(half_networks.DeadChannel, "fp16")
    report = build(path, EngineOptions(), tmp_path / "m.engine")
    assert report.precisions == {"float16": 3, "float32": 2}
    assert report.layers == parse(find_library(), path).network.num_layers
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer}
    row = weights["middle.mix.weight"][0]
    assert row.dtype == np.float32
    assert row.max() > np.finfo(np.float16).max
    assert row.tobytes() in (tmp_path / "m.engine").read_bytes()


@needs_rtx
@pytest.mark.parametrize("op", ["Conv", "MatMul"])
@pytest.mark.parametrize("then", [[], ["Add"], ["Add", "Mul"], ["Relu"]])
def test_islands_of_every_form_stay_float32(op: str, then: list[str], tmp_path: Path) -> None:
    case = built(nvidia_models.save(lambda: island(op, then), tmp_path / "m.onnx"))
    assert case.verify() == {"float16": 2, "float32": 1}


@needs_rtx
def test_without_protection_an_island_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "protect_islands", lambda *_: None)
    case = built(nvidia_models.save(lambda: island("Conv", []), tmp_path / "m.onnx"))
    with refuses(BackendError, "island/Conv was asked to compute in float32 and was built in float16"):
        case.verify()


def island(op: str, then: list[str]) -> onnx.ModelProto:
    """Return a float16 network with one float32 product, and operators after it."""
    second = "w32" if op == "Conv" else "square"
    nodes = [
        node("Cast", "x", "h", to=F16),
        node("Conv", "h w", "c", "first/Conv", pads=[1] * 4),
        node("Cast", "c", "f", to=F32),
    ]
    nodes.append(node(op, f"f {second}", "t", f"island/{op}"))
    for i, name in enumerate(then):
        nodes.append(node(name, f"{nodes[-1].output[0]}{' bias' if name != 'Relu' else ''}", f"t{i}"))
    last = nodes[-1].output[0]
    nodes += [node("Cast", last, "k", to=F16), node("Conv", "k w2", "z", "last/Conv"), node("Cast", "z", "y", to=F32)]
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "w": rng.normal(size=(16, 3, 3, 3)).astype(np.float16),
        "w2": rng.normal(size=(4, 16, 1, 1)).astype(np.float16),
        "w32": rng.normal(size=(16, 16, 1, 1)).astype(np.float32),
        "square": rng.normal(size=(32, 32)).astype(np.float32),
        "bias": np.full((1, 16, 1, 1), 0.5, np.float32),
    }
    return nvidia_models.model(nodes, **weights)


@needs_rtx
def test_quantized_layers_are_counted_as_what_they_became(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x s zero", "xq"),
        node("DequantizeLinear", "xq s zero", "xd"),
        node("QuantizeLinear", "w ws wz", "wq", axis=0),
        node("DequantizeLinear", "wq ws wz", "wd", axis=0),
        node("Conv", "xd wd", "y", "first/Conv", pads=[1] * 4),
    ]
    scales: dict[str, Any] = {"s": np.array(0.02, np.float32), "zero": np.array(0, np.int8)}
    scales |= {"ws": np.full(4, 0.01, np.float32), "wz": np.zeros(4, np.int8)}
    case = built(nvidia_models.save(lambda: nvidia_models.model(nodes, **scales), tmp_path / "m.onnx"))
    assert case.verify() == {"int8": 1}
    (asked,) = asked_layers(case.parsed)
    assert asked.dtype == "float32"
    with refuses(BackendError, "first/Conv", "float32", "int8"):  # which nobody asked for without those nodes
        check_precisions([asked], readback_of_log(case.messages).layers)


@needs_rtx
def test_a_network_without_weights_has_no_precisions(tmp_path: Path) -> None:
    case = built(nvidia_models.save(lambda: nvidia_models.model([node("Relu", "x", "y")]), tmp_path / "m.onnx"))
    assert asked_layers(case.parsed) == []
    assert case.verify() == {}


@needs_rtx
def test_a_file_that_calls_itself_fp16_and_is_not_is_refused_before_the_build() -> None:
    asked = asked_layers(parse(find_library(), SOCCER / "pitch.onnx"))
    assert {layer.dtype for layer in asked} == {"float32"}
    spec = make_spec()
    check_asked(asked, spec)
    spec = replace(spec, provenance=replace(spec.provenance, precision="fp16"))
    with refuses(BackendError, "says precision fp16", "all 23 layers", "float32", "--precision fp16"):
        check_asked(asked, spec)
    check_asked([asked[0]._replace(dtype="float16"), *asked[1:]], spec)


@needs_rtx
def test_tensors_and_profiles_of_the_engine_are_those_asked_for() -> None:
    case = built(SOCCER / "pitch.onnx", EngineProfile((1, 2, 4)), EngineProfile((8, 8, 8)))
    found = readback_of_log(case.messages)
    assert [(t.name, t.is_input, t.dtype, t.shape) for t in found.tensors] == [
        ("image", True, "float32", (-1, 3, 192, 320)),
        ("logits", False, "float32", (-1, 8, 192, 320)),
    ]
    assert found.tensors[0].profiles == tuple(profile["image"] for profile in case.profiles)
    assert case.verify() == {"float32": 46}
    for old, new, words in (
        ("Name: logits, IOMode", "Name: other, IOMode", ("outputs should be ['logits']", "['other']")),
        ("DataType: Float, Dimensions: [-1,8", "DataType: Half, Dimensions: [-1,8", ("logits should be float32",)),
        ("Dimensions: [-1,8,192,320], Loc", "Dimensions: [-1,8,96,160], Loc", ("logits", "(-1, 8, 96, 160)")),
        ("MaxShape: [4,3", "MaxShape: [2,3", ("profiles of image",)),
    ):
        with refuses(BackendError, "not what was asked", *words):
            case.verify(case.doctored(old, new))


@needs_rtx
def test_memory_is_read_from_the_log() -> None:
    weights = sum(onnx.numpy_helper.to_array(w).nbytes for w in onnx.load(SOCCER / "pitch.onnx").graph.initializer)
    profiles = (EngineProfile.fixed(1), EngineProfile.fixed(4))
    one, four, both = (readback_of_log(built(SOCCER / "pitch.onnx", *p).messages) for p in (*zip(profiles), profiles))
    assert one.weights_bytes == four.weights_bytes == both.weights_bytes == pytest.approx(weights, rel=0.05)
    assert one.activation_bytes is not None
    assert four.activation_bytes is not None
    assert 8 * 192 * 320 * 4 < one.activation_bytes < four.activation_bytes == both.activation_bytes
    assert readback_of_log([]).weights_bytes is readback_of_log([]).activation_bytes is None


@needs_rtx
def test_kernels_are_counted_from_a_full_list_or_not_at_all() -> None:
    messages = built(SOCCER / "pitch.onnx").messages
    texts = [message.text for message in messages]
    listed = next(text for text in texts if text.startswith("Layers:\n"))
    assert sum((kinds_of_log(texts) or {}).values()) == 33
    assert kinds_of_log([listed, listed]) is None
    assert kinds_of_log([listed.replace("LayerType", "Kind")]) is None
    assert kinds_of_log([]) is None


# As TensorRT 10 (one text for format and type) and 11 (two) list the layers of an engine built with all details.
# Source: docs.nvidia.com/deeplearning/tensorrt, "Inspecting Engines"; migration guide of TensorRT 11.
TENSORRT_10 = [
    {
        "Name": "head/Conv + PWN(Relu_2)",
        "LayerType": "CaskConvolution",
        "Inputs": [
            {"Name": "a", "Dimensions": [1, 16, 8, 8], "Format/Datatype": "Channel major FP16 format where C % 8 == 0"}
        ],
        "Outputs": [{"Name": "b", "Dimensions": [1, 16, 8, 8], "Format/Datatype": "Row major linear FP32"}],
        "ParameterType": "Convolution",
        "Weights": {"Type": "Half", "Count": 2304},
        "Bias": {"Type": "Float", "Count": 16},
        "Metadata": "[ONNX Layer: head/Conv]\x1e[ONNX Layer: Relu_2]",
    },
    {
        "Name": "stem/Conv",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Row major linear FP32"}],
        "Outputs": [{"Name": "c", "Dimensions": [1, 16, 8, 8], "Format/Datatype": "Row major linear FP16 format"}],
        "Weights": {"Type": "Float", "Count": 432},
        "Metadata": "[ONNX Layer: stem/Conv]",
    },
]
TENSORRT_11 = [
    {
        "Name": "head/Conv_myl0_1",
        "LayerType": "correlation",
        "Inputs": [{"Name": "a", "Dimensions": [1, 16, 8, 8], "Format": "Channel major", "Datatype": "Half"}],
        "Constants": [
            {"Name": "k", "Dimensions": [1], "Datatype": "Float"},
            {"Name": "w", "Dimensions": [16, 16, 3, 3], "Datatype": "Half"},
        ],
        "Outputs": [{"Name": "b", "Dimensions": [1, 16, 8, 8], "Format": "Linear", "Datatype": "Float"}],
        "Metadata": "[ONNX Layer: head/Conv]\x1f[ONNX Layer: Relu_2]",
    },
    {
        "Name": "__myl_CorrCast_myl0_2",
        "LayerType": "runtime_fusion",
        "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format": "Linear", "Datatype": "Float"}],
        "Constants": [{"Name": "v", "Dimensions": [16, 3, 3, 3], "Datatype": "Float"}],
        "Outputs": [{"Name": "c", "Dimensions": [1, 16, 8, 8], "Format": "Linear", "Datatype": "Half"}],
        "Metadata": "[ONNX Layer: stem/Conv]\x1f[ONNX Layer: cast]",
    },
]


@pytest.mark.parametrize("listed", [TENSORRT_10, TENSORRT_11])
def test_the_engine_s_own_list_is_read_in_the_words_of_every_version(listed: list[dict[str, object]]) -> None:
    layers = layers_of_json(json.dumps({"Layers": listed}))
    assert [sorted(layer.nodes)[-1] for layer in layers] == ["head/Conv", "stem/Conv"]
    assert check_precisions(ASKED, layers) == {"float16": 1, "float32": 1}
    assert sum((kinds_of_json(json.dumps({"Layers": listed})) or {}).values()) == 2
    swapped = [ASKED[0]._replace(dtype="float32"), ASKED[1]]
    with refuses(BackendError, "head/Conv was asked to compute in float32 and was built in float16"):
        check_precisions(swapped, layers)


def test_a_list_of_bare_names_says_nothing() -> None:
    for text in ("", "[]", "{}", json.dumps({"Layers": ["head/Conv"]}), "\x00"):
        assert layers_of_json(text) == ()
        assert kinds_of_json(text) is None


def test_a_layer_that_hides_its_kernels_proves_and_disproves_nothing() -> None:
    opaque = EngineLayer("{ForeignNode}", "Myelin", frozenset({"head/Conv"}), (), ("float32",), ("float32",))
    assert check_precisions(ASKED[:1], [opaque]) == {}
    helper = EngineLayer("pad", "kgen", frozenset({"head/Conv"}), ("float32",), ("float32",), ("float32",))
    kernel = EngineLayer("head/Conv", "correlation", frozenset({"head/Conv"}), ("float16",), ("float16",), ("float16",))
    assert check_precisions(ASKED[:1], [opaque, helper, kernel]) == {"float16": 1}
    with refuses(BackendError, "head/Conv"):
        check_precisions(ASKED[:1], [opaque, helper])


@pytest.mark.parametrize(
    "built",
    [
        [("{ForeignNode[c...s]}", "Myelin", ["Half"], "c"), ("s", "Softmax", ["Float"], "s")],
        [("{ForeignNode[c]}", "DLA", ["FP16"], ""), ("r", "Resize", ["Float"], "")],
        [("c", "gemm", ["N/A due to dynamic shapes"], "c"), ("r", "Reformat", ["Row major linear FP32"], "c")],
        [("g", "gemm", ["Half"], ""), ("k", "kgen", ["Float"], "c")],
    ],
    ids=["behind a foreign node", "on a DLA", "of shapes that vary", "beside a kernel with casts"],
)
def test_what_cannot_be_told_is_not_refused(built: list[tuple[str, str, list[str], str]]) -> None:
    """A false alarm would keep a good engine from its user; a strongly typed network is asked for in any case."""
    listed = [
        {
            "Name": name,
            "LayerType": kind,
            "Inputs": [{"Dimensions": [1, 3, 8, 8], "Format/Datatype": dtype} for dtype in dtypes],
            "Outputs": [],
            "Metadata": f"[ONNX Layer: {node}]" if node else "",
        }
        for name, kind, dtypes, node in built
    ]
    found = layers_of_json(json.dumps({"Layers": listed}))
    assert len(found) == len(built)
    assert check_precisions([Asked("c", frozenset({"c"}), "float16")], found) == {}


def test_tensors_of_another_engine_are_found() -> None:
    with refuses(BackendError, "inputs should be []", "image"):
        found = readback_of_log([Message("VERBOSE", LOGGED)])
        check_tensors(found.tensors, (), (), [])
    assert found.tensors[0].profiles == (ShapeRange((1, 3), (1, 3), (4, 3)),)


LOGGED = """Layers:
Name: a, LayerType: kgen, Inputs: [], Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: a, b]]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float, Dimensions: [-1,3], Location: Device, ProfileInfo: [ { \
MinShape: [1,3], OptShape: [1,3], MaxShape: [4,3], Format: x }]
"""


def test_names_and_types_are_read_from_the_library_s_words() -> None:
    assert nodes_of("[ONNX Layer: a]\x1f[ONNX Layer: b[0]]") == ("a", "b[0]")
    assert nodes_of("[ONNX Layer: a][ONNX Layer: b]") == nodes_of("[ONNX Layer: a]\x1e[ONNX Layer: b]") == ("a", "b")
    assert nodes_of("") == ()
    words = {
        "Two wide channel vectorized row major FP16 format": "float16",
        "Row major linear FP32": "float32",
        "Thirty-two wide channel vectorized row major Int8 format": "int8",
        "BFloat16": "bfloat16",
        "BF16": "bfloat16",
        "UInt8": "uint8",
        "HALF": "float16",
        "FP8": "fp8",
        "something else": "",
    }
    assert {text: dtype_of(text) for text in words} == words
