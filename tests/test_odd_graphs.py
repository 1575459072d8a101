"""Graphs as other tools write them: unusual output sizes, dimensions of -1, no shapes, labels as floats or booleans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from fake_network import FakeDeviceBackend
from fake_pipelines import on_gpu, picture
from models import NAMES, SPECS, make_onnx, make_spec
from onnx import TensorProto, helper
from refusal import refuses

from seginfer import (
    ClassSpec,
    InputError,
    InputSpec,
    ModelFileError,
    ModelSpec,
    OutputSpec,
    Segmenter,
    SpecError,
    attach_spec,
    read_model,
)
from seginfer._geometry.geometry import Size
from seginfer.export import export_onnx


def save(path: Path, model: onnx.ModelProto, spec: ModelSpec) -> Path:
    """Save a graph and attach a spec to it."""
    path.write_bytes(model.SerializeToString())
    attach_spec(path, spec, path)
    return path


def resized(size: Size, to: Size) -> onnx.ModelProto:
    """Return a graph that resizes its input, which is its logits."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, *hw])
        for name, hw in (("image", size), ("logits", to))
    ]
    scales = helper.make_tensor("s", TensorProto.INT64, [4], [1, 3, *to])
    node = helper.make_node("Resize", ["image", "", "", "s"], ["logits"], mode="nearest", nearest_mode="floor")
    graph = helper.make_graph([node], "resized", tensors[:1], tensors[1:], [scales])
    graph.node[0].input[3] = "s"
    for tensor in tensors:
        tensor.type.tensor_type.shape.dim[0].ClearField("dim_param")
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(
    ("size", "to", "stride"),
    [
        ((375, 124), (94, 31), 4),  # rounded up
        ((513, 65), (129, 17), 4),
        ((100, 50), (33, 16), 3),  # rounded down
        ((96, 128), (72, 96), None),  # three quarters
        ((48, 64), (96, 128), None),  # larger
        ((48, 128), (48, 64), None),  # another ratio per axis
        ((96, 64), (95, 63), None),
    ],
)
def test_outputs_of_any_size_cover_the_whole_image(size: Size, to: Size, stride: int | None, tmp_path: Path) -> None:
    spec = make_spec(size=size, output={"stride": stride})
    path = save(tmp_path / "m.onnx", resized(size, to), spec)
    image = picture((50, 70))
    with Segmenter.open(path, device="cpu") as segmenter:
        mask, logits = segmenter(image).mask, segmenter.trace(image).output
    assert logits.shape == (1, 3, *to)
    expected = F.interpolate(torch.from_numpy(logits), (50, 70), mode="bilinear", align_corners=False)
    top = expected.topk(2, dim=1).values[0]
    sure = (top[0] - top[1] > 1e-5).numpy()
    np.testing.assert_array_equal(mask[sure], expected.argmax(1)[0].numpy()[sure])
    assert sure.mean() > 0.9


@pytest.mark.parametrize(("size", "to"), [((572, 572), (388, 388)), ((96, 128), (72, 96)), ((48, 64), (96, 128))])
def test_an_output_that_may_be_a_crop_is_accepted_only_when_the_spec_says_so(
    size: Size, to: Size, tmp_path: Path
) -> None:
    """572 to 388 is the U-Net of the paper, whose output is the centre of its input."""
    for stride in (1, 2, 4):
        with refuses(ModelFileError, f"outputs[0].stride is {stride}", str(to), "null"):
            save(tmp_path / "m.onnx", resized(size, to), make_spec(size=size, output={"stride": stride}))


def test_a_wrong_stride_of_a_graph_of_any_size_is_told_with_the_first_image(tmp_path: Path) -> None:
    model = make_onnx(make_spec(size=None, output={"stride": 4}, multiple_of=4, resize="pad"))
    path = save(tmp_path / "m.onnx", model, make_spec(size=None, output={"stride": 2}, multiple_of=4, resize="pad"))
    with Segmenter.open(path, device="cpu") as segmenter, refuses(InputError, "outputs[0].stride is 2", "(24, 32)"):
        segmenter(picture((24, 32)))


def test_tiles_need_a_stride() -> None:
    with refuses(SpecError, "outputs[0].stride", "tiles"):
        make_spec(resize="tile", tile_margin=5, multiple_of=2, output={"stride": None})


class Quarter(torch.nn.Module):
    """A network whose output has a quarter of the input's sides, rounded up, as SegFormer's has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, stride=4, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, 3, ceil(H / 4), ceil(W / 4))."""
        logits: torch.Tensor = self.conv(x)
        return logits


def test_a_network_that_rounds_up_is_exported_at_a_fixed_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = make_spec(size=(37, 61), output={"stride": 4})
    images = [np.random.default_rng(i).integers(0, 256, (50, 70, 3), np.uint8) for i in range(2)]
    assert export_onnx(Quarter().eval(), spec, tmp_path / "m.onnx", images=images).passed
    assert read_model(tmp_path / "m.onnx").graph.outputs[0].shape[2:] == (10, 16)


def test_dimensions_of_minus_one_vary(tmp_path: Path) -> None:
    model = make_onnx(make_spec(size=None, multiple_of=8, resize="pad"))
    for tensor in (*model.graph.input, *model.graph.output):
        for i, dim in enumerate(tensor.type.tensor_type.shape.dim):
            if i != 1:
                dim.Clear()
                dim.dim_value = -1
    path = save(tmp_path / "m.onnx", model, SPECS["dynamic size"])
    assert read_model(path).graph.inputs[0].shape == ("?", 3, "?", "?")
    assert_masks_equal(path)


@pytest.mark.parametrize("part", ["input", "output", "output type"])
def test_a_shape_that_is_not_stated_is_not_a_scalar(part: str, tmp_path: Path) -> None:
    model = make_onnx(SPECS["semantic"])
    value = model.graph.input[0] if part == "input" else model.graph.output[0]
    if part == "output type":
        value.ClearField("type")
    else:
        value.type.tensor_type.ClearField("shape")
    path = save(tmp_path / "m.onnx", model, SPECS["semantic"])
    graph = read_model(path).graph
    assert (graph.inputs if part == "input" else graph.outputs)[0].shape == ("...",)
    assert_masks_equal(path)


def assert_masks_equal(path: Path) -> None:
    image = picture((24, 32))
    with Segmenter.open(path, device="cpu") as segmenter:
        np.testing.assert_array_equal(segmenter(image).mask, image.argmax(-1))


def with_labels(cast: int, rank: int, *, scale: int = 1, names: int = 3) -> tuple[onnx.ModelProto, ModelSpec]:
    """Return a graph that yields the argmax of its input as another type, of rank 2, 3 or 4."""
    shape: list[str | int | None] = [["N", 1, 24, 32], ["N", 24, 32], [24, 32]][4 - rank]  # type: ignore[assignment]
    nodes = [
        helper.make_node("ArgMax", ["image"], ["ids"], axis=1, keepdims=int(rank == 4)),
        helper.make_node("Mul", ["ids", "scale"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["labels"], to=cast),
    ]
    if rank == 2:
        nodes[2].output[0] = "cast"
        nodes.append(helper.make_node("Squeeze", ["cast", "zero"], ["labels"]))
    graph = helper.make_graph(
        nodes,
        "labels",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N" if rank > 2 else 1, 3, 24, 32])],
        [helper.make_tensor_value_info("labels", cast, shape)],
        [
            helper.make_tensor("scale", TensorProto.INT64, [], [scale]),
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    classes = ClassSpec(NAMES["semantic"][:names])
    return model, ModelSpec("semantic", InputSpec(size=(24, 32)), classes, (OutputSpec(name="labels", kind="labels"),))


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("cast", ["INT64", "INT32", "UINT8", "INT8", "FLOAT", "FLOAT16"])
def test_labels_of_any_type_are_masks(cast: str, rank: int, tmp_path: Path) -> None:
    assert_masks_equal(save(tmp_path / "m.onnx", *with_labels(getattr(TensorProto, cast), rank)))


def test_booleans_are_two_classes(tmp_path: Path) -> None:
    model, spec = with_labels(TensorProto.BOOL, 3, names=2)
    image = picture((24, 32))
    with Segmenter.open(save(tmp_path / "m.onnx", model, spec), device="cpu") as segmenter:
        np.testing.assert_array_equal(segmenter(image).mask, image.argmax(-1) > 0)


def test_labels_without_a_batch_are_refused_when_attached(tmp_path: Path) -> None:
    with refuses(ModelFileError, "4 dimensions", "(24, 32)"):
        save(tmp_path / "m.onnx", *with_labels(TensorProto.INT64, 2))


def test_labels_of_another_size_are_held_to_the_stride(tmp_path: Path) -> None:
    model, spec = with_labels(TensorProto.INT64, 3)
    for dim, value in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], (12, 16), strict=True):
        dim.dim_value = value
    with refuses(ModelFileError, "outputs[0].stride is 1", "(12, 16)"):
        save(tmp_path / "m.onnx", model, spec)


def test_the_ignore_index_may_come_out_of_the_graph(tmp_path: Path) -> None:
    """Class 1 of the graph is made 255, which is not a class."""
    model, spec = with_labels(TensorProto.INT64, 3)
    model.graph.node[1].CopyFrom(helper.make_node("Gather", ["table", "ids"], ["scaled"]))
    model.graph.initializer.append(helper.make_tensor("table", TensorProto.INT64, [3], [0, 255, 2]))
    image = picture((24, 32))
    with Segmenter.open(save(tmp_path / "m.onnx", model, spec), device="cpu") as segmenter:
        np.testing.assert_array_equal(segmenter(image).mask, np.array([0, 255, 2])[image.argmax(-1)])


@pytest.mark.parametrize(
    ("cast", "scale", "names", "words"),
    [
        (TensorProto.INT64, 255, 2, "below 2"),  # a mask of 0 and 255, and 255 is not "unseen" here
        (TensorProto.INT64, 7, 3, "below 3"),
        (TensorProto.FLOAT, -1, 3, "below 3"),
    ],
)
def test_labels_that_are_no_classes_are_refused(cast: int, scale: int, names: int, words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", *with_labels(cast, 3, scale=scale, names=names))
    image = picture((24, 32))
    if names == 2:
        image[..., 2] = 0
    with Segmenter.open(path, device="cpu") as segmenter, refuses(InputError, words, "classes.names"):
        segmenter(image)


def test_scores_given_as_labels_are_refused(tmp_path: Path) -> None:
    model, spec = with_labels(TensorProto.FLOAT, 3)
    model.graph.node[1].CopyFrom(helper.make_node("Identity", ["ids"], ["scaled"]))
    model.graph.node[2].CopyFrom(helper.make_node("Cast", ["scaled"], ["cast"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Mul", ["cast", "half"], ["labels"]))
    model.graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]))
    path = save(tmp_path / "m.onnx", model, spec)
    with Segmenter.open(path, device="cpu") as segmenter, refuses(InputError, "whole numbers", "logits"):
        segmenter(picture((24, 32)))


@pytest.fixture
def binary_graphs(tmp_path: Path) -> list[Path]:
    """The same binary network, with the channel of its output and without it."""
    spec = SPECS["binary"]
    model = make_onnx(spec)
    path = save(tmp_path / "four.onnx", model, spec)
    model.graph.node[-1].output[0] = "with_channel"
    model.graph.node.append(helper.make_node("Squeeze", ["with_channel", "one"], [spec.output.name]))
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    del model.graph.output[0].type.tensor_type.shape.dim[1]
    return [path, save(tmp_path / "three.onnx", model, spec)]


def test_binary_logits_may_lack_their_channel(binary_graphs: list[Path]) -> None:
    image = picture((40, 50))
    masks = []
    for path in binary_graphs:
        with Segmenter.open(path, device="cpu") as segmenter:
            masks.append([segmenter(image).mask, *(result.mask for result in segmenter([image, image]))])
    np.testing.assert_array_equal(masks[0], masks[1])
    assert 0 < np.mean(masks[0]) < 1


@pytest.mark.usefixtures("world")
def test_binary_logits_may_lack_their_channel_on_a_gpu(binary_graphs: list[Path]) -> None:
    image = np.ascontiguousarray(picture((40, 50)))
    with Segmenter.open(binary_graphs[0], device="cpu") as segmenter:
        expected = segmenter(image).mask
    for path in binary_graphs:
        backend: Any = FakeDeviceBackend(path, ("logits",))
        with on_gpu(backend, SPECS["binary"]) as segmenter:
            np.testing.assert_array_equal(segmenter(image).mask, expected)


@pytest.mark.parametrize(("count", "expected"), [(3, 255), (255, 255), (256, 65535), (300, 65535)])
def test_the_default_ignore_index_is_no_class(count: int, expected: int) -> None:
    classes = ClassSpec(tuple(f"c{i}" for i in range(count)))
    spec = ModelSpec("semantic", InputSpec(size=(24, 32)), classes)
    assert spec.classes.ignore_index == expected
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.mask_dtype == (np.uint8 if count <= 255 else np.uint16)
