"""Lists of layers, as the logs and inspectors of different versions of TensorRT write them."""

from __future__ import annotations

import json

import pytest
from refusal import refuses

from seginfer import BackendError
from seginfer._tensorrt.inspect import (
    EngineLayer,
    count_kernels,
    parse_build_log,
    parse_dtype,
    parse_layers,
    parse_nodes,
)
from seginfer._tensorrt.library import Message
from seginfer._tensorrt.report import ShapeRange
from seginfer._tensorrt.verify import ExpectedLayer, check_precisions, check_tensors

EXPECTED = [
    ExpectedLayer("head/Conv", frozenset({"head/Conv"}), "float16"),
    ExpectedLayer("stem/Conv", frozenset({"stem/Conv"}), "float32"),
]

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
    layers = parse_layers(json.dumps({"Layers": listed}))
    assert [sorted(layer.nodes)[-1] for layer in layers] == ["head/Conv", "stem/Conv"]
    assert check_precisions(EXPECTED, layers) == {"float16": 1, "float32": 1}
    assert sum((count_kernels(json.dumps({"Layers": listed})) or {}).values()) == 2
    swapped = [EXPECTED[0]._replace(dtype="float32"), EXPECTED[1]]
    with refuses(BackendError, "head/Conv: expected float32, got float16"):
        check_precisions(swapped, layers)


def test_a_list_of_bare_names_says_nothing() -> None:
    for text in ("", "[]", "{}", json.dumps({"Layers": ["head/Conv"]}), "\x00"):
        assert parse_layers(text) == ()
        assert count_kernels(text) is None


def test_a_layer_that_hides_its_kernels_proves_and_disproves_nothing() -> None:
    opaque = EngineLayer("{ForeignNode}", "Myelin", frozenset({"head/Conv"}), (), ("float32",), ("float32",))
    assert check_precisions(EXPECTED[:1], [opaque]) == {}
    helper = EngineLayer("pad", "kgen", frozenset({"head/Conv"}), ("float32",), ("float32",), ("float32",))
    kernel = EngineLayer("head/Conv", "correlation", frozenset({"head/Conv"}), ("float16",), ("float16",), ("float16",))
    assert check_precisions(EXPECTED[:1], [opaque, helper, kernel]) == {"float16": 1}
    with refuses(BackendError, "head/Conv"):
        check_precisions(EXPECTED[:1], [opaque, helper])


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
    """A false alarm would keep a good engine from its user; a strongly typed network is built in any case."""
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
    found = parse_layers(json.dumps({"Layers": listed}))
    assert len(found) == len(built)
    assert check_precisions([ExpectedLayer("c", frozenset({"c"}), "float16")], found) == {}


def test_tensors_of_another_engine_are_found() -> None:
    with refuses(BackendError, "inputs: expected []", "image"):
        found = parse_build_log([Message("VERBOSE", LOGGED)])
        check_tensors(found.tensors, (), (), [])
    assert found.tensors[0].profiles == (ShapeRange((1, 3), (1, 3), (4, 3)),)


LOGGED = """Layers:
Name: a, LayerType: kgen, Inputs: [], Outputs: [], TacticName: , StreamId: 0, Metadata: [ONNX Layer: a, b]]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float, Dimensions: [-1,3], Location: Device, ProfileInfo: [ { \
MinShape: [1,3], OptShape: [1,3], MaxShape: [4,3], Format: x }]
"""


def test_names_and_types_are_read_from_the_library_s_words() -> None:
    assert parse_nodes("[ONNX Layer: a]\x1f[ONNX Layer: b[0]]") == ("a", "b[0]")
    assert parse_nodes("[ONNX Layer: a][ONNX Layer: b]") == ("a", "b")
    assert parse_nodes("[ONNX Layer: a]\x1e[ONNX Layer: b]") == ("a", "b")
    assert parse_nodes("") == ()
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
    assert {text: parse_dtype(text) for text in words} == words
