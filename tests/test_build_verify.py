"""Engines are verified by their build logs, real ones and altered ones.

The precision of a layer decides the speed of an engine, and nothing else shows that it is not that of the file.
"""

from __future__ import annotations

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
from seginfer._tensorrt import EngineOptions, EngineProfile, build
from seginfer._tensorrt.build import Profile, build_network
from seginfer._tensorrt.inspect import count_logged_kernels, parse_build_log
from seginfer._tensorrt.isolated import build_isolated
from seginfer._tensorrt.library import Message, find_library
from seginfer._tensorrt.parse import ParsedNetwork, parse
from seginfer._tensorrt.report import ShapeRange
from seginfer._tensorrt.shapes import resolve_profiles
from seginfer._tensorrt.verify import check_precisions, check_spec_precision, list_expected_layers, verify
from seginfer.assets import SOCCER
from seginfer.export import export_onnx


class Case(NamedTuple):
    """A network, what it was built for, and what the library said."""

    parsed: ParsedNetwork
    profiles: list[Profile]
    messages: list[Message]

    def verify(self, messages: list[Message] | None = None) -> dict[str, int]:
        found = parse_build_log(self.messages if messages is None else messages)
        return verify(self.parsed, list_expected_layers(self.parsed), found, self.profiles)

    def doctored(self, old: str, new: str) -> list[Message]:
        """Return the log with the lists at its end changed."""
        changed = [
            m._replace(text=m.text.replace(old, new)) if m.text.startswith("Layers:") else m for m in self.messages
        ]
        assert changed != self.messages
        return changed


def built(path: Path, *profiles: EngineProfile) -> Case:
    parsed = parse(find_library(), path)
    ranges = resolve_profiles(parsed.inputs, None, EngineOptions(profiles=profiles or (EngineProfile(),)))
    free: list[Mapping[str, ShapeRange]] = (
        [] if min(parsed.inputs[0].shape) >= 0 else [{parsed.inputs[0].name: shapes} for shapes in ranges]
    )
    return Case(parsed, free, build_network(parsed, free).messages)


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
    with refuses(BackendError, "does not match the network", "first/Conv: expected float16, got float32", "report"):
        case.verify(case.doctored("Datatype: Half", "Datatype: Float"))
    nameless = [m._replace(text=m.text.replace("ONNX Layer", "Layer")) for m in case.doctored("Half", "Float")]
    with refuses(BackendError, "expected float16", "got float32"):
        case.verify(nameless)


@needs_rtx
def test_float16_built_where_float32_was_asked_is_refused(exported: Callable[..., Path]) -> None:
    case = built(exported(half_networks.Attention, "fp32"))
    with refuses(BackendError, "does not match the network", "expected float32", "got float16"):
        case.verify(case.doctored("Datatype: Float", "Datatype: Half"))


@needs_rtx
def test_one_layer_of_another_type_is_found_and_named(exported: Callable[..., Path]) -> None:
    case = built(exported(half_networks.Attention, "fp16"))
    text = next(m.text for m in case.messages if m.text.startswith("Layers:"))
    (line,) = (line for line in text.split("\n") if line.startswith("Name: second/Conv_"))
    with refuses(BackendError, "second/Conv: expected float16, got float32"):
        case.verify(case.doctored(line, line.replace("Half", "Float")))


@needs_rtx
def test_fp32_nodes_stay_float32(exported: Callable[..., Path], tmp_path: Path) -> None:
    """Left alone, the library builds a float32 convolution between casts in float16: a weight of 1e6 is infinite."""
    path = exported(half_networks.DeadChannel, "fp16")
    report = build_isolated(path, EngineOptions(), tmp_path / "m.engine")
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
def test_fp32_nodes_of_every_form_stay_float32(op: str, then: list[str], tmp_path: Path) -> None:
    case = built(nvidia_models.save(lambda: fp32_node(op, then), tmp_path / "m.onnx"))
    assert case.verify() == {"float16": 2, "float32": 1}


@needs_rtx
def test_an_fp32_node_without_protection_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "protect_fp32_nodes", lambda *_: None)
    case = built(nvidia_models.save(lambda: fp32_node("Conv", []), tmp_path / "m.onnx"))
    with refuses(BackendError, "fp32/Conv: expected float32, got float16"):
        case.verify()


def fp32_node(op: str, then: list[str]) -> onnx.ModelProto:
    """Return a float16 network with one float32 product, and operators after it."""
    second = "w32" if op == "Conv" else "square"
    nodes = [
        node("Cast", "x", "h", to=F16),
        node("Conv", "h w", "c", "first/Conv", pads=[1] * 4),
        node("Cast", "c", "f", to=F32),
    ]
    nodes.append(node(op, f"f {second}", "t", f"fp32/{op}"))
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
    (expected,) = list_expected_layers(case.parsed)
    assert expected.dtype == "float32"
    with refuses(BackendError, "first/Conv", "float32", "int8"):  # which the file does not have without those nodes
        check_precisions([expected], parse_build_log(case.messages).layers)


@needs_rtx
def test_a_network_without_weights_has_no_precisions(tmp_path: Path) -> None:
    case = built(nvidia_models.save(lambda: nvidia_models.model([node("Relu", "x", "y")]), tmp_path / "m.onnx"))
    assert list_expected_layers(case.parsed) == []
    assert case.verify() == {}


@needs_rtx
def test_a_file_that_calls_itself_fp16_and_is_not_is_refused_before_the_build() -> None:
    expected = list_expected_layers(parse(find_library(), SOCCER / "pitch.onnx"))
    assert {layer.dtype for layer in expected} == {"float32"}
    spec = make_spec()
    check_spec_precision(expected, spec)
    spec = replace(spec, provenance=replace(spec.provenance, precision="fp16"))
    with refuses(BackendError, "says precision fp16", "all 23 layers", "float32", "--precision fp16"):
        check_spec_precision(expected, spec)
    check_spec_precision([expected[0]._replace(dtype="float16"), *expected[1:]], spec)


@needs_rtx
def test_tensors_and_profiles_of_the_engine_are_those_of_network_and_options() -> None:
    case = built(SOCCER / "pitch.onnx", EngineProfile((1, 2, 4)), EngineProfile((8, 8, 8)))
    found = parse_build_log(case.messages)
    assert [(t.name, t.is_input, t.dtype, t.shape) for t in found.tensors] == [
        ("image", True, "float32", (-1, 3, 192, 320)),
        ("logits", False, "float32", (-1, 8, 192, 320)),
    ]
    assert found.tensors[0].profiles == tuple(profile["image"] for profile in case.profiles)
    assert case.verify() == {"float32": 46}
    for old, new, words in (
        ("Name: logits, IOMode", "Name: other, IOMode", ("outputs: expected ['logits']", "['other']")),
        ("DataType: Float, Dimensions: [-1,8", "DataType: Half, Dimensions: [-1,8", ("logits: expected float32",)),
        ("Dimensions: [-1,8,192,320], Loc", "Dimensions: [-1,8,96,160], Loc", ("logits", "(-1, 8, 96, 160)")),
        ("MaxShape: [4,3", "MaxShape: [2,3", ("profiles of image",)),
    ):
        with refuses(BackendError, "does not match the network", *words):
            case.verify(case.doctored(old, new))


@needs_rtx
def test_memory_is_read_from_the_log() -> None:
    weights = sum(onnx.numpy_helper.to_array(w).nbytes for w in onnx.load(SOCCER / "pitch.onnx").graph.initializer)
    profiles = (EngineProfile.fixed(1), EngineProfile.fixed(4))
    one, four, both = (parse_build_log(built(SOCCER / "pitch.onnx", *p).messages) for p in (*zip(profiles), profiles))
    assert one.weights_bytes == four.weights_bytes == both.weights_bytes == pytest.approx(weights, rel=0.05)
    assert one.activation_bytes is not None
    assert four.activation_bytes is not None
    assert 8 * 192 * 320 * 4 < one.activation_bytes < four.activation_bytes == both.activation_bytes
    assert parse_build_log([]).weights_bytes is parse_build_log([]).activation_bytes is None


@needs_rtx
def test_kernels_are_counted_from_a_full_list_or_not_at_all() -> None:
    messages = built(SOCCER / "pitch.onnx").messages
    texts = [message.text for message in messages]
    listed = next(text for text in texts if text.startswith("Layers:\n"))
    assert sum((count_logged_kernels(texts) or {}).values()) == 33
    assert count_logged_kernels([listed, listed]) is None
    assert count_logged_kernels([listed.replace("LayerType", "Kind")]) is None
    assert count_logged_kernels([]) is None
